// Pixels times packed weights by tiles of AMX: up to sixteen pixels by sixteen columns each, straight to codes. The weights
// lie in memory as they do for the vectors of this level: sixteen steps of a block of columns are one tile. Weights of few
// values lie there in 1, 2 or 4 bits and become bytes on their way into a tile.
#include "vectors.h"

#if defined(__AMX_INT8__)

namespace {

// Of the palette (Intel SDM, volume 1, 18.2): sizes of the eight tiles. 0 to 3 are sums, 4 and 5 codes, 6 and 7 weights.
struct Sizes {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Sizes) == 64, "as ldtilecfg reads it");

FB_INLINE void configure(int32_t pixels, int32_t steps) {
  Sizes sizes;
  __builtin_memset(&sizes, 0, sizeof sizes);
  sizes.palette = 1;
  for (int32_t t = 0; t < 8; ++t) {
    sizes.rows[t] = static_cast<uint8_t>(t < 6 ? pixels : steps);
    sizes.bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? 4 * steps : 64);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(sizes));
}

template <int T>
FB_INLINE void load_tile(const void* from, int64_t step) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(step), "i"(T));
}

template <int T, int COLUMNS>
FB_INLINE void store_tile(int32_t* to) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(INT64_C(64) * COLUMNS), "i"(T) : "memory");
}

template <int C, int A, int B>
FB_INLINE void multiply_add_tile() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

constexpr int64_t kAheadOfStep = 6;  // lines of the cache

// How a product is cut.
struct Cut {
  int32_t pixels;      // of a tile
  int32_t steps;       // of a tile
  int32_t tiles;       // along a run
  int32_t of_row;      // tiles of a row of the output
  int32_t width;       // pixels of a row
  int64_t first;       // pixel
};

// Where a tile begins. The last of a row overlaps the one before where pixels do not divide the row.
FB_INLINE int64_t pixel_of(const Cut& cut, int64_t tile) {
  const int64_t row = tile / cut.of_row, at = tile % cut.of_row * cut.pixels, last = cut.width - cut.pixels;
  return cut.first + row * cut.width + (at < last ? at : last);
}

// Bytes from BITS bits: byte i of chunk k of 8 BITS bytes is field k of byte i (pack.cpp, few).
template <int BITS>
struct Unpacked {
  __m512i table, shifts;
};

template <int BITS>
FB_INLINE Unpacked<BITS> unpacked_of(const fb::Product& p) {
  Unpacked<BITS> u{};
  if constexpr (BITS > 0) {
    alignas(64) int64_t shifts[8];
    for (int k = 0; k < 8; ++k) shifts[k] = k / BITS * BITS;
    u.table = _mm512_loadu_si512(p.values);
    u.shifts = _mm512_load_si512(shifts);
  }
  return u;
}

// `steps` steps; of an index only its lowest six bits count, and the table repeats itself in them.
template <int BITS>
FB_INLINE void unpack(const Unpacked<BITS>& u, const uint8_t* from, int32_t steps, uint8_t* to) {
  for (int32_t s = 0; s < steps; ++s, from += 8 * BITS, to += 64) {
    __m512i v;
    if constexpr (BITS == 1) {
      int64_t eight;
      __builtin_memcpy(&eight, from, 8);
      v = _mm512_set1_epi64(eight);
    } else if constexpr (BITS == 2) {
      v = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    } else {
      v = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    _mm512_store_si512(to, _mm512_permutexvar_epi8(_mm512_srlv_epi64(v, u.shifts), u.table));
  }
}

// The tile'th part of the loop below: ROWS tiles of pixels times COLUMNS blocks.
template <int ROWS, int COLUMNS>
FB_INLINE void step(const uint8_t* const* x, int64_t pixel, const uint8_t* w, int64_t block_bytes) {
  load_tile<4>(x[0], pixel);
  load_tile<6>(w, 64);
  multiply_add_tile<0, 4, 6>();
  if constexpr (COLUMNS >= 2) {
    load_tile<7>(w + block_bytes, 64);
    multiply_add_tile<1, 4, 7>();
  }
  if constexpr (COLUMNS == 4) {
    load_tile<6>(w + 2 * block_bytes, 64);
    multiply_add_tile<2, 4, 6>();
    load_tile<7>(w + 3 * block_bytes, 64);
    multiply_add_tile<3, 4, 7>();
  }
  if constexpr (ROWS >= 2) {
    load_tile<5>(x[1], pixel);
    multiply_add_tile<COLUMNS, 5, 6>();
    if constexpr (COLUMNS == 2) multiply_add_tile<3, 5, 7>();
  }
  if constexpr (ROWS == 4) {
    load_tile<4>(x[2], pixel);
    multiply_add_tile<2, 4, 6>();
    load_tile<5>(x[3], pixel);
    multiply_add_tile<3, 5, 6>();
  }
}

// What eq. 6 needs for some blocks of sixteen columns.
template <int COLUMNS>
struct Float {
  static constexpr int64_t kItem = 1;
  __m512 factor[COLUMNS];
  __m512i zero, low, high;
  __mmask64 there;
  bool direct;  // 8-bit codes, and no product with a factor leaves 32 bits
};

template <int COLUMNS>
FB_INLINE void prepare(Float<COLUMNS>& f, const fb::Product& p, int32_t block) {
  const fb_rescale& r = *p.rescale;
  f.direct = r.kind == FB_FLOAT && r.type == FB_U8;
  if (!f.direct) return;
  const int32_t left = p.columns - 16 * block;
#pragma GCC unroll 4
  for (int j = 0; j < COLUMNS; ++j) {
    const int32_t more = left - 16 * j;
    const __mmask16 there = more >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << more) - 1);
    const int64_t channel = p.first_channel + 16 * (block + j);
    f.factor[j] = r.per_channel ? _mm512_maskz_loadu_ps(there, r.factor + channel) : _mm512_set1_ps(r.factor[0]);
    f.direct &= _mm512_cmp_ps_mask(_mm512_abs_ps(f.factor[j]), _mm512_set1_ps(1.0f), _CMP_NLT_UQ) == 0;
  }
  f.zero = _mm512_set1_epi16(static_cast<int16_t>(r.zero));
  f.low = _mm512_set1_epi8(static_cast<char>(r.low));
  f.high = _mm512_set1_epi8(static_cast<char>(r.high));
  f.there = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

// Sixteen sums of block j to what `packed` makes codes of: 32 bits from each, saturated to 16, the zero point added, saturated
// to 8 and to the bounds, which gives what rounding within bounds gives.
template <int COLUMNS>
FB_INLINE __m512i of_sums(const Float<COLUMNS>& f, __m512i sums, int j) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), f.factor[j]));
}

template <int COLUMNS>
FB_INLINE __m512i packed(const Float<COLUMNS>& f, const __m512i* q) {
  const __m512i first = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), f.zero);
  const __m512i second = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), f.zero);
  return _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(first, second), f.low), f.high);
}

// The same for sums as they are, and for eq. 30.
template <int COLUMNS>
struct Wide {
  static constexpr int64_t kItem = 4;
  __m512 factor[COLUMNS], offset[COLUMNS];
  __mmask16 there[COLUMNS];
  bool direct, real, shifted;
};

template <int COLUMNS>
FB_INLINE void prepare(Wide<COLUMNS>& f, const fb::Product& p, int32_t block) {
  const fb_rescale& r = *p.rescale;
  f.direct = true;
  f.real = r.kind == FB_REAL;
  f.shifted = f.real && r.offset;
#pragma GCC unroll 4
  for (int j = 0; j < COLUMNS; ++j) {
    const int32_t more = p.columns - 16 * (block + j);
    const __mmask16 there = more >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << more) - 1);
    const int64_t channel = p.first_channel + 16 * (block + j);
    f.there[j] = there;
    if (f.real) f.factor[j] = r.per_channel ? _mm512_maskz_loadu_ps(there, r.factor + channel) : _mm512_set1_ps(r.factor[0]);
    if (f.shifted) f.offset[j] = _mm512_maskz_loadu_ps(there, r.offset + channel);
  }
}

// The same for eq. 16: a sum has reached a threshold from above where its complement has reached the threshold's from below.
template <int COLUMNS>
struct Levels {
  static constexpr int64_t kItem = 1;
  static constexpr int kMost = 15;
  __m512i thresholds[kMost * COLUMNS], flip[COLUMNS], levels;
  __mmask64 there;
  int32_t number;
  bool direct;
};

template <int COLUMNS>
FB_INLINE void prepare(Levels<COLUMNS>& f, const fb::Product& p, int32_t block) {
  const fb_rescale& r = *p.rescale;
  f.direct = r.number <= Levels<COLUMNS>::kMost;
  if (!f.direct) return;
  const int32_t left = p.columns - 16 * block;
  f.number = r.number;
#pragma GCC unroll 4
  for (int j = 0; j < COLUMNS; ++j) {
    const int32_t more = left - 16 * j;
    const __mmask16 there = more >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << more) - 1);
    const int64_t channel = p.first_channel + 16 * (block + j);
    const __m512i direction = r.per_channel ? _mm512_maskz_loadu_epi32(there, r.direction + channel) : _mm512_set1_epi32(r.direction[0]);
    f.flip[j] = _mm512_mask_set1_epi32(_mm512_setzero_si512(), _mm512_cmple_epi32_mask(direction, _mm512_setzero_si512()), -1);
    for (int32_t k = 0; k < r.number; ++k) {
      const int32_t* t = r.thresholds + static_cast<int64_t>(k) * r.channels;
      const __m512i v = r.per_channel ? _mm512_maskz_loadu_epi32(there, t + channel) : _mm512_set1_epi32(t[0]);
      f.thresholds[k * COLUMNS + j] = _mm512_xor_si512(v, f.flip[j]);
    }
  }
  f.levels = _mm512_broadcast_i32x4(_mm_maskz_loadu_epi8(static_cast<__mmask16>((2u << r.number) - 1), r.levels));
  f.there = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

template <int COLUMNS>
FB_INLINE __m512i of_sums(const Levels<COLUMNS>& f, __m512i sums, int j) {
  const __m512i t = _mm512_xor_si512(sums, f.flip[j]), one = _mm512_set1_epi32(1);
  __m512i reached = _mm512_maskz_mov_epi32(_mm512_cmpge_epi32_mask(t, f.thresholds[j]), one);
  for (int32_t k = 1; k < f.number; ++k) {
    reached = _mm512_mask_add_epi32(reached, _mm512_cmpge_epi32_mask(t, f.thresholds[k * COLUMNS + j]), reached, one);
  }
  return reached;
}

template <int COLUMNS>
FB_INLINE __m512i packed(const Levels<COLUMNS>& f, const __m512i* q) {
  return _mm512_shuffle_epi8(f.levels, _mm512_packus_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3])));
}

// Four times sixteen sums, of 4 / COLUMNS pixels, of which `left` are there, to what is written from y on.
template <int COLUMNS>
FB_INLINE void store_written(const Wide<COLUMNS>& f, const __m512i* t, uint8_t* y, int64_t y_step, int32_t left) {
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    if (k / COLUMNS >= left) break;
    const int j = k % COLUMNS;
    __m512i v = t[k];
    if (f.real) {
      __m512 number = _mm512_mul_ps(_mm512_cvtepi32_ps(v), f.factor[j]);
      if (f.shifted) number = _mm512_add_ps(number, f.offset[j]);
      v = _mm512_castps_si512(number);
    }
    _mm512_mask_storeu_epi32(y + k / COLUMNS * y_step + 64 * j, f.there[j], v);
  }
}

template <int COLUMNS, template <int> class To>
FB_INLINE void store_written(const To<COLUMNS>& f, const __m512i* t, uint8_t* y, int64_t y_step, int32_t left) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i q[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) q[k] = of_sums(f, t[k], k % COLUMNS);
  const __m512i codes = _mm512_permutexvar_epi32(order, packed(f, q));
  if constexpr (COLUMNS == 4) {
    _mm512_mask_storeu_epi8(y, f.there, codes);
  } else if constexpr (COLUMNS == 2) {
    const __mmask32 there = static_cast<__mmask32>(f.there);
    _mm256_mask_storeu_epi8(y, there, _mm512_castsi512_si256(codes));
    if (left > 1) _mm256_mask_storeu_epi8(y + y_step, there, _mm512_extracti64x4_epi64(codes, 1));
  } else {
    const __mmask16 there = static_cast<__mmask16>(f.there);
    _mm_mask_storeu_epi8(y, there, _mm512_castsi512_si128(codes));
    if (left > 1) _mm_mask_storeu_epi8(y + y_step, there, _mm512_extracti32x4_epi32(codes, 1));
    if (left > 2) _mm_mask_storeu_epi8(y + 2 * y_step, there, _mm512_extracti32x4_epi32(codes, 2));
    if (left > 3) _mm_mask_storeu_epi8(y + 3 * y_step, there, _mm512_extracti32x4_epi32(codes, 3));
  }
}

// Sums of some tiles on their way to codes, a few pixels at a time: while the next tiles are multiplied.
template <int ROWS, int COLUMNS, bool ADDED>
struct Written {
  static constexpr int32_t kPixels = 4 / COLUMNS;  // at a time
  const int32_t* sums;                             // [ROWS][16][COLUMNS][16]
  const int32_t* added[ROWS];                      // of the first pixel of each tile
  uint8_t* y[ROWS];                                // bytes of the first pixel and column
  const int32_t* next_sums;
  const int32_t* next_added;
  uint8_t* next_y;
  int32_t tile = ROWS, left = 0;  // which is next, and pixels of it
};

template <int ROWS, int COLUMNS, bool ADDED>
FB_INLINE void begin(Written<ROWS, COLUMNS, ADDED>& w, int32_t tile, int32_t pixels) {
  w.tile = tile;
  w.left = tile < ROWS ? pixels : 0;
  if (tile == ROWS) return;
  w.next_sums = w.sums + 256 * COLUMNS * tile;
  w.next_added = w.added[tile];
  w.next_y = w.y[tile];
}

// Up to `count` times kPixels of them. Rows of a tile behind its last are there, and not written.
template <int ROWS, int COLUMNS, bool ADDED, typename To>
FB_INLINE void write(Written<ROWS, COLUMNS, ADDED>& w, const To& f, int32_t count, int32_t pixels, int64_t y_step) {
  constexpr int32_t kPixels = Written<ROWS, COLUMNS, ADDED>::kPixels;
  constexpr int64_t kItem = To::kItem;
  for (; count > 0 && w.left > 0; --count) {
    __m512i t[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      t[k] = _mm512_load_si512(w.next_sums + 16 * k);
      if constexpr (ADDED) t[k] = _mm512_add_epi32(t[k], _mm512_set1_epi32(w.next_added[k / COLUMNS < w.left ? k / COLUMNS : 0]));
    }
    store_written(f, t, w.next_y, kItem * y_step, w.left);
    w.next_sums += 64;
    w.next_y += kItem * kPixels * y_step;
    if constexpr (ADDED) w.next_added += kPixels;
    w.left -= kPixels;
    if (w.left <= 0 && w.tile < ROWS) begin(w, w.tile + 1, pixels);
  }
}

// The same by any rescaling: `pixels` rows of a tile.
template <int COLUMNS>
FB_INLINE void write_any(const fb::Product& p, int32_t* sums, int64_t pixel, int32_t pixels, int32_t block) {
  const bool direct = is_direct16(*p.rescale);
  for (int32_t j = 0; j < COLUMNS; ++j) {
    const int32_t left = p.columns - 16 * (block + j), count = left < 16 ? left : 16;
    const __mmask16 there = static_cast<__mmask16>((1u << count) - 1);
    const int64_t channel = p.first_channel + 16 * (block + j);
    for (int32_t i = 0; i < pixels; ++i) {
      int32_t* of_pixel = sums + 16 * (COLUMNS * i + j);
      __m512i t = _mm512_load_si512(of_pixel);
      if (p.added) t = _mm512_add_epi32(t, _mm512_set1_epi32(p.added[pixel + i]));
      const int64_t at = (pixel + i) * p.y_step + 16 * (block + j) + p.first_channel;
      if (direct) {
        rescale16(*p.rescale, channel, there, t, p.y, at);
      } else {
        _mm512_store_si512(of_pixel, t);
        FB_FN(rescale_row)(p.rescale, of_pixel, channel, count, p.y, at);
      }
    }
  }
}

// ROWS tiles of pixels, from tile on, times COLUMNS blocks of columns, of BITS bits, or of bytes, 0.
template <int ROWS, int COLUMNS, bool ADDED, int BITS, template <int> class To>
FB_NOINLINE void multiply(const fb::Product& p, const Cut& cut, int64_t tile, int64_t end, int32_t block, int32_t last) {
  constexpr int kTiles = ROWS * COLUMNS;
  if (tile + ROWS > end) return;
  alignas(64) int32_t both[2][kTiles * 256];
  int32_t turn = 0;
  alignas(64) uint8_t bytes[BITS ? 2 : 1][BITS ? COLUMNS : 1][BITS ? 1024 : 1];
  To<COLUMNS> f;
  prepare(f, p, block);
  const Unpacked<BITS> unpacked = unpacked_of<BITS>(p);
  Written<ROWS, COLUMNS, ADDED> before;  // tiles that become codes while the next are multiplied
  constexpr int32_t kAtOnce = Written<ROWS, COLUMNS, ADDED>::kPixels;
  const int32_t steps = p.runs_y * p.runs_x * cut.tiles;
  const int32_t a_step = (ROWS * ((cut.pixels + kAtOnce - 1) / kAtOnce) + steps - 1) / steps;
  const int64_t tile_bytes = cut.steps * (BITS ? 8 * BITS : 64), block_bytes = steps * tile_bytes;
  const uint8_t* const weights = p.steps + block * block_bytes;
  const int32_t* const start = p.sums + 16 * block;
  // The weights of the next blocks are asked for from now on, a few lines a step, or those of the next call. Where there would
  // be more than a few, pixels are so few that the third-level cache is what is waited for anyway.
  const bool more = block + COLUMNS < last;
  const uint8_t* ahead = more ? weights + COLUMNS * block_bytes : p.ahead;
  const uint8_t* const ahead_end = ahead + (more ? COLUMNS * block_bytes : p.ahead_bytes);
  const int64_t all_steps = (end - tile) / ROWS * steps, wanted = ((ahead_end - ahead) / 64 + all_steps - 1) / all_steps;
  const int64_t lines = wanted <= kAheadOfStep ? wanted : more ? 0 : kAheadOfStep;
  // A tile's bytes are written while the one before is multiplied: read at once, they would be waited for.
  int32_t half = 0;
  const auto unpack_tiles = [&](const uint8_t* from, int32_t to) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int j = 0; j < COLUMNS; ++j) unpack(unpacked, from + j * block_bytes, cut.steps, bytes[to][j]);
  };
  if constexpr (BITS > 0) unpack_tiles(weights, 0);
  for (; tile + ROWS <= end; tile += ROWS) {
    const uint8_t* x[ROWS];
    int64_t pixel[ROWS];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
      pixel[i] = pixel_of(cut, tile + i);
      x[i] = p.x + pixel[i] / p.width * p.line + pixel[i] % p.width * p.pixel;
    }
    // Every row of the sums begins as the first does: a step of 0.
    load_tile<0>(start, 0);
    if constexpr (kTiles >= 2) load_tile<1>(start + (COLUMNS >= 2 ? 16 : 0), 0);
    if constexpr (kTiles == 4) {
      load_tile<2>(start + (COLUMNS == 4 ? 32 : 0), 0);
      load_tile<3>(start + (COLUMNS == 4 ? 48 : COLUMNS == 2 ? 16 : 0), 0);
    }
    const uint8_t* w = weights;
    for (int32_t ky = 0; ky < p.runs_y; ++ky) {
      for (int32_t kx = 0; kx < p.runs_x; ++kx) {
        const int64_t from = ky * p.run_y + kx * p.run_x;
        const uint8_t* at[ROWS];
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) at[i] = x[i] + from;
        for (int32_t t = 0; t < cut.tiles; ++t) {
          const uint8_t* const next = w + tile_bytes < weights + block_bytes ? w + tile_bytes : weights;
          if constexpr (BITS > 0) {
            unpack_tiles(next, half ^ 1);
            step<ROWS, COLUMNS>(at, p.pixel, bytes[half][0], 1024);
            half ^= 1;
          } else {
            step<ROWS, COLUMNS>(at, p.pixel, w, block_bytes);
          }
          for (int64_t i = 0; i < lines && ahead < ahead_end; ++i, ahead += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
          }
          write(before, f, a_step, cut.pixels, p.y_step);
          w = next;
#pragma GCC unroll 4
          for (int i = 0; i < ROWS; ++i) at[i] += 4 * cut.steps;
        }
      }
    }
    int32_t* const sums = both[turn];
    turn ^= 1;
    store_tile<0, COLUMNS>(sums);
    if constexpr (kTiles >= 2) store_tile<1, COLUMNS>(sums + (COLUMNS >= 2 ? 16 : 256));
    if constexpr (kTiles == 4) {
      store_tile<2, COLUMNS>(sums + (COLUMNS == 4 ? 32 : 512));
      store_tile<3, COLUMNS>(sums + (COLUMNS == 4 ? 48 : COLUMNS == 2 ? 528 : 768));
    }
    if (f.direct) {
      before.sums = sums;
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i) {
        before.added[i] = ADDED ? p.added + pixel[i] : nullptr;
        before.y[i] = static_cast<uint8_t*>(p.y) + To<COLUMNS>::kItem * (pixel[i] * p.y_step + p.first_channel + 16 * block);
      }
      begin(before, 0, cut.pixels);
    } else {
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i) write_any<COLUMNS>(p, sums + 256 * COLUMNS * i, pixel[i], cut.pixels, block);
    }
  }
  write(before, f, ROWS * 16, cut.pixels, p.y_step);
}

// All blocks of columns of the tiles [from, end).
template <bool ADDED, int BITS, template <int> class To>
void all_columns(const fb::Product& p, const Cut& cut, int64_t from, int64_t end, int32_t first, int32_t last) {
  int32_t block = first;
  const int64_t fours = BITS ? (end - from) / 4 * 4 : 0;  // bits become bytes once for four tiles of pixels
  for (; block + 2 <= last; block += 2) {
    if constexpr (BITS > 0) {
      multiply<4, 1, ADDED, BITS, To>(p, cut, from, from + fours, block, last);
      multiply<4, 1, ADDED, BITS, To>(p, cut, from, from + fours, block + 1, last);
    }
    multiply<2, 2, ADDED, BITS, To>(p, cut, from + fours, end, block, last);
    multiply<1, 2, ADDED, BITS, To>(p, cut, from + (end - from) / 2 * 2, end, block, last);
  }
  if (block < last) {
    multiply<4, 1, ADDED, BITS, To>(p, cut, from, end, block, last);
    multiply<1, 1, ADDED, BITS, To>(p, cut, from + (end - from) / 4 * 4, end, block, last);
  }
}

using Columns = void (*)(const fb::Product&, const Cut&, int64_t, int64_t, int32_t, int32_t);

template <template <int> class To>
Columns columns_of(const fb::Product& p) {
  switch (p.bits) {
    case 1:
      return all_columns<false, 1, To>;
    case 2:
      return all_columns<false, 2, To>;
    case 4:
      return all_columns<false, 4, To>;
    default:
      return p.added ? all_columns<true, 0, To> : all_columns<false, 0, To>;
  }
}

}  // namespace

extern "C" void FB_FN(tiles)(const fb::Product* p, int64_t begin, int64_t end, int32_t first, int32_t last) {
  constexpr int64_t kCache = 512 << 10;  // bytes of codes that stay in the second-level cache
  Cut cut{};
  cut.tiles = (p->steps_of_run + 15) / 16;
  cut.steps = p->steps_of_run / cut.tiles;
  const bool one_row = p->line == p->width * p->pixel || end <= p->width;
  const bool whole = one_row || (begin % p->width == 0 && end % p->width == 0);
  cut.width = one_row ? static_cast<int32_t>(end - begin) : p->width;
  cut.first = begin;
  if (!p->bits && (p->wide || cut.steps * cut.tiles != p->steps_of_run || !whole || cut.width < 4)) {
    FB_FN(product)(p, begin, end, first, last);
    return;
  }
  cut.of_row = (cut.width + 15) / 16;
  cut.pixels = (cut.width + cut.of_row - 1) / cut.of_row;
  const int64_t tiles = (end - begin) / cut.width * cut.of_row;
  int64_t some = kCache / (p->pixel > 0 ? p->pixel * cut.pixels : 1) / 4 * 4;
  some = some < 4 ? 4 : some;
  const int32_t kind = p->rescale->kind;
  const Columns columns = kind == FB_LEVELS                      ? columns_of<Levels>(*p)
                          : kind == FB_SUMS || kind == FB_REAL ? columns_of<Wide>(*p)
                                                               : columns_of<Float>(*p);
  configure(cut.pixels, cut.steps);
  for (int64_t from = 0; from < tiles; from += some) {
    columns(*p, cut, from, tiles - from < some ? tiles : from + some, first, last);
  }
  __asm__ volatile("tilerelease");
}

#endif
