/* Linear layers whose weights are few bits: planes and popcounts, shared values at few places, groups with a factor each. */
#include "level.h"

enum { CHUNK = 64 };

static inline int32_t bits_of(uint64_t v) {
  v = v - ((v >> 1) & 0x5555555555555555u);
  v = (v & 0x3333333333333333u) + ((v >> 2) & 0x3333333333333333u);
  v = (v + (v >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  return (int32_t)((v * 0x0101010101010101u) >> 56);
}

void FB_FN(planes)(const fb_binary* c, uint64_t* planes, int32_t* totals, int64_t begin, int64_t end) {
  const int32_t words = (c->depth + 63) / 64;
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* x = c->x + row * c->depth;
    int32_t total = 0;
    for (int32_t k = 0; k < c->depth; ++k) total += x[k];
    totals[row] = total;
    for (int32_t p = 0; p < c->x_bits; ++p) {
      for (int32_t word = 0; word < words; ++word) {
        const int32_t left = c->depth - 64 * word < 64 ? c->depth - 64 * word : 64;
        uint64_t bits = 0;
        for (int32_t i = 0; i < left; ++i) bits |= (uint64_t)((x[64 * word + i] >> p) & 1) << i;
        planes[(row * c->x_bits + p) * words + word] = bits;
      }
    }
  }
}

void FB_FN(binary)(const fb_binary* c, const uint64_t* planes, const int32_t* totals, int64_t begin, int64_t end) {
  const int32_t words = (c->depth + 63) / 64;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t left = c->columns - 8 * block, count = left < 8 ? left : 8;
    for (int64_t row = 0; row < c->rows; ++row) {
      int32_t sums[8];
      for (int64_t j = 0; j < 8; ++j) sums[j] = j < count ? c->bias[8 * block + j] - c->w_zero * totals[row] : 0;
      for (int32_t p = 0; p < c->x_bits; ++p) {
        const uint64_t* x = planes + (row * c->x_bits + p) * words;
        for (int32_t q = 0; q < c->w_bits; ++q) {
          const uint64_t* w = c->weights + (block * c->w_bits + q) * words * 8;
          for (int32_t word = 0; word < words; ++word) {
            for (int32_t j = 0; j < 8; ++j) sums[j] += bits_of(x[word] & w[8 * word + j]) << (p + q);
          }
        }
      }
      FB_FN(rescale_row)(&c->rescale, sums, 8 * block, count, c->y, row * c->columns + 8 * block);
    }
  }
}

void FB_FN(sparse)(const fb_sparse* c, int64_t begin, int64_t end) {
  for (int64_t column = begin; column < end; ++column) {
    const int32_t from = c->starts[column], to = c->starts[column + 1];
    for (int64_t row = 0; row < c->rows; ++row) {
      const uint8_t* x = c->x + row * c->depth;
      int32_t sum = c->bias ? c->bias[column] : 0;
      for (int32_t i = from; i < to; ++i) sum += ((int32_t)x[c->places[i]] - c->x_zero) * c->values[c->which[i]];
      FB_FN(rescale_row)(&c->rescale, &sum, column, 1, c->y, row * c->columns + column);
    }
  }
}

/* The header of packed weights: packed.h. Here only what reading needs, at its offsets. */
static inline int64_t offset_at(const uint8_t* packed, int32_t at) {
  int64_t v;
  memcpy(&v, packed + at, 8);
  return v;
}

void FB_FN(grouped)(const fb_grouped* c, int64_t begin, int64_t end) {
  const uint8_t* packed = (const uint8_t*)c->weights;
  const int8_t* values = (const int8_t*)packed + FB_PACKED_VALUES;
  const int32_t* weight_sums = (const int32_t*)(packed + offset_at(packed, FB_PACKED_SUMS));
  const uint8_t* data = packed + offset_at(packed, FB_PACKED_STEPS);
  const int32_t bits = c->bits, step = 32 / bits, mask = (1 << bits) - 1;
  const int64_t groups = c->depth / c->group, padded = (c->group + 31) / 32 * 32, row_step = (c->depth + 31) / 32 * 32;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t left = c->columns - 16 * block, count = left < 16 ? left : 16;
    for (int64_t row = 0; row < c->rows; ++row) {
      int32_t sums[16];
      float real[16];
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = block * groups + g;
        const uint8_t* x = c->x + row * row_step + g * c->group;
        const uint8_t* w = data + at * padded * 2 * bits;
        for (int64_t j = 0; j < 16; ++j) sums[j] = -c->x_zero * weight_sums[at * 16 + j];
        for (int64_t k = 0; k < padded; ++k) {
          const int64_t within = k % step;
          const uint8_t* from = w + k / step * 64 + within % 4;
          const int32_t shift = (int32_t)(within / 4) * bits, code = x[k];
          for (int64_t j = 0; j < 16; ++j) sums[j] += code * values[(from[4 * j] >> shift) & mask];
        }
        if (groups > 1) {
          const float* factor = c->factors + at * 16;
          for (int64_t j = 0; j < 16; ++j) {
            const float part = (float)sums[j] * factor[j];
            real[j] = g ? real[j] + part : part;
          }
        }
      }
      if (groups > 1) {
        float* y = (float*)c->y + row * c->columns + 16 * block;
        for (int64_t j = 0; j < count; ++j) y[j] = c->rescale.offset ? real[j] + c->rescale.offset[16 * block + j] : real[j];
      } else {
        for (int64_t j = 0; j < count; ++j) sums[j] += c->bias ? c->bias[16 * block + j] : 0;
        FB_FN(rescale_row)(&c->rescale, sums, 16 * block, count, c->y, row * c->columns + 16 * block);
      }
    }
  }
}
