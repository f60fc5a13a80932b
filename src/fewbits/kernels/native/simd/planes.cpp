// Bit planes: codes to planes, and popcounts of what two planes share.
#include "vectors.h"

#if defined(__AVX2__)

namespace {

// One bit of up to 64 codes.
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

#if defined(__AVX512VNNI__)

// What up to sixteen columns of a pixel write, from their counts.
FB_INLINE void finish16(const fb_binary& c, const fb_pixel& pixel, __m512i counts, int64_t block, int64_t most, int64_t number, bool direct) {
  const int64_t column = 8 * block, left = c.columns - column < most ? c.columns - column : most;
  const __mmask16 there = static_cast<__mmask16>((1u << left) - 1);
  const uint32_t all = static_cast<uint32_t>(c.w_low) * static_cast<uint32_t>(c.x_step) * static_cast<uint32_t>(pixel.total);
  __m512i sums = _mm512_mullo_epi32(counts, _mm512_set1_epi32(c.x_step * c.w_step));
  sums = _mm512_add_epi32(sums, _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(all)), _mm512_maskz_loadu_epi32(there, c.bias + column)));
  if (c.outside && pixel.y != FB_WITHIN) {
    const int64_t columns = (c.columns + 7) / 8 * 8;
    for (int32_t ky = 0; ky < c.kernel_h; ++ky) {
      const int32_t y = pixel.y + ky * c.dilation_h;
      for (int32_t kx = 0; kx < c.kernel_w; ++kx) {
        const int32_t x = pixel.x + kx * c.dilation_w;
        if (y >= 0 && y < c.height && x >= 0 && x < c.width) continue;
        sums = _mm512_add_epi32(sums, _mm512_maskz_loadu_epi32(there, c.outside + (ky * c.kernel_w + kx) * columns + column));
      }
    }
  }
  const int64_t at = number * c.columns + column;
  if (direct) return rescale16(c.rescale, column, there, sums, c.y, at);
  int32_t held[16];
  _mm512_storeu_si512(held, sums);
  FB_FN(rescale_row)(&c.rescale, held, column, left, c.y, at);
}

template <int X_BITS, int W_BITS, int ROWS, int BLOCKS>
__attribute__((target("avx512vpopcntdq"), noinline)) void tile(const fb_binary& c, const fb_covered& of, int64_t block, int64_t pixel) {
  const int64_t words = fb_binary_words(&c), block_words = words * 8 * W_BITS;
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
  const uint64_t* x = of.planes + (pixel - of.first) * X_BITS * words;
  for (int64_t word = 0; word < words; ++word) {
    __m512i there[ROWS][X_BITS];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
      for (int p = 0; p < X_BITS; ++p) there[i][p] = _mm512_set1_epi64(static_cast<long long>(x[(i * X_BITS + p) * words + word]));
    }
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
#pragma GCC unroll 2
      for (int q = 0; q < W_BITS; ++q) {
        const uint64_t* const from = w + b * block_words + (q * words + word) * 8;
        const __m512i v = _mm512_loadu_si512(from);
        if constexpr (ROWS == 1) _mm_prefetch(reinterpret_cast<const char*>(from + BLOCKS * block_words), _MM_HINT_T0);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
          for (int p = 0; p < X_BITS; ++p) {
            counts[i][b][p + q] = _mm512_add_epi64(counts[i][b][p + q], _mm512_popcnt_epi64(_mm512_and_si512(there[i][p], v)));
          }
        }
      }
    }
  }
  const bool direct = is_direct16(c.rescale);
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
    __m256i held[BLOCKS];
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
      __m512i all = counts[i][b][0];
#pragma GCC unroll 3
      for (int s = 1; s < X_BITS + W_BITS - 1; ++s) all = _mm512_add_epi64(all, _mm512_slli_epi64(counts[i][b][s], s));
      held[b] = _mm512_cvtepi64_epi32(all);
    }
    const fb_pixel& place = of.pixels[pixel - of.first + i];
#pragma GCC unroll 2
    for (int b = 0; b < BLOCKS; b += 2) {
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(held[b]), held[b + 1 < BLOCKS ? b + 1 : b], 1);
      finish16(c, place, both, block + b, b + 1 < BLOCKS ? 16 : 8, pixel + i, direct);
    }
  }
}

template <int X_BITS, int W_BITS, int BLOCKS>
void columns_of(const fb_binary& c, const fb_covered& of, int64_t begin, int64_t end, int64_t block) {
  constexpr int kRows = X_BITS * W_BITS == 1 ? 4 : 2;
  int64_t pixel = begin;
  for (; pixel + kRows <= end; pixel += kRows) tile<X_BITS, W_BITS, kRows, BLOCKS>(c, of, block, pixel);
  for (; pixel < end; ++pixel) tile<X_BITS, W_BITS, 1, BLOCKS>(c, of, block, pixel);
}

template <int X_BITS, int W_BITS>
void parts(const fb_binary& c, const fb_covered& of, int64_t begin, int64_t end, int64_t first, int64_t last) {
  constexpr int kBlocks = X_BITS * W_BITS == 1 ? 4 : 2;
  int64_t block = first;
  for (; block + kBlocks <= last; block += kBlocks) columns_of<X_BITS, W_BITS, kBlocks>(c, of, begin, end, block);
  switch (last - block) {
    case 3:
      return columns_of<X_BITS, W_BITS, (kBlocks > 2 ? 3 : 1)>(c, of, begin, end, block);
    case 2:
      return columns_of<X_BITS, W_BITS, (kBlocks > 2 ? 2 : 1)>(c, of, begin, end, block);
    case 1:
      return columns_of<X_BITS, W_BITS, 1>(c, of, begin, end, block);
    default:
      return;
  }
}
#endif

FB_INLINE void finish(const fb_binary& c, const fb_pixel& pixel, const uint32_t* counts, int64_t block, int64_t number) {
  const int64_t left = c.columns - 8 * block, there = left < 8 ? left : 8;
  int32_t sums[8];
  fb_binary_sums(&c, &pixel, counts, block, sums);
  FB_FN(rescale_row)(&c.rescale, sums, 8 * block, there, c.y, number * c.columns + 8 * block);
}

// Eight columns and up to two rows: bits of nibbles looked up, bytes added for 31 words, then by column.
template <int ROWS>
FB_NOINLINE void narrow(const fb_binary& c, const fb_covered& of, int64_t block, int64_t pixel) {
  const int64_t words = fb_binary_words(&c);
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
  __m256i all[ROWS][2];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) all[i][0] = all[i][1] = zero;
  for (int32_t p = 0; p < c.x_bits; ++p) {
    for (int32_t q = 0; q < c.w_bits; ++q) {
      const uint64_t* w = c.weights + (block * c.w_bits + q) * words * 8;
      const uint64_t* x = of.planes + ((pixel - of.first) * c.x_bits + p) * words;
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
    uint32_t counts[8];
    store(wide, all[i][0]);
    store(wide + 4, all[i][1]);
    for (int32_t j = 0; j < 8; ++j) counts[j] = static_cast<uint32_t>(wide[j]);
    finish(c, of.pixels[pixel - of.first + i], counts, block, pixel + i);
  }
}

}  // namespace

extern "C" void FB_FN(simd_lines)(const fb_binary* c, uint64_t* lines, int64_t begin, int64_t end) {
  const int64_t rows = static_cast<int64_t>(c->height) + c->top + c->bottom, words = fb_words_of_line(c);
  const int64_t count = static_cast<int64_t>(c->width) * c->channels, before = static_cast<int64_t>(c->left) * c->channels;
  const int32_t shift = static_cast<int32_t>(before & 63);
  for (int64_t line = begin; line < end; ++line) {
    uint64_t* out = lines + line * c->x_bits * words;
    __builtin_memset(out, 0, static_cast<size_t>(c->x_bits * words) * 8);
    const int64_t row = line % rows - c->top;
    if (row < 0 || row >= c->height) continue;
    const uint8_t* x = c->x + (line / rows * c->height + row) * count;
    for (int32_t p = 0; p < c->x_bits; ++p) {
      uint64_t* to = out + p * words + (before >> 6);
      for (int64_t i = 0; i < count; i += 64, ++to) {
        const uint64_t bits = plane(x + i, count - i < 64 ? static_cast<int32_t>(count - i) : 64, c->x_first + p);
        to[0] |= bits << shift;
        if (shift) to[1] |= bits >> (64 - shift);  // there is a word more than the bits take
      }
    }
  }
}

extern "C" void FB_FN(simd_binary)(const fb_binary* c, const fb_covered* of, int64_t begin, int64_t end, int64_t first, int64_t last) {
#if defined(__AVX512VNNI__)
  if (fb::features() & fb::kVpopcntdq) {
    switch (2 * c->x_bits + c->w_bits) {
      case 3:
        return parts<1, 1>(*c, *of, begin, end, first, last);
      case 4:
        return parts<1, 2>(*c, *of, begin, end, first, last);
      case 5:
        return parts<2, 1>(*c, *of, begin, end, first, last);
      default:
        return parts<2, 2>(*c, *of, begin, end, first, last);
    }
  }
#endif
  for (int64_t block = first; block < last; ++block) {
    int64_t pixel = begin;
    for (; pixel + 2 <= end; pixel += 2) narrow<2>(*c, *of, block, pixel);
    for (; pixel < end; ++pixel) narrow<1>(*c, *of, block, pixel);
  }
}

#endif
