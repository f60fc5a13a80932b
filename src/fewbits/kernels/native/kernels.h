// The C interface of the native kernels. Plain types only; no function keeps a pointer or throws.
#pragma once
#include <cstdint>

#include "fewbits.h"

#if defined(_WIN32)
#define FB_API extern "C" __declspec(dllexport)
#else
#define FB_API extern "C" __attribute__((visibility("default")))
#endif

// Raised whenever a function changes: a library of another version is not used.
constexpr int32_t kInterface = 10;

FB_API int32_t fb_interface();
// The levels of this processor as bits (dispatch.h, Level); the one in use; 1 where it is not there. Every level gives the
// same bits.
FB_API int32_t fb_levels();
FB_API int32_t fb_level();
FB_API int32_t fb_set_level(int32_t level);
// Instructions that this processor has beside its levels, as bits (dispatch.h, Feature).
FB_API int32_t fb_features();

// The integer kernels (fewbits.h). Answers FB_OK or what is wrong with a call. One argument: ctypes takes 0.1 us for each.
FB_API int32_t fb_run(fb_batch* batch);
// Bytes of scratch that a call needs with so many threads, or what is wrong with it, negative. Where it is right, it stays so
// as long as what it points to is there: nothing else is checked again but the numbers of rows, which are only known when it
// runs.
FB_API int64_t fb_scratch(const void* call, int32_t threads);
// Bytes that the weights of a convolution (FB_PLAIN) take when packed for the level in use; 0 where it runs with the plain
// ones; negative: what is wrong.
FB_API int64_t fb_packed_bytes(const fb_conv* conv);
FB_API int32_t fb_pack(const fb_conv* conv, void* packed, int64_t bytes);
// Few-bit weights: codes uint8 [columns, depth] below 2^bits, each standing for values[code] (int8 [2^bits]). One packing
// for all levels.
FB_API int64_t fb_grouped_bytes(int32_t bits, int64_t columns, int64_t depth, int64_t group);
FB_API int32_t fb_pack_grouped(const uint8_t* codes, const int8_t* values, int32_t bits, int64_t columns, int64_t depth,
                               int64_t group, void* packed, int64_t bytes);

// kernels/partition.py, best_cuts. sums: [6][n + 1]; cuts: [k + 1]. 0, or 1 when memory ran out.
FB_API int32_t fb_best_cuts(const double* sums, int64_t n, int64_t k, int64_t* cuts);

// kernels/huffman.py, encode_stream. out: at least (12 n + 7) / 8 + 8 bytes. Returns the bytes written.
FB_API int64_t fb_encode(const uint8_t* symbols, int64_t n, const uint16_t* codes, const uint8_t* lengths, uint8_t* out);

// kernels/huffman.py, decode_streams, for up to four streams; out: all symbols, stream behind stream.
// 0; 1 when a stream does not end with its symbols.
FB_API int32_t fb_decode(const uint8_t* const* streams, const int64_t* sizes, const int64_t* counts, int64_t number,
                         const uint16_t* table, uint8_t* out);

// kernels/histogram.py. counts: [256].
FB_API void fb_histogram(const uint8_t* symbols, int64_t n, int64_t* counts);

// kernels/histogram.py, count_into: floor(value / 2^exponent) within int32 and within [start, start + size of counts).
FB_API void fb_count(const float* values, int64_t n, int32_t exponent, int64_t start, int64_t* counts);

// kernels/cpuid.py. registers: eax, ebx, ecx, edx. 0 where the processor has no such leaf, or no CPUID.
FB_API int32_t fb_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t* registers);
// Which registers the operating system saves; only where CPUID says OSXSAVE.
FB_API uint64_t fb_xgetbv();
