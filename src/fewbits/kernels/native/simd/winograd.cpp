// 3×3 convolutions in the form of Winograd, F(4×4, 3×3), in whole numbers (Lavin and Gray 2016, arXiv:1509.09308).
//
// With the rows of G multiplied until they are whole, transformed weights stay within 49 127 and transformed codes within
// 17340: both fit 16 bits. What A then gives is 9 · 2^(s_i + s_j) times the sum wanted, modulo 2^32; 9 has an inverse there,
// and the shift is exact where |sum| < 2^25, which pack.cpp proves from the weights.
#include "vectors.h"

#if defined(__AVX2__) && !defined(__AVX512VNNI__)  // AVX512 has twice the products of bytes: reading the weights took longer

namespace {

constexpr int32_t kInverse = 954437177;           // 9 · 954437177 = 2 · 2^32 + 1
constexpr int kShift[4] = {3, 2, 1, 1};           // rows of A are 24, 12, 6 and 6 times those of the paper

FB_INLINE void transform(const __m256i* d, __m256i* o) {
  const __m256i a = _mm256_sub_epi16(d[4], d[2]), b = _mm256_sub_epi16(d[3], d[1]), twice = _mm256_add_epi16(b, b);
  o[0] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2), a);
  o[1] = _mm256_sub_epi16(_mm256_slli_epi16(_mm256_add_epi16(d[1], d[2]), 2), _mm256_add_epi16(d[3], d[4]));
  o[2] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[2], d[1]), 2), _mm256_sub_epi16(d[3], d[4]));
  o[3] = _mm256_add_epi16(a, twice);
  o[4] = _mm256_sub_epi16(a, twice);
  o[5] = _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_add_epi16(twice, twice));
}

using Sums = __m256i;
FB_INLINE Sums get(const int32_t* p) { return load(p); }
FB_INLINE Sums add(Sums a, Sums b) { return _mm256_add_epi32(a, b); }
FB_INLINE Sums sub(Sums a, Sums b) { return _mm256_sub_epi32(a, b); }
FB_INLINE Sums by9(Sums a, int shift) { return _mm256_srai_epi32(_mm256_mullo_epi32(a, _mm256_set1_epi32(kInverse)), shift); }
constexpr int kLanes = 8;

// Six numbers to four: rows of A.
FB_INLINE void gather4(const Sums* m, Sums* t) {
  const Sums s = add(m[1], m[2]), d = sub(m[1], m[2]), e = add(m[3], m[4]), f = sub(m[3], m[4]);
  const Sums first = add(m[0], add(m[0], m[0])), last = add(m[5], add(m[5], m[5])), two = add(s, s);
  t[0] = add(add(add(first, first), add(two, two)), e);
  t[1] = add(add(d, d), f);
  t[2] = add(s, e);
  t[3] = add(add(d, add(f, f)), add(last, last));
}

// Sixteen pixels of kLanes columns.
FB_INLINE void back(const int32_t* m, int64_t next, Sums out[4][4]) {
  Sums t[4][6];
#pragma GCC unroll 6
  for (int x = 0; x < 6; ++x) {
    Sums six[6], four[4];
#pragma GCC unroll 6
    for (int y = 0; y < 6; ++y) six[y] = get(m + (6 * y + x) * next);
    gather4(six, four);
#pragma GCC unroll 4
    for (int y = 0; y < 4; ++y) t[y][x] = four[y];
  }
#pragma GCC unroll 4
  for (int y = 0; y < 4; ++y) {
    gather4(t[y], out[y]);
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) out[y][x] = by9(out[y][x], kShift[y] + kShift[x]);
  }
}

}  // namespace

extern "C" void FB_FN(winograd_in)(const fb::Winograd* w, int64_t begin, int64_t end) {
  const int64_t of_image = static_cast<int64_t>(w->tiles_y) * w->tiles_x, next = w->count * w->depth;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t number = w->first + tile, image = number / of_image, place = number % of_image;
    const uint8_t* x = w->x + image * w->image + place / w->tiles_x * 4 * w->line + place % w->tiles_x * 4 * w->channels;
    int16_t* v = w->v + tile * w->depth;
    for (int32_t c = 0; c < w->depth; c += 16) {  // beyond the channels are others' codes, whose weights are 0
      __m256i rows[6][6];
#pragma GCC unroll 6
      for (int y = 0; y < 6; ++y) {
        __m256i d[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) {
          d[i] = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + y * w->line + i * w->channels + c)));
        }
        transform(d, rows[y]);
      }
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) {
        __m256i d[6], o[6];
#pragma GCC unroll 6
        for (int y = 0; y < 6; ++y) d[y] = rows[y][i];
        transform(d, o);
#pragma GCC unroll 6
        for (int y = 0; y < 6; ++y) store(v + (6 * y + i) * next + c, o[y]);
      }
    }
  }
}

extern "C" void FB_FN(winograd_out)(const fb::Winograd* w, int64_t begin, int64_t end, int64_t channel, int32_t channels) {
  const int64_t of_image = static_cast<int64_t>(w->tiles_y) * w->tiles_x, next = w->count * w->m_step;
  const fb_rescale& r = *w->rescale;
  const bool direct = r.kind == FB_FLOAT && r.type == FB_U8;
  for (int32_t first = 0; first < channels; first += 16) {
    const int64_t column = channel + first, left = w->columns - column;
    const int32_t there = left < 16 ? static_cast<int32_t>(left) : 16;
    const Sums start[2] = {get(w->sums + column), get(w->sums + column + 8)};
    float factors[16] = {0};
    if (direct) factors16(r, column, there, factors);
    const Rescale8 r0 = Rescale8::of(r, factors), r1 = Rescale8::of(r, factors + 8);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t number = w->first + tile, image = number / of_image, place = number % of_image;
      const int32_t y0 = static_cast<int32_t>(place / w->tiles_x) * 4, x0 = static_cast<int32_t>(place % w->tiles_x) * 4;
      const int32_t high = w->high - y0 < 4 ? w->high - y0 : 4, wide = w->wide - x0 < 4 ? w->wide - x0 : 4;
      const int32_t* m = w->m + tile * w->m_step + first;
      const int64_t to = ((image * w->high + y0) * w->wide + x0) * w->columns + column;
      alignas(32) int32_t held[4][4][16];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        Sums out[4][4];
        back(m + 8 * half, next, out);
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
#pragma GCC unroll 4
          for (int x = 0; x < 4; ++x) store(held[y][x] + 8 * half, add(out[y][x], start[half]));
        }
      }
      for (int32_t y = 0; y < high; ++y) {
        for (int32_t x = 0; x < wide; ++x) {
          const int64_t at = to + (static_cast<int64_t>(y) * w->wide + x) * w->columns;
          if (direct) {
            store_bytes(static_cast<uint8_t*>(w->y) + at, to_bytes(to_codes(r0, load(held[y][x])), to_codes(r1, load(held[y][x] + 8))), there);
          } else {
            FB_FN(rescale_row)(&r, held[y][x], column, there, w->y, at);
          }
        }
      }
    }
  }
}

#endif
