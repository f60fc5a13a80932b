// Rows times few-bit weights straight from their packed bits: each code is looked up by a byte shuffle.
#include "../packed.h"
#include "vectors.h"

#if defined(__AVX2__)

namespace {

constexpr int64_t kAhead = 1024;  // bytes to prefetch

// The parts of the packing that one call reads.
struct Weights {
  const uint8_t* data;
  const int32_t* sums;
  const int8_t* values;
  int64_t groups, group_bytes;
  int32_t group, steps, rest;  // steps of a group; codes of a row behind each other
};

FB_INLINE Weights weights_of(const fb_grouped& c) {
  const uint8_t* base = static_cast<const uint8_t*>(c.weights);
  const fb::Packed& h = *reinterpret_cast<const fb::Packed*>(base);
  const int32_t padded = (c.group + 31) / 32 * 32;
  return {base + h.steps, reinterpret_cast<const int32_t*>(base + h.weight_sums), h.values, c.depth / c.group,
          static_cast<int64_t>(padded) * 2 * c.bits, c.group, padded * c.bits / 32, (c.depth + 31) / 32 * 32};
}

#if defined(__AVX512VNNI__)

FB_INLINE void multiply_add512(__m512i& c, __m512i x, __m512i w) {
  __asm__("vpdpbusd %1,%2,%0" : "+v"(c) : "v"(w), "v"(x));
}

// What field f of each byte stands for.
#if defined(__AVX512VBMI__)
// Of an index only its lowest six bits count, in which the table repeats itself: nothing is masked. Half of the shifts are left
// to the unit that looks up, as the one that multiplies has more to do.
template <int BITS>
struct Table {
  __m512i values, turns;
};

template <int BITS>
FB_INLINE Table<BITS> table_of(const int8_t* values) {
  alignas(64) uint8_t turns[64];
  for (int i = 0; i < 64; ++i) turns[i] = static_cast<uint8_t>(8 * (i % 8));
  return {_mm512_loadu_si512(values), _mm512_load_si512(turns)};
}

template <int BITS>
FB_INLINE __m512i value_of(const Table<BITS>& t, __m512i packed, int f) {
  __m512i code = packed;
  if (f % 2) {
    code = _mm512_multishift_epi64_epi8(_mm512_add_epi8(t.turns, _mm512_set1_epi8(static_cast<char>(BITS * f))), packed);
  } else if (f) {
    code = _mm512_srli_epi16(packed, BITS * f);
  }
  return _mm512_permutexvar_epi8(code, t.values);
}
#else
template <int BITS>
struct Table {
  __m512i values, mask;
};

template <int BITS>
FB_INLINE Table<BITS> table_of(const int8_t* values) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values))),
          _mm512_set1_epi8(static_cast<char>((1 << BITS) - 1))};
}

template <int BITS>
FB_INLINE __m512i value_of(const Table<BITS>& t, __m512i packed, int f) {
  return _mm512_shuffle_epi8(t.values, _mm512_and_si512(f ? _mm512_srli_epi16(packed, BITS * f) : packed, t.mask));
}
#endif

template <int BITS, int ROWS, int BLOCKS>
FB_NOINLINE void blocks_of(const fb_grouped& c, const Weights& w, int64_t block, int64_t row) {
  constexpr int kFields = 8 / BITS;
  const Table<BITS> table = table_of<BITS>(w.values);
  __m512 real[ROWS][BLOCKS];
  const int64_t block_bytes = w.groups * w.group_bytes;
  for (int64_t g = 0; g < w.groups; ++g) {
    const uint8_t* from = w.data + block * block_bytes + g * w.group_bytes;
    const uint8_t* x = c.x + row * w.rest + g * w.group;
    __m512i sums[ROWS][BLOCKS][2];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int b = 0; b < BLOCKS; ++b) sums[i][b][0] = sums[i][b][1] = _mm512_setzero_si512();
    }
    for (int32_t s = 0; s < w.steps; ++s, from += 64, x += 4 * kFields) {
      __m512i packed[BLOCKS];
#pragma GCC unroll 4
      for (int b = 0; b < BLOCKS; ++b) {
        packed[b] = _mm512_loadu_si512(from + b * block_bytes);
        _mm_prefetch(reinterpret_cast<const char*>(from + b * block_bytes + kAhead), _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (int f = 0; f < kFields; ++f) {
        __m512i v[BLOCKS];
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; ++b) {
          v[b] = BITS == 8 ? packed[b] : value_of(table, packed[b], f);
        }
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) {
          const __m512i codes = _mm512_set1_epi32(word(x + i * w.rest + 4 * f));
#pragma GCC unroll 4
          for (int b = 0; b < BLOCKS; ++b) multiply_add512(sums[i][b][f & 1], codes, v[b]);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int b = 0; b < BLOCKS; ++b) {
        const int64_t at = ((block + b) * w.groups + g) * 16;
        __m512i t = _mm512_add_epi32(sums[i][b][0], sums[i][b][1]);
        t = _mm512_sub_epi32(t, _mm512_mullo_epi32(_mm512_set1_epi32(c.x_zero), _mm512_loadu_si512(w.sums + at)));
        if (w.groups > 1) {
          _mm_prefetch(reinterpret_cast<const char*>(w.sums + at + 128), _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(c.factors + at + 128), _MM_HINT_T0);
          const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(t), _mm512_loadu_ps(c.factors + at));
          real[i][b] = g ? _mm512_add_ps(real[i][b], part) : part;
          continue;
        }
        const int64_t column = 16 * (block + b), left = c.columns - column;
        const __mmask16 there = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
        if (c.bias) t = _mm512_add_epi32(t, _mm512_maskz_loadu_epi32(there, c.bias + column));
        const int64_t to = (row + i) * c.columns + column;
        if (is_direct16(c.rescale)) {
          rescale16(c.rescale, column, there, t, c.y, to);
        } else {
          int32_t held[16];
          _mm512_storeu_si512(held, t);
          FB_FN(rescale_row)(&c.rescale, held, column, left < 16 ? left : 16, c.y, to);
        }
      }
    }
  }
  if (w.groups == 1) return;
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
      const int64_t column = 16 * (block + b), left = c.columns - column;
      const __mmask16 there = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
      if (c.rescale.offset) real[i][b] = _mm512_add_ps(real[i][b], _mm512_maskz_loadu_ps(there, c.rescale.offset + column));
      _mm512_mask_storeu_ps(static_cast<float*>(c.y) + (row + i) * c.columns + column, there, real[i][b]);
    }
  }
}

constexpr int kTogether = 4;

#else

// Sums of one group less what the zero point adds; 16 columns.
FB_INLINE void finish(const fb_grouped& c, const Weights& w, const int32_t* sums, float* real, int64_t block, int64_t g,
                      int64_t row) {
  const int64_t at = (block * w.groups + g) * 16;
  const int64_t left = c.columns - 16 * block, count = left < 16 ? left : 16;
  if (w.groups > 1) {
    for (int32_t j = 0; j < 16; ++j) {
      const int32_t t = static_cast<int32_t>(static_cast<uint32_t>(sums[j]) -
                                             static_cast<uint32_t>(c.x_zero) * static_cast<uint32_t>(w.sums[at + j]));
      const float part = static_cast<float>(t) * c.factors[at + j];
      real[j] = g ? real[j] + part : part;
    }
    if (g + 1 < w.groups) return;
    float* y = static_cast<float*>(c.y) + row * c.columns + 16 * block;
    for (int64_t j = 0; j < count; ++j) y[j] = c.rescale.offset ? real[j] + c.rescale.offset[16 * block + j] : real[j];
    return;
  }
  int32_t t[16];
  for (int32_t j = 0; j < 16; ++j) {
    const uint32_t bias = c.bias && j < count ? static_cast<uint32_t>(c.bias[16 * block + j]) : 0;
    t[j] = static_cast<int32_t>(static_cast<uint32_t>(sums[j]) + bias -
                                static_cast<uint32_t>(c.x_zero) * static_cast<uint32_t>(w.sums[at + j]));
  }
  FB_FN(rescale_row)(&c.rescale, t, 16 * block, count, c.y, row * c.columns + 16 * block);
}

template <int BITS, int ROWS, int BLOCKS>
FB_NOINLINE void blocks_of(const fb_grouped& c, const Weights& w, int64_t block, int64_t row) {
  constexpr int kFields = 8 / BITS;
  const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << BITS) - 1)), ones = _mm256_set1_epi16(1);
  float real[ROWS * BLOCKS][16];
  const int64_t block_bytes = w.groups * w.group_bytes;
  // Products of pairs stay in 16 bits for so many steps; none where a value is beyond 64, which is then cut in two.
  int32_t largest = 1;
  for (int32_t v = 0; v < (1 << BITS); ++v) {
    const int32_t size = w.values[v] < 0 ? -w.values[v] : w.values[v];
    largest = size > largest ? size : largest;
  }
#if defined(__AVXVNNI__)

  const bool cut = false;
#else
  const bool cut = largest > 64;
  const int32_t together = cut ? 1 : 32767 / (510 * largest) / (kFields > 1 ? kFields / 2 : 1);
#endif
  int8_t first[16], second[16];
  for (int32_t v = 0; v < 16; ++v) {
    first[v] = static_cast<int8_t>(!cut ? w.values[v] : w.values[v] > 64 ? 64 : w.values[v] < -64 ? -64 : w.values[v]);
    second[v] = static_cast<int8_t>(w.values[v] - first[v]);
  }
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first)));
  const __m256i rest = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(second)));
  const __m256i most = _mm256_set1_epi8(64), least = _mm256_set1_epi8(-64);
  (void)ones;
  (void)rest;
  (void)most;
  (void)least;
  for (int64_t g = 0; g < w.groups; ++g) {
    const uint8_t* from = w.data + block * block_bytes + g * w.group_bytes;
    const uint8_t* x = c.x + row * w.rest + g * w.group;
    __m256i sums[ROWS][BLOCKS][2];
#pragma GCC unroll 2
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
      for (int b = 0; b < BLOCKS; ++b) sums[i][b][0] = sums[i][b][1] = _mm256_setzero_si256();
    }
    for (int32_t s = 0; s < w.steps;) {
#if defined(__AVXVNNI__)
      const int32_t end = w.steps;
#else
      const int32_t end = together > 0 && w.steps - s > together ? s + together : together > 0 ? w.steps : s + 1;
      __m256i words[ROWS][BLOCKS][2][2];
#pragma GCC unroll 2
      for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
        for (int b = 0; b < BLOCKS; ++b) {
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) words[i][b][h][0] = words[i][b][h][1] = _mm256_setzero_si256();
        }
      }
#endif
      for (; s < end; ++s, from += 64, x += 4 * kFields) {
#pragma GCC unroll 2
        for (int b = 0; b < BLOCKS; ++b) {
          _mm_prefetch(reinterpret_cast<const char*>(from + b * block_bytes + kAhead), _MM_HINT_T0);
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            const __m256i packed = load(from + b * block_bytes + 32 * h);
#pragma GCC unroll 8
            for (int f = 0; f < kFields; ++f) {
              const __m256i code = BITS == 8 ? packed : _mm256_and_si256(f ? _mm256_srli_epi16(packed, BITS * f) : packed, mask);
#if defined(__AVXVNNI__)
              const __m256i v = BITS == 8 ? code : _mm256_shuffle_epi8(table, code);
#pragma GCC unroll 2
              for (int i = 0; i < ROWS; ++i) {
                multiply_add_held<false>(sums[i][b][h], _mm256_set1_epi32(word(x + i * w.rest + 4 * f)), v);
              }
#else
              if (cut) {
                const __m256i low = BITS == 8 ? _mm256_min_epi8(_mm256_max_epi8(code, least), most) : _mm256_shuffle_epi8(table, code);
                const __m256i over = BITS == 8 ? _mm256_sub_epi8(code, low) : _mm256_shuffle_epi8(rest, code);
#pragma GCC unroll 2
                for (int i = 0; i < ROWS; ++i) {
                  const __m256i codes = _mm256_set1_epi32(word(x + i * w.rest + 4 * f));
                  sums[i][b][h] = _mm256_add_epi32(sums[i][b][h], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, low), ones));
                  sums[i][b][h] = _mm256_add_epi32(sums[i][b][h], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, over), ones));
                }
              } else {
                const __m256i v = BITS == 8 ? code : _mm256_shuffle_epi8(table, code);
#pragma GCC unroll 2
                for (int i = 0; i < ROWS; ++i) {
                  const __m256i products = _mm256_maddubs_epi16(_mm256_set1_epi32(word(x + i * w.rest + 4 * f)), v);
                  if (together > 0) {
                    words[i][b][h][f & 1] = _mm256_add_epi16(words[i][b][h][f & 1], products);
                  } else {
                    sums[i][b][h] = _mm256_add_epi32(sums[i][b][h], _mm256_madd_epi16(products, ones));
                  }
                }
              }
#endif
            }
          }
        }
      }
#if !defined(__AVXVNNI__)
      if (!cut && together > 0) {
#pragma GCC unroll 2
        for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
          for (int b = 0; b < BLOCKS; ++b) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h) {
              const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(words[i][b][h][0], ones), _mm256_madd_epi16(words[i][b][h][1], ones));
              sums[i][b][h] = _mm256_add_epi32(sums[i][b][h], both);
            }
          }
        }
      }
#endif
    }
#pragma GCC unroll 2
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
      for (int b = 0; b < BLOCKS; ++b) {
        int32_t t[16];
        store(t, sums[i][b][0]);
        store(t + 8, sums[i][b][1]);
        finish(c, w, t, real[i * BLOCKS + b], block + b, g, row + i);
      }
    }
  }
}

constexpr int kTogether = 2;

#endif

template <int BITS>
void parts(const fb_grouped& c, int64_t begin, int64_t end) {
  const Weights w = weights_of(c);
  for (int64_t block = begin; block < end;) {
    const bool all = end - block >= kTogether;
    int64_t row = 0;
    for (; row + kTogether <= c.rows; row += kTogether) {  // a few rows share what is unpacked
      for (int64_t b = block; b < (all ? block + kTogether : end); ++b) blocks_of<BITS, kTogether, 1>(c, w, b, row);
    }
    for (; row < c.rows; ++row) {
      if (all) {
        blocks_of<BITS, 1, kTogether>(c, w, block, row);
      } else {
        for (int64_t b = block; b < end; ++b) blocks_of<BITS, 1, 1>(c, w, b, row);
      }
    }
    block = all ? block + kTogether : end;
  }
}

#if defined(__AVX512VNNI__)
// A block of 16 columns: their weights that are there meet the codes that they multiply, picked from 128 held in registers.
template <int ROWS>
__attribute__((target("avx512vbmi"), noinline)) void picked(const fb_sparse& c, const uint8_t* x, int64_t x_step, int64_t block, int64_t row) {
  const int64_t segments = (c.depth + 127) / 128;
  const uint16_t* counts = c.counts + block * segments;
  const uint8_t* from = c.steps + c.begins[block] * 128;
  __m512i sums[ROWS][2];
#pragma GCC unroll 2
  for (int i = 0; i < ROWS; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_si512();
  x += row * x_step;
  for (int64_t segment = 0; segment < segments; ++segment, x += 128) {
    __m512i low[ROWS], high[ROWS];
#pragma GCC unroll 2
    for (int i = 0; i < ROWS; ++i) {
      low[i] = _mm512_loadu_si512(x + i * x_step);
      high[i] = _mm512_loadu_si512(x + i * x_step + 64);
    }
    for (int32_t left = counts[segment]; left > 0; --left, from += 128) {
      const __m512i places = _mm512_loadu_si512(from), w = _mm512_loadu_si512(from + 64);
      _mm_prefetch(reinterpret_cast<const char*>(from + 2 * kAhead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(from + 2 * kAhead + 64), _MM_HINT_T0);
#pragma GCC unroll 2
      for (int i = 0; i < ROWS; ++i) multiply_add512(sums[i][left & 1], _mm512_permutex2var_epi8(low[i], places, high[i]), w);
    }
  }
  const int64_t column = 16 * block, left = c.columns - column;
  const __mmask16 there = left >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
  const __m512i bias = _mm512_maskz_loadu_epi32(there, c.bias + column);
#pragma GCC unroll 2
  for (int i = 0; i < ROWS; ++i) {
    const __m512i t = _mm512_add_epi32(_mm512_add_epi32(sums[i][0], sums[i][1]), bias);
    const int64_t to = (row + i) * c.columns + column;
    if (is_direct16(c.rescale)) {
      rescale16(c.rescale, column, there, t, c.y, to);
    } else {
      int32_t held[16];
      _mm512_storeu_si512(held, t);
      FB_FN(rescale_row)(&c.rescale, held, column, left < 16 ? left : 16, c.y, to);
    }
  }
}
#endif

}  // namespace

extern "C" void FB_FN(simd_sparse)(const fb_sparse* c, const uint8_t* x, int64_t x_step, int64_t begin, int64_t end) {
#if defined(__AVX512VNNI__)
  if (c->counts && fb::features() & fb::kVbmi) {
    for (int64_t block = begin; block < end; ++block) {
      int64_t row = 0;
      for (; row + 2 <= c->rows; row += 2) picked<2>(*c, x, x_step, block, row);
      for (; row < c->rows; ++row) picked<1>(*c, x, x_step, block, row);
    }
    return;
  }
#endif
  FB_FN(sparse)(c, x, x_step, begin, end);
}

extern "C" void FB_FN(simd_grouped)(const fb_grouped* c, int64_t begin, int64_t end) {
  switch (c->bits) {
    case 1:
      return parts<1>(*c, begin, end);
    case 2:
      return parts<2>(*c, begin, end);
    case 4:
      return parts<4>(*c, begin, end);
    default:
      return parts<8>(*c, begin, end);
  }
}

#endif
