/* Linear layers whose weights are few bits: planes and popcounts, shared values at few places, groups with a factor each. */
#include "level.h"

static inline int32_t bits_of(uint64_t v) {
#if defined(__POPCNT__)
  return __builtin_popcountll(v);
#else
  v = v - ((v >> 1) & 0x5555555555555555u);
  v = (v & 0x3333333333333333u) + ((v >> 2) & 0x3333333333333333u);
  v = (v + (v >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  return (int32_t)((v * 0x0101010101010101u) >> 56);
#endif
}

/* Bit `bit` of up to 64 codes. */
static inline uint64_t bits_from(const uint8_t* x, int64_t count, int32_t bit) {
  uint64_t bits = 0;
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t eight = 0;
    for (int32_t j = 0; j < 8; ++j) eight |= (uint64_t)x[i + j] << 8 * j;
    bits |= ((eight >> bit & 0x0101010101010101u) * 0x0102040810204080u >> 56) << i; /* byte j lands at bit 56 + j */
  }
  for (; i < count; ++i) bits |= (uint64_t)(x[i] >> bit & 1) << i;
  return bits;
}

/* Puts up to 64 bits at a place where there are zeros; beyond the word behind `last` nothing is written. */
static inline void put_bits(uint64_t* to, int64_t at, uint64_t bits, int64_t last) {
  const int64_t word = at >> 6;
  const int32_t shift = (int32_t)(at & 63);
  to[word] |= bits << shift;
  if (shift && word < last) to[word + 1] |= bits >> (64 - shift);
}

void FB_FN(lines)(const fb_binary* c, uint64_t* lines, int64_t begin, int64_t end) {
  const int64_t rows = (int64_t)c->height + c->top + c->bottom, words = fb_words_of_line(c);
  const int64_t count = (int64_t)c->width * c->channels, before = (int64_t)c->left * c->channels;
  for (int64_t line = begin; line < end; ++line) {
    uint64_t* out = lines + line * c->x_bits * words;
    memset(out, 0, (size_t)(c->x_bits * words) * 8);
    const int64_t row = line % rows - c->top;
    if (row < 0 || row >= c->height) continue;
    const uint8_t* x = c->x + (line / rows * c->height + row) * count;
    for (int32_t p = 0; p < c->x_bits; ++p) {
      for (int64_t i = 0; i < count; i += 64) {
        put_bits(out + p * words, before + i, bits_from(x + i, count - i < 64 ? count - i : 64, c->x_first + p), words - 1);
      }
    }
  }
}

void FB_FN(covered)(const fb_binary* c, const uint64_t* lines, const fb_covered* out, int64_t begin, int64_t end) {
  const int64_t rows = (int64_t)c->height + c->top + c->bottom, line_words = fb_words_of_line(c), words = fb_binary_words(c);
  const int32_t high = fb_binary_high(c), wide = fb_binary_wide(c);
  const int32_t joined = c->dilation_w == 1, runs = joined ? 1 : c->kernel_w;
  const int64_t run = (int64_t)c->channels * (joined ? c->kernel_w : 1);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t image = pixel / ((int64_t)high * wide);
    const int32_t y = (int32_t)(pixel / wide % high) * c->stride_h, x = (int32_t)(pixel % wide) * c->stride_w;
    uint32_t total = 0;
    for (int32_t p = 0; p < c->x_bits; ++p) {
      uint64_t* to = out->planes + ((pixel - out->first) * c->x_bits + p) * words;
      uint64_t held = 0; /* of the word that is being filled, so many bits */
      int32_t filled = 0;
      uint32_t ones = 0;
      for (int32_t ky = 0; ky < c->kernel_h; ++ky) {
        const uint64_t* line = lines + ((image * rows + y + ky * c->dilation_h) * c->x_bits + p) * line_words;
        for (int32_t kx = 0; kx < runs; ++kx) {
          const int64_t from = (int64_t)(x + kx * c->dilation_w) * c->channels;
          if (c->channels % 64 == 0) { /* whole words */
            const uint64_t* word = line + (from >> 6);
            for (int64_t i = 0; i < run / 64; ++i) {
              to[i] = word[i];
              ones += (uint32_t)bits_of(word[i]);
            }
            to += run / 64;
            continue;
          }
          const int32_t shift = (int32_t)(from & 63);
          const uint64_t* word = line + (from >> 6);
          for (int64_t left = run; left > 0; left -= 64, ++word) {
            const int32_t there = left < 64 ? (int32_t)left : 64;
            const uint64_t bits = (word[0] >> shift | word[1] << 1 << (63 - shift)) & ~(uint64_t)0 >> (64 - there);
            held |= bits << filled;
            filled += there;
            if (filled >= 64) {
              *to++ = held;
              ones += (uint32_t)bits_of(held);
              filled -= 64;
              held = bits >> 1 >> (there - 1 - filled); /* all of them but those that went in */
            }
          }
        }
      }
      if (filled > 0) {
        *to = held;
        ones += (uint32_t)bits_of(held);
      }
      total += ones << p;
    }
    const int32_t top = y - c->top, left = x - c->left;
    const int within = top >= 0 && left >= 0 && top + (c->kernel_h - 1) * c->dilation_h < c->height &&
                       left + (c->kernel_w - 1) * c->dilation_w < c->width;
    fb_pixel* place = out->pixels + (pixel - out->first);
    place->total = (int32_t)total;
    place->y = within ? FB_WITHIN : top;
    place->x = left;
  }
}

void FB_FN(binary)(const fb_binary* c, const fb_covered* of, int64_t begin, int64_t end, int64_t first, int64_t last) {
  const int64_t words = fb_binary_words(c);
  for (int64_t block = first; block < last; ++block) {
    const int64_t left = c->columns - 8 * block, there = left < 8 ? left : 8;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      uint32_t counts[8] = {0};
      for (int32_t p = 0; p < c->x_bits; ++p) {
        const uint64_t* x = of->planes + ((pixel - of->first) * c->x_bits + p) * words;
        for (int32_t q = 0; q < c->w_bits; ++q) {
          const uint64_t* w = c->weights + (block * c->w_bits + q) * words * 8;
          for (int64_t word = 0; word < words; ++word) {
            for (int32_t j = 0; j < 8; ++j) counts[j] += (uint32_t)bits_of(x[word] & w[8 * word + j]) << (p + q);
          }
        }
      }
      int32_t sums[8];
      fb_binary_sums(c, of->pixels + (pixel - of->first), counts, block, sums);
      FB_FN(rescale_row)(&c->rescale, sums, 8 * block, there, c->y, pixel * c->columns + 8 * block);
    }
  }
}

/* The sum of one column by its places: four at a time, so that none waits for the other. */
static int32_t by_places(const fb_sparse* c, const uint8_t* x, int64_t column) {
  const int32_t to = c->starts[column + 1];
  int32_t i = c->starts[column], sums[4] = {0};
  for (; i + 4 <= to; i += 4) {
    for (int32_t j = 0; j < 4; ++j) sums[j] += (int32_t)x[c->places[i + j]] * c->values[c->which[i + j]];
  }
  for (; i < to; ++i) sums[0] += (int32_t)x[c->places[i]] * c->values[c->which[i]];
  return sums[0] + sums[1] + sums[2] + sums[3];
}

void FB_FN(sparse)(const fb_sparse* c, const uint8_t* x, int64_t x_step, int64_t begin, int64_t end) {
  const int64_t segments = ((int64_t)c->depth + 127) / 128;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t left = c->columns - 16 * block, there = left < 16 ? left : 16;
    for (int64_t row = 0; row < c->rows; ++row) {
      const uint8_t* codes = x + row * x_step;
      int32_t sums[16] = {0};
      if (c->counts) {
        const uint8_t* from = c->steps + c->begins[block] * 128;
        for (int64_t segment = 0; segment < segments; ++segment) {
          for (int32_t k = 0; k < c->counts[block * segments + segment]; ++k, from += 128) {
            for (int32_t i = 0; i < 64; ++i) sums[i / 4] += (int32_t)codes[128 * segment + from[i]] * (int8_t)from[64 + i];
          }
        }
      } else {
        for (int64_t j = 0; j < there; ++j) sums[j] = by_places(c, codes, 16 * block + j);
      }
      for (int64_t j = 0; j < there; ++j) sums[j] = (int32_t)((uint32_t)sums[j] + (uint32_t)c->bias[16 * block + j]);
      FB_FN(rescale_row)(&c->rescale, sums, 16 * block, there, c->y, row * c->columns + 16 * block);
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
