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
#if defined(__AMX_INT8__)
extern "C" void FB_FN(tiles)(const fb::Product* p, int64_t begin, int64_t end, int32_t first, int32_t last);
#define FB_PRODUCT FB_FN(tiles)
#define FB_TILES true
#else
#define FB_PRODUCT FB_FN(product)
#define FB_TILES false
#endif
#else
#define FB_PRODUCT nullptr
#define FB_TILES false
#endif

#if defined(__AVX2__) && !defined(__AVX512VNNI__)
extern "C" {
void FB_FN(winograd_in)(const fb::Winograd* w, int64_t begin, int64_t end);
void FB_FN(winograd_out)(const fb::Winograd* w, int64_t begin, int64_t end, int64_t channel, int32_t channels);
}
#define FB_WINOGRAD_IN FB_FN(winograd_in)
#define FB_WINOGRAD_OUT FB_FN(winograd_out)
#else
#define FB_WINOGRAD_IN nullptr
#define FB_WINOGRAD_OUT nullptr
#endif

#if defined(__AVX2__)
extern "C" {
void FB_FN(depthwise)(const fb::Depthwise* d, int64_t begin, int64_t end);
void FB_FN(simd_grouped)(const fb_grouped* c, int64_t begin, int64_t end);
void FB_FN(simd_sparse)(const fb_sparse* c, const uint8_t* x, int64_t x_step, int64_t begin, int64_t end);
void FB_FN(simd_lines)(const fb_binary* c, uint64_t* lines, int64_t begin, int64_t end);
void FB_FN(simd_binary)(const fb_binary* c, const fb_covered* of, int64_t begin, int64_t end, int64_t first, int64_t last);
void FB_FN(simd_table)(const fb_table* c, int64_t begin, int64_t end);
void FB_FN(simd_pool)(const fb_pool* c, int64_t begin, int64_t end);
}
#define FB_POOLED FB_FN(simd_pool)
#define FB_DEPTHWISE FB_FN(depthwise)
#define FB_FEW_BITS FB_FN(simd_grouped)
#define FB_SPREAD FB_FN(simd_sparse)
#define FB_LINES FB_FN(simd_lines)
#define FB_BINARY_SUMS FB_FN(simd_binary)
#define FB_LOOKUP FB_FN(simd_table)
#else
#define FB_DEPTHWISE nullptr
#define FB_FEW_BITS FB_FN(grouped)
#define FB_SPREAD FB_FN(sparse)
#define FB_LINES FB_FN(lines)
#define FB_BINARY_SUMS FB_FN(binary)
#define FB_LOOKUP FB_FN(table)
#define FB_POOLED FB_FN(pool)
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
