// 256-entry tables by byte shuffles.
#include "vectors.h"

#if defined(__AVX2__)

namespace {

#if defined(__AVX512VNNI__)
__attribute__((target("avx512vbmi"), noinline)) void whole(const uint8_t* x, const uint8_t* t, uint8_t* y, int64_t count) {
  const __m512i t0 = _mm512_loadu_si512(t), t1 = _mm512_loadu_si512(t + 64), t2 = _mm512_loadu_si512(t + 128),
                t3 = _mm512_loadu_si512(t + 192);
  for (int64_t i = 0; i < count; i += 64) {
    const __mmask64 there = count - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (count - i)) - 1;
    const __m512i codes = _mm512_maskz_loadu_epi8(there, x + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, codes, t1), high = _mm512_permutex2var_epi8(t2, codes, t3);
    _mm512_mask_storeu_epi8(y + i, there, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(codes), high));
  }
}
#endif

// Sixteen tables of 16, each less the one before, so that shuffles whose index has run out of range add nothing: the index
// less 16 t has its upper bit set below 0. Rows of at least 32 codes, or one of any length.
FB_NOINLINE void by_sixteens(const uint8_t* x, int64_t dx, const uint8_t* t, uint8_t* y, int64_t dy, int64_t rows, int64_t count) {
  __m256i changes[16];
  for (int32_t half = 0; half < 2; ++half) {
    for (int32_t k = 0; k < 8; ++k) {
      uint8_t change[16];
      for (int32_t j = 0; j < 16; ++j) {
        const int32_t at = half * 128 + k * 16 + j;
        change[j] = static_cast<uint8_t>(t[at] ^ (k ? t[at - 16] : 0));
      }
      changes[half * 8 + k] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(change)));
    }
  }
  const __m256i sixteen = _mm256_set1_epi8(16), top = _mm256_set1_epi8(static_cast<char>(0x80));
  for (int64_t row = 0; row < rows; ++row, x += dx, y += dy) {
    for (int64_t i = 0; i + 32 <= count;) {
      __m256i a = load(x + i), b = _mm256_xor_si256(a, top);
      __m256i low = _mm256_shuffle_epi8(changes[0], a), high = _mm256_shuffle_epi8(changes[8], b);
#pragma GCC unroll 8
      for (int32_t k = 1; k < 8; ++k) {
        a = _mm256_subs_epi8(a, sixteen);
        b = _mm256_subs_epi8(b, sixteen);
        low = _mm256_xor_si256(low, _mm256_shuffle_epi8(changes[k], a));
        high = _mm256_xor_si256(high, _mm256_shuffle_epi8(changes[8 + k], b));
      }
      store(y + i, _mm256_xor_si256(low, high));
      i += 32;
      if (i < count && i + 32 > count && rows > 1) i = count - 32;  // the last ones again
    }
    for (int64_t i = rows > 1 ? count : count / 32 * 32; i < count; ++i) y[i] = t[x[i]];
  }
}

}  // namespace

extern "C" void FB_FN(simd_table)(const fb_table* c, int64_t begin, int64_t end) {
  if (c->x_type || c->y_type || (c->rows > 1 && c->inner < 64)) return FB_FN(table)(c, begin, end);
  while (begin < end) {
    int64_t last = end;
    const uint8_t* table = c->table;
    if (c->rows > 1) {
      const int64_t run = begin / c->inner;
      last = (run + 1) * c->inner < end ? (run + 1) * c->inner : end;
      table += run % c->rows * 256;
    }
    const int64_t count = last - begin;
#if defined(__AVX512VNNI__)
    if (fb::features() & fb::kVbmi) {
      whole(c->x + begin, table, c->y + begin, count);
      begin = last;
      continue;
    }
#endif
    if (count >= 512) {
      by_sixteens(c->x + begin, 0, table, c->y + begin, 0, 1, count);
    } else {
      for (int64_t i = begin; i < last; ++i) c->y[i] = table[c->x[i]];
    }
    begin = last;
  }
}

// Rows of at least 32 codes through one table.
extern "C" void FB_FN(table_rows)(const uint8_t* table, const uint8_t* x, int64_t dx, uint8_t* y, int64_t dy, int64_t rows, int64_t count) {
#if defined(__AVX512VNNI__)
  if (fb::features() & fb::kVbmi) {
    for (int64_t row = 0; row < rows; ++row) whole(x + row * dx, table, y + row * dy, count);
    return;
  }
#endif
  by_sixteens(x, dx, table, y, dy, rows, count);
}

#endif
