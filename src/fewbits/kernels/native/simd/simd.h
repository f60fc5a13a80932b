// What the instructions of this level have instead of the portable kernels.
#pragma once
#include "../dispatch.h"
#include "../portable/level.h"

#define FB_INLINE static inline __attribute__((always_inline))
#define FB_NOINLINE static __attribute__((noinline))

#if defined(__AVX2__) || defined(__ARM_FEATURE_DOTPROD)
extern "C" {
void FB_FN(product)(const fb::Product* p, int64_t begin, int64_t end, int32_t first, int32_t last);
}
#define FB_PRODUCT FB_FN(product)
#else
#define FB_PRODUCT nullptr
#endif

#if defined(__AVX2__)
extern "C" {
void FB_FN(depthwise)(const fb::Depthwise* d, int64_t begin, int64_t end);
}
#define FB_DEPTHWISE FB_FN(depthwise)
#else
#define FB_DEPTHWISE nullptr
#endif

#if defined(__AVX2__) && !defined(__AVXVNNI__) && !defined(__AVX512VNNI__)
#define FB_PAIRS true
#else
#define FB_PAIRS false
#endif
#if defined(__ARM_FEATURE_DOTPROD)
#define FB_CODE_OFFSET 128
#else
#define FB_CODE_OFFSET 0
#endif
