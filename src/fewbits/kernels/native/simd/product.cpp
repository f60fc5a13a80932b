// Pixels times packed weights, sixteen columns and up to fourteen pixels at a time, straight to codes.
#include "vectors.h"

#if defined(__AVX2__) || defined(__ARM_FEATURE_DOTPROD)

namespace {

// Where the pixels of one tile begin, and what they write.
struct Place {
  const uint8_t* x[16];
  int64_t at[16];
};

FB_INLINE void locate(const fb::Product& p, int64_t first, int32_t count, Place& place) {
  int64_t row = first / p.width, column = first % p.width;
  for (int32_t i = 0; i < count; ++i) {
    place.x[i] = p.x + row * p.line + column * p.pixel;
    place.at[i] = (first + i) * p.y_step + p.first_channel;
    if (++column == p.width) {
      column = 0;
      ++row;
    }
  }
}

// Sums of one tile by any rescaling.
FB_INLINE void rescale_tile(const fb::Product& p, const int32_t* sums, int32_t pixels, int32_t wide, const int64_t* at,
                            int32_t block) {
  const int32_t left = p.columns - 16 * block, count = left < wide ? left : wide;
  for (int32_t i = 0; i < pixels; ++i) {
    FB_FN(rescale_row)(p.rescale, sums + i * wide, p.first_channel + 16 * block, count, p.y, at[i] + 16 * block);
  }
}

using Tile = void (*)(const fb::Product& p, const Place& place, int64_t pixel, int32_t block);

#if defined(__AVX512VNNI__)

template <bool WIDE>
FB_INLINE void multiply_add(__m512i& c, __m512i a, __m512i w) {
  if (WIDE) {
    __asm__("vpdpwssd %1,%2,%0" : "+v"(c) : "v"(w), "v"(a));
  } else {
    __asm__("vpdpbusd %1,%2,%0" : "+v"(c) : "v"(w), "v"(a));
  }
}

template <bool WIDE, int PIXELS, int BLOCKS>
FB_NOINLINE void tile(const fb::Product& p, const Place& place, int64_t pixel, int32_t block) {
  __m512i c[PIXELS][BLOCKS];
  const int64_t block_bytes = static_cast<int64_t>(p.runs_y) * p.runs_x * p.steps_of_run * 64;
  const uint8_t* w = p.steps + block * block_bytes;
#pragma GCC unroll 16
  for (int i = 0; i < PIXELS; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < BLOCKS; ++j) {
      c[i][j] = _mm512_loadu_si512(p.sums + 16 * (block + j));
      if (p.added) c[i][j] = _mm512_add_epi32(c[i][j], _mm512_set1_epi32(p.added[pixel + i]));
    }
  }
  for (int32_t ky = 0; ky < p.runs_y; ++ky) {
    for (int32_t kx = 0; kx < p.runs_x; ++kx) {
      const int64_t from = ky * p.run_y + kx * p.run_x;
      const uint8_t* x[PIXELS];
#pragma GCC unroll 16
      for (int i = 0; i < PIXELS; ++i) x[i] = place.x[i] + from;
      for (int64_t s = 0; s < p.steps_of_run; ++s, w += 64) {
        __m512i v[BLOCKS];
#pragma GCC unroll 4
        for (int j = 0; j < BLOCKS; ++j) v[j] = _mm512_loadu_si512(w + j * block_bytes);
#pragma GCC unroll 16
        for (int i = 0; i < PIXELS; ++i) {
          const __m512i a = _mm512_set1_epi32(word(x[i] + 4 * s));
#pragma GCC unroll 4
          for (int j = 0; j < BLOCKS; ++j) multiply_add<WIDE>(c[i][j], a, v[j]);
        }
      }
    }
  }
  if (p.rescale->kind == FB_FLOAT && p.rescale->type == FB_U8) {
    const fb_rescale& r = *p.rescale;
    const __m512 low = _mm512_set1_ps(static_cast<float>(r.low - r.zero));
    const __m512 high = _mm512_set1_ps(static_cast<float>(r.high - r.zero));
    const __m512i zero = _mm512_set1_epi32(r.zero);
#pragma GCC unroll 4
    for (int j = 0; j < BLOCKS; ++j) {
      const int32_t left = p.columns - 16 * (block + j);
      const __mmask16 there = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
      const int64_t channel = p.first_channel + 16 * (block + j);
      const __m512 factor = r.per_channel ? _mm512_maskz_loadu_ps(there, r.factor + channel) : _mm512_set1_ps(r.factor[0]);
#pragma GCC unroll 16
      for (int i = 0; i < PIXELS; ++i) {
        __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(c[i][j]), factor);
        t = _mm512_min_ps(_mm512_max_ps(t, low), high);
        const __m128i codes = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(t), zero));
        _mm_mask_storeu_epi8(static_cast<uint8_t*>(p.y) + place.at[i] + 16 * (block + j), there, codes);
      }
    }
    return;
  }
  if (is_direct16(*p.rescale)) {
#pragma GCC unroll 4
    for (int j = 0; j < BLOCKS; ++j) {
      const int32_t left = p.columns - 16 * (block + j);
      const __mmask16 there = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
#pragma GCC unroll 16
      for (int i = 0; i < PIXELS; ++i) rescale16(*p.rescale, p.first_channel + 16 * (block + j), there, c[i][j], p.y, place.at[i] + 16 * (block + j));
    }
    return;
  }
  int32_t sums[PIXELS * BLOCKS * 16];
#pragma GCC unroll 16
  for (int i = 0; i < PIXELS; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < BLOCKS; ++j) _mm512_storeu_si512(sums + (i * BLOCKS + j) * 16, c[i][j]);
  }
  rescale_tile(p, sums, PIXELS, BLOCKS * 16, place.at, block);
}

constexpr int32_t kBlocks = 4;

// The largest tile of at most `pixels` pixels.
template <bool WIDE, int BLOCKS>
FB_INLINE int32_t choose(int64_t pixels, Tile& chosen) {
#define FB_TILE(SIZE)                      \
  if (pixels >= SIZE) {                    \
    chosen = tile<WIDE, SIZE, BLOCKS>;     \
    return SIZE;                           \
  }
  if (BLOCKS <= 2) {
    FB_TILE((BLOCKS <= 2 ? 12 : 1))
  }
  if (BLOCKS <= 3) {
    FB_TILE((BLOCKS <= 3 ? 8 : 1))
  }
  FB_TILE(6)
  FB_TILE(4)
  FB_TILE(3)
  FB_TILE(2)
  FB_TILE(1)
#undef FB_TILE
  return 0;
}

template <bool WIDE>
FB_INLINE int32_t choose(int32_t blocks, int64_t pixels, int32_t, Tile& chosen) {
  switch (blocks) {
    case 1:
      return choose<WIDE, 1>(pixels, chosen);
    case 2:
      return choose<WIDE, 2>(pixels, chosen);
    case 3:
      return choose<WIDE, 3>(pixels, chosen);
    default:
      return choose<WIDE, 4>(pixels, chosen);
  }
}

#elif defined(__AVX2__)

// Whether weights stay in registers.
template <bool WIDE>
#if defined(__AVXVNNI__)
constexpr bool kHeld = true;
#else
constexpr bool kHeld = WIDE;
#endif

// HALVES: of the sixteen columns; the second eight may be all missing.
template <bool WIDE, int PIXELS, int HALVES>
FB_NOINLINE void tile(const fb::Product& p, const Place& place, int64_t pixel, int32_t block) {
  __m256i c[PIXELS][HALVES];
  const uint8_t* w = p.steps + static_cast<int64_t>(block) * p.runs_y * p.runs_x * p.steps_of_run * 64;
  const __m256i ones = _mm256_set1_epi16(1);
  (void)ones;
#pragma GCC unroll 8
  for (int i = 0; i < PIXELS; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < HALVES; ++h) {
      c[i][h] = load(p.sums + 16 * block + 8 * h);
      if (p.added) c[i][h] = _mm256_add_epi32(c[i][h], _mm256_set1_epi32(p.added[pixel + i]));
    }
  }
  for (int32_t ky = 0; ky < p.runs_y; ++ky) {
    for (int32_t kx = 0; kx < p.runs_x; ++kx) {
      const int64_t from = ky * p.run_y + kx * p.run_x;
      const uint8_t* x[PIXELS];
#pragma GCC unroll 8
      for (int i = 0; i < PIXELS; ++i) x[i] = place.x[i] + from;
      for (int64_t s = 0; s < p.steps_of_run; ++s, w += 64) {
        if constexpr (kHeld<WIDE>) {
          const __m256i w0 = load(w), w1 = HALVES > 1 ? load(w + 32) : w0;  // registers suffice, and loads are what limits
#pragma GCC unroll 8
          for (int i = 0; i < PIXELS; ++i) {
            const __m256i a = _mm256_set1_epi32(word(x[i] + 4 * s));
            multiply_add_held<WIDE>(c[i][0], a, w0);
            if (HALVES > 1) multiply_add_held<WIDE>(c[i][HALVES - 1], a, w1);
          }
        } else {
#pragma GCC unroll 8
          for (int i = 0; i < PIXELS; ++i) {
            const __m256i a = _mm256_set1_epi32(word(x[i] + 4 * s));
            multiply_add<WIDE>(c[i][0], a, w, ones);
            if (HALVES > 1) multiply_add<WIDE>(c[i][HALVES - 1], a, w + 32, ones);
          }
        }
      }
    }
  }
#if !defined(__AVXVNNI__)
  if (!WIDE && p.extra_first) {
#pragma GCC unroll 2
    for (int half = 0; half < HALVES; ++half) {
      const int32_t last = p.extra_first[2 * block + half + 1];
      for (int32_t e = p.extra_first[2 * block + half]; e < last; ++e) {
        const int32_t run = p.extra_place[2 * e];
        const int64_t from = (run >> 16) * p.run_y + (run & 0xFFFF) * p.run_x + 4 * p.extra_place[2 * e + 1];
#pragma GCC unroll 8
        for (int i = 0; i < PIXELS; ++i) {
          multiply_add<false>(c[i][half], _mm256_set1_epi32(word(place.x[i] + from)), p.extra + 32 * static_cast<int64_t>(e),
                              ones);
        }
      }
    }
  }
#endif
  if (p.rescale->kind == FB_FLOAT && p.rescale->type == FB_U8) {
    const int32_t left = p.columns - 16 * block;
    const int64_t channel = p.first_channel + 16 * block;
    float some[16];
    const float* factors = some;
    if (left >= 16 && p.rescale->per_channel) {
      factors = p.rescale->factor + channel;
    } else {
      factors16(*p.rescale, channel, left < 16 ? left : 16, some);
    }
    const Rescale8 r0 = Rescale8::of(*p.rescale, factors), r1 = Rescale8::of(*p.rescale, factors + 8);
#pragma GCC unroll 8
    for (int i = 0; i < PIXELS; ++i) {
      const __m256i q0 = to_codes(r0, c[i][0]), q1 = HALVES > 1 ? to_codes(r1, c[i][HALVES - 1]) : q0;
      store_bytes(static_cast<uint8_t*>(p.y) + place.at[i] + 16 * block, to_bytes(q0, q1), left);
    }
    return;
  }
  if (HALVES > 1 && p.rescale->kind == FB_SUMS && p.columns - 16 * block >= 16) {
#pragma GCC unroll 8
    for (int i = 0; i < PIXELS; ++i) {
      int32_t* y = static_cast<int32_t*>(p.y) + place.at[i] + 16 * block;
      store(y, c[i][0]);
      store(y + 8, c[i][HALVES - 1]);
    }
    return;
  }
  int32_t sums[PIXELS * 16];
#pragma GCC unroll 8
  for (int i = 0; i < PIXELS; ++i) {
    store(sums + 16 * i, c[i][0]);
    store(sums + 16 * i + 8, c[i][HALVES - 1]);
  }
  rescale_tile(p, sums, PIXELS, 16, place.at, block);
}

constexpr int32_t kBlocks = 1;

template <bool WIDE, int HALVES>
FB_INLINE int32_t choose(int64_t pixels, Tile& chosen) {
  static constexpr Tile tiles[] = {nullptr, tile<WIDE, 1, HALVES>, tile<WIDE, 2, HALVES>, tile<WIDE, 3, HALVES>,
                                   tile<WIDE, 4, HALVES>, tile<WIDE, 5, HALVES>, tile<WIDE, 6, HALVES>};
  const int32_t size = pixels < 6 ? static_cast<int32_t>(pixels) : pixels == 7 || pixels == 8 ? 4 : 6;
  chosen = tiles[size];
  return size;
}

template <bool WIDE>
FB_INLINE int32_t choose(int32_t, int64_t pixels, int32_t left, Tile& chosen) {
  return left > 8 ? choose<WIDE, 2>(pixels, chosen) : choose<WIDE, 1>(pixels, chosen);
}

#else
#include <arm_neon.h>

template <bool WIDE, int PIXELS>
FB_NOINLINE void tile(const fb::Product& p, const Place& place, int64_t pixel, int32_t block) {
  int32x4_t c[PIXELS][4];
  const uint8_t* w = p.steps + static_cast<int64_t>(block) * p.runs_y * p.runs_x * p.steps_of_run * 64;
  for (int i = 0; i < PIXELS; ++i) {
    for (int j = 0; j < 4; ++j) {
      c[i][j] = vld1q_s32(p.sums + 16 * block + 4 * j);
      if (p.added) c[i][j] = vaddq_s32(c[i][j], vdupq_n_s32(p.added[pixel + i]));
    }
  }
  const uint8x16_t flip = vdupq_n_u8(0x80);
  for (int32_t ky = 0; ky < p.runs_y; ++ky) {
    for (int32_t kx = 0; kx < p.runs_x; ++kx) {
      const int64_t from = ky * p.run_y + kx * p.run_x;
      for (int64_t s = 0; s < p.steps_of_run; ++s, w += 64) {
        int8x16_t v[4];
        for (int j = 0; j < 4; ++j) v[j] = vreinterpretq_s8_u8(vld1q_u8(w + 16 * j));
        for (int i = 0; i < PIXELS; ++i) {
          int32_t four;
          __builtin_memcpy(&four, place.x[i] + from + 4 * s, 4);
          const uint8x16_t a = vreinterpretq_u8_s32(vdupq_n_s32(four));
          for (int j = 0; j < 4; ++j) {
            if (WIDE) {
              const int16x8_t two = vreinterpretq_s16_u8(a), weights = vreinterpretq_s16_s8(v[j]);
              c[i][j] = vaddq_s32(c[i][j], vpaddq_s32(vmull_s16(vget_low_s16(two), vget_low_s16(weights)),
                                                      vmull_high_s16(two, weights)));
            } else {
              c[i][j] = vdotq_s32(c[i][j], v[j], vreinterpretq_s8_u8(veorq_u8(a, flip)));
            }
          }
        }
      }
    }
  }
  int32_t sums[PIXELS * 16];
  for (int i = 0; i < PIXELS; ++i) {
    for (int j = 0; j < 4; ++j) vst1q_s32(sums + 16 * i + 4 * j, c[i][j]);
  }
  rescale_tile(p, sums, PIXELS, 16, place.at, block);
}

constexpr int32_t kBlocks = 1;

template <bool WIDE>
FB_INLINE int32_t choose(int32_t, int64_t pixels, int32_t, Tile& chosen) {
  static constexpr Tile tiles[] = {nullptr, tile<WIDE, 1>, tile<WIDE, 2>, tile<WIDE, 3>, tile<WIDE, 4>};
  const int32_t size = pixels < 4 ? static_cast<int32_t>(pixels) : 4;
  chosen = tiles[size];
  return size;
}
#endif

}  // namespace

extern "C" void FB_FN(product)(const fb::Product* p, int64_t begin, int64_t end, int32_t first, int32_t last) {
  constexpr int64_t kCache = 256 << 10;  // bytes of codes that stay in the second-level cache
  int64_t some = kCache / (p->pixel > 0 ? p->pixel : 1);
  some = some < 48 ? 48 : some / 48 * 48;
  for (int64_t from = begin; from < end; from += some) {
    const int64_t to = end - from < some ? end : from + some;
    for (int32_t block = first; block < last;) {
      int32_t blocks = last - block;
      if (blocks > kBlocks) blocks = blocks == kBlocks + 1 ? (kBlocks + 1) / 2 : kBlocks;
      Place place;
      for (int64_t pixel = from; pixel < to;) {
        Tile chosen = nullptr;
        const int32_t left = p->columns - 16 * block;
        const int32_t size = p->wide ? choose<true>(blocks, to - pixel, left, chosen) : choose<false>(blocks, to - pixel, left, chosen);
        locate(*p, pixel, size, place);
        chosen(*p, place, pixel, block);
        pixel += size;
      }
      block += blocks;
    }
  }
}

#endif
