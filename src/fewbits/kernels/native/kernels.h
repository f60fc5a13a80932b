// The C interface of the native kernels. Plain types only; no function keeps a pointer or throws.
#pragma once
#include <cstdint>

#if defined(_WIN32)
#define FB_API extern "C" __declspec(dllexport)
#else
#define FB_API extern "C" __attribute__((visibility("default")))
#endif

// Raised whenever a function changes: a library of another version is not used.
constexpr int32_t kInterface = 2;

// What the inner loops may use. Every level gives the same bits.
enum Level : int32_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

FB_API int32_t fb_interface();
FB_API int32_t fb_best_level();
FB_API int32_t fb_level();
FB_API void fb_set_level(int32_t level);

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
