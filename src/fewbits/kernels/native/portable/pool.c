/* Largest codes and means over windows, and means over whole axes. */
#include "level.h"
#include "rounding.h"

enum { LANES = 256 }; /* channels at a time */

static inline int32_t largest(int32_t a, int32_t b) { return a > b ? a : b; }

void FB_FN(pool)(const fb_pool* c, int64_t begin, int64_t end) {
  const int32_t out_h = (c->height + c->top + c->bottom - c->dilation_h * (c->kernel_h - 1) - 1) / c->stride_h + 1;
  const int32_t out_w = (c->width + c->left + c->right - c->dilation_w * (c->kernel_w - 1) - 1) / c->stride_w + 1;
  const float low = (float)(c->low - c->zero), high = (float)(c->high - c->zero);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t image = row / out_h;
    const int32_t oy = (int32_t)(row % out_h), y0 = oy * c->stride_h - c->top;
    for (int32_t ox = 0; ox < out_w; ++ox) {
      const int32_t x0 = ox * c->stride_w - c->left;
      for (int32_t first = 0; first < c->channels; first += LANES) {
        const int32_t count = c->channels - first < LANES ? c->channels - first : LANES;
        uint8_t most[LANES];
        int32_t sums[LANES];
        int32_t inside = 0;
        if (c->sums) {
          memset(sums, 0, (size_t)count * 4);
        } else {
          memset(most, 0, (size_t)count);
        }
        for (int32_t ky = 0; ky < c->kernel_h; ++ky) {
          const int32_t iy = y0 + ky * c->dilation_h;
          if (iy < 0 || iy >= c->height) continue;
          for (int32_t kx = 0; kx < c->kernel_w; ++kx) {
            const int32_t ix = x0 + kx * c->dilation_w;
            if (ix < 0 || ix >= c->width) continue;
            const uint8_t* x = c->x + ((image * c->height + iy) * c->width + ix) * c->channels + first;
            ++inside;
            if (c->sums) {
              for (int32_t i = 0; i < count; ++i) sums[i] += x[i];
            } else {
              for (int32_t i = 0; i < count; ++i) most[i] = (uint8_t)largest(most[i], x[i]);
            }
          }
        }
        uint8_t* restrict y = c->y + (row * out_w + ox) * c->channels + first;
        if (c->sums) {
          const float factor = c->factors[c->one_factor ? 0 : (int64_t)oy * out_w + ox];
          const int32_t zeros = inside * c->x_zero, zero = c->zero;
          for (int32_t i = 0; i < count; ++i) y[i] = (uint8_t)fb_code((float)(sums[i] - zeros) * factor, zero, low, high);
        } else {
          memcpy(y, most, (size_t)count);
        }
      }
    }
  }
}

void FB_FN(mean)(const fb_mean* c, int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; ++o) {
    for (int64_t first = 0; first < c->inner; first += LANES) {
      const int64_t count = c->inner - first < LANES ? c->inner - first : LANES;
      const uint8_t* x = c->x + o * c->length * c->inner + first;
      int32_t sums[LANES];
      const int32_t start = -(int32_t)c->length * c->x_zero;
      if (c->inner == 1) {
        int32_t sum = start;
        for (int64_t k = 0; k < c->length; ++k) sum += x[k];
        sums[0] = sum;
      } else {
        for (int64_t i = 0; i < count; ++i) sums[i] = start;
        for (int64_t k = 0; k < c->length; ++k, x += c->inner) {
          for (int64_t i = 0; i < count; ++i) sums[i] += x[i];
        }
      }
      FB_FN(rescale_row)(&c->rescale, sums, 0, count, c->y, o * c->inner + first);
    }
  }
}
