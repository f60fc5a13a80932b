// Bit planes: codes to planes, and popcounts of what two planes share.
#include "vectors.h"

#if defined(__AVX2__)

namespace {

// Bit p of up to 64 codes, and their sum.
FB_INLINE uint64_t plane(const uint8_t* x, int32_t count, int32_t bit) {
#if defined(__AVX512BW__)
  const __mmask64 there = count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
  return _mm512_test_epi8_mask(_mm512_maskz_loadu_epi8(there, x), _mm512_set1_epi8(static_cast<char>(1 << bit)));
#else
  if (count < 64) {
    uint64_t word = 0;
    for (int32_t i = 0; i < count; ++i) word |= static_cast<uint64_t>(x[i] >> bit & 1) << i;
    return word;
  }
  const __m128i up = _mm_cvtsi32_si128(7 - bit);
  const uint32_t low = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(load(x), up)));
  const uint32_t high = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(load(x + 32), up)));
  return low | static_cast<uint64_t>(high) << 32;
#endif
}

FB_INLINE void finish(const fb_binary& c, const int32_t* counts, int32_t total, int64_t block, int64_t row) {
  const int64_t left = c.columns - 8 * block, count = left < 8 ? left : 8;
  int32_t sums[8];
  for (int64_t j = 0; j < 8; ++j) sums[j] = (j < count ? c.bias[8 * block + j] : 0) - c.w_zero * total + counts[j];
  FB_FN(rescale_row)(&c.rescale, sums, 8 * block, count, c.y, row * c.columns + 8 * block);
}

#if defined(__AVX512VNNI__)

template <int X_BITS, int W_BITS, int ROWS, int BLOCKS>
__attribute__((target("avx512vpopcntdq"), noinline)) void tile(const fb_binary& c, const uint64_t* planes, const int32_t* totals,
                                                              int64_t block, int64_t row) {
  const int64_t words = (c.depth + 63) / 64, block_words = words * 8 * W_BITS;
  __m512i counts[ROWS][BLOCKS][X_BITS + W_BITS - 1];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
#pragma GCC unroll 3
      for (int s = 0; s < X_BITS + W_BITS - 1; ++s) counts[i][b][s] = _mm512_setzero_si512();
    }
  }
  const uint64_t* w = c.weights + block * block_words;
  const uint64_t* x = planes + row * X_BITS * words;
  for (int64_t word = 0; word < words; ++word) {
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
      __m512i v[W_BITS];
#pragma GCC unroll 2
      for (int q = 0; q < W_BITS; ++q) v[q] = _mm512_loadu_si512(w + b * block_words + (q * words + word) * 8);
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
        for (int p = 0; p < X_BITS; ++p) {
          const __m512i there = _mm512_set1_epi64(static_cast<long long>(x[(i * X_BITS + p) * words + word]));
#pragma GCC unroll 2
          for (int q = 0; q < W_BITS; ++q) {
            counts[i][b][p + q] = _mm512_add_epi64(counts[i][b][p + q], _mm512_popcnt_epi64(_mm512_and_si512(there, v[q])));
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
      __m512i all = counts[i][b][0];
#pragma GCC unroll 3
      for (int s = 1; s < X_BITS + W_BITS - 1; ++s) all = _mm512_add_epi64(all, _mm512_slli_epi64(counts[i][b][s], s));
      int32_t sums[8];
      store(sums, _mm512_cvtepi64_epi32(all));
      finish(c, sums, totals[row + i], block + b, row + i);
    }
  }
}

template <int X_BITS, int W_BITS>
void parts(const fb_binary& c, const uint64_t* planes, const int32_t* totals, int64_t begin, int64_t end) {
  constexpr int kRows = X_BITS * W_BITS == 1 ? 4 : 2, kBlocks = X_BITS * W_BITS == 1 ? 4 : 2;
  for (int64_t block = begin; block < end;) {
    const bool all = end - block >= kBlocks;
    int64_t row = 0;
    for (; all && row + kRows <= c.rows; row += kRows) tile<X_BITS, W_BITS, kRows, kBlocks>(c, planes, totals, block, row);
    for (; row < c.rows; ++row) {
      if (all) {
        tile<X_BITS, W_BITS, 1, kBlocks>(c, planes, totals, block, row);
      } else {
        for (int64_t b = block; b < end; ++b) tile<X_BITS, W_BITS, 1, 1>(c, planes, totals, b, row);
      }
    }
    block = all ? block + kBlocks : end;
  }
}
#endif

// Eight columns and up to two rows: bits of nibbles looked up, bytes added for 31 words, then by column.
template <int ROWS>
FB_NOINLINE void narrow(const fb_binary& c, const uint64_t* planes, const int32_t* totals, int64_t block, int64_t row) {
  const int64_t words = (c.depth + 63) / 64;
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
  __m256i all[ROWS][2];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) all[i][0] = all[i][1] = zero;
  for (int32_t p = 0; p < c.x_bits; ++p) {
    for (int32_t q = 0; q < c.w_bits; ++q) {
      const uint64_t* w = c.weights + (block * c.w_bits + q) * words * 8;
      const uint64_t* x = planes + (row * c.x_bits + p) * words;
      const int64_t next = static_cast<int64_t>(c.x_bits) * words;
      const __m128i up = _mm_cvtsi32_si128(p + q);
      for (int64_t word = 0; word < words;) {
        const int64_t last = words - word < 31 ? words : word + 31;
        __m256i bytes[ROWS][2];
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) bytes[i][0] = bytes[i][1] = zero;
        for (; word < last; ++word) {
#pragma GCC unroll 4
          for (int i = 0; i < ROWS; ++i) {
            const __m256i there = _mm256_set1_epi64x(static_cast<long long>(x[i * next + word]));
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h) {
              const __m256i both = _mm256_and_si256(there, load(w + 8 * word + 4 * h));
              const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(both, nibble));
              const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
              bytes[i][h] = _mm256_add_epi8(bytes[i][h], _mm256_add_epi8(low, high));
            }
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            all[i][h] = _mm256_add_epi64(all[i][h], _mm256_sll_epi64(_mm256_sad_epu8(bytes[i][h], zero), up));
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
    int64_t wide[8];
    int32_t sums[8];
    store(wide, all[i][0]);
    store(wide + 4, all[i][1]);
    for (int32_t j = 0; j < 8; ++j) sums[j] = static_cast<int32_t>(wide[j]);
    finish(c, sums, totals[row + i], block, row + i);
  }
}

}  // namespace

extern "C" void FB_FN(simd_planes)(const fb_binary* c, uint64_t* planes, int32_t* totals, int64_t begin, int64_t end) {
  const int32_t words = (c->depth + 63) / 64;
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* x = c->x + row * c->depth;
    uint64_t* out = planes + row * c->x_bits * words;
    int32_t total = 0;
    for (int32_t word = 0; word < words; ++word) {
      const int32_t left = c->depth - 64 * word;
      for (int32_t p = 0; p < c->x_bits; ++p) {
        const uint64_t bits = plane(x + 64 * word, left, p);
        out[p * words + word] = bits;
        total += static_cast<int32_t>(__builtin_popcountll(bits)) << p;
      }
    }
    if (c->w_zero) {  // else nobody asks; codes beyond the planes count as well
      total = 0;
      for (int32_t i = 0; i < c->depth; ++i) total += x[i];
    }
    totals[row] = total;
  }
}

extern "C" void FB_FN(simd_binary)(const fb_binary* c, const uint64_t* planes, const int32_t* totals, int64_t begin, int64_t end) {
#if defined(__AVX512VNNI__)
  if (fb::features() & fb::kVpopcntdq) {
    switch (2 * c->x_bits + c->w_bits) {
      case 3:
        return parts<1, 1>(*c, planes, totals, begin, end);
      case 4:
        return parts<1, 2>(*c, planes, totals, begin, end);
      case 5:
        return parts<2, 1>(*c, planes, totals, begin, end);
      default:
        return parts<2, 2>(*c, planes, totals, begin, end);
    }
  }
#endif
  for (int64_t block = begin; block < end; ++block) {
    int64_t row = 0;
    for (; row + 2 <= c->rows; row += 2) narrow<2>(*c, planes, totals, block, row);
    for (; row < c->rows; ++row) narrow<1>(*c, planes, totals, block, row);
  }
}

#endif
