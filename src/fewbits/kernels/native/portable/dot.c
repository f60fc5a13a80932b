/* Sums of products: convolutions, linear layers and matrix products of activations. */
#include "level.h"

enum { CHUNK = 64 }; /* sums that wait for requantisation */

/* The products of a run of numbers; the zero point is taken off each. */
static inline int32_t run_u8(const uint8_t* x, const int8_t* w, int32_t count, int32_t zero) {
  int32_t sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += ((int32_t)x[i] - zero) * (int32_t)w[i];
  return sum;
}

static inline int32_t run_u8_wide(const uint8_t* x, const int16_t* w, int32_t count, int32_t zero) {
  int32_t sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += ((int32_t)x[i] - zero) * (int32_t)w[i];
  return sum;
}

static inline int64_t run_s16(const int16_t* x, const int8_t* w, int32_t count, int32_t zero) {
  int64_t sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += (int64_t)(((int32_t)x[i] - zero) * (int32_t)w[i]);
  return sum;
}

static inline int64_t run_s16_wide(const int16_t* x, const int16_t* w, int32_t count, int32_t zero) {
  int64_t sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += (int64_t)((int32_t)x[i] - zero) * w[i];
  return sum;
}

void FB_FN(conv)(const fb_conv* c, int64_t begin, int64_t end) {
  const int32_t out_h = (c->height + c->top + c->bottom - c->dilation_h * (c->kernel_h - 1) - 1) / c->stride_h + 1;
  const int32_t out_w = (c->width + c->left + c->right - c->dilation_w * (c->kernel_w - 1) - 1) / c->stride_w + 1;
  const int32_t depth = c->channels / c->groups, of_group = c->out_channels / c->groups;
  const int64_t taps = (int64_t)c->kernel_h * c->kernel_w * depth;
  const int wide_x = c->x_type == FB_S16, wide_w = c->weight_type == FB_S16;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t image = row / out_h;
    const int32_t y0 = (int32_t)(row % out_h) * c->stride_h - c->top;
    for (int32_t column = 0; column < out_w; ++column) {
      const int32_t x0 = column * c->stride_w - c->left;
      const int64_t at = (row * out_w + column) * c->out_channels;
      for (int32_t first = 0; first < c->out_channels; first += CHUNK) {
        const int32_t count = c->out_channels - first < CHUNK ? c->out_channels - first : CHUNK;
        int32_t sums[CHUNK];
        int64_t wide[CHUNK];
        for (int32_t i = 0; i < count; ++i) {
          const int32_t o = first + i;
          const int64_t start = (int64_t)o * taps;
          const int32_t channel = o / of_group * depth;
          int64_t total = c->bias ? c->bias[o] : 0;
          for (int32_t ky = 0; ky < c->kernel_h; ++ky) {
            const int32_t iy = y0 + ky * c->dilation_h;
            if (iy < 0 || iy >= c->height) continue;
            for (int32_t kx = 0; kx < c->kernel_w; ++kx) {
              const int32_t ix = x0 + kx * c->dilation_w;
              if (ix < 0 || ix >= c->width) continue;
              const int64_t from = ((image * c->height + iy) * c->width + ix) * c->channels + channel;
              const int64_t tap = start + ((int64_t)ky * c->kernel_w + kx) * depth;
              if (wide_x) {
                const int16_t* x = (const int16_t*)c->x + from;
                total += wide_w ? run_s16_wide(x, (const int16_t*)c->weights + tap, depth, c->x_zero)
                                : run_s16(x, (const int8_t*)c->weights + tap, depth, c->x_zero);
              } else {
                const uint8_t* x = (const uint8_t*)c->x + from;
                total += wide_w ? run_u8_wide(x, (const int16_t*)c->weights + tap, depth, c->x_zero)
                                : run_u8(x, (const int8_t*)c->weights + tap, depth, c->x_zero);
              }
            }
          }
          sums[i] = (int32_t)total;
          wide[i] = total;
        }
        if (wide_x) {
          FB_FN(rescale_wide_row)(&c->rescale, wide, first, count, c->y, at + first);
        } else {
          FB_FN(rescale_row)(&c->rescale, sums, first, count, c->y, at + first);
        }
      }
    }
  }
}

void FB_FN(matmul)(const fb_matmul* c, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t batch = row / c->rows;
    const uint8_t* a = (const uint8_t*)c->a + batch * c->a_step + (row % c->rows) * c->depth;
    const uint8_t* b = (const uint8_t*)c->b + batch * c->b_step;
    for (int32_t first = 0; first < c->columns; first += CHUNK) {
      const int32_t count = c->columns - first < CHUNK ? c->columns - first : CHUNK;
      int32_t sums[CHUNK];
      if (c->b_transposed) {
        for (int32_t i = 0; i < count; ++i) {
          const uint8_t* column = b + (int64_t)(first + i) * c->depth;
          int32_t sum = 0;
          for (int32_t k = 0; k < c->depth; ++k) {
            sum += ((int32_t)a[k] - c->a_zero) * ((int32_t)column[k] - c->b_zero);
          }
          sums[i] = sum;
        }
      } else {
        for (int32_t i = 0; i < count; ++i) sums[i] = 0;
        for (int32_t k = 0; k < c->depth; ++k) {
          const int32_t factor = (int32_t)a[k] - c->a_zero;
          const uint8_t* line = b + (int64_t)k * c->columns + first;
          for (int32_t i = 0; i < count; ++i) sums[i] += factor * ((int32_t)line[i] - c->b_zero);
        }
      }
      FB_FN(rescale_row)(&c->rescale, sums, 0, count, c->y, row * c->columns + first);
    }
  }
}
