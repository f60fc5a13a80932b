/* Layer norm and its like from exact integer sums (eq. 14). */
#include "level.h"
#include "rounding.h"

/* Of wider codes than bytes, in rows so short that sums of their squares, times the length, fit 63 bits. */
static void wide(const fb_norm* c, int64_t begin, int64_t end) {
  const int32_t n = c->length, zero = c->zero, origin = c->about_zero ? c->x_zero : 0;
  const float low = (float)(c->low - c->zero), high = (float)(c->high - c->zero), scale = c->scale;
  for (int64_t row = begin; row < end; ++row) {
    const int16_t* restrict x = (const int16_t*)c->x + row * n;
    uint8_t* restrict y = c->y + row * n;
    const float* gain = c->gain + row % c->gain_rows * n;
    const float* shift = c->shift + row % c->gain_rows * n;
    int32_t total = 0; /* at most 2^14 codes */
    int64_t squares = 0;
    for (int32_t i = 0; i < n; ++i) {
      const int32_t q = x[i] - origin;
      total += q;
      squares += (int64_t)q * q;
    }
    if (c->about_zero) total = 0;
    const float deviation = fb_sqrt((float)(n * squares - (int64_t)total * total) + c->epsilon);
    for (int32_t i = 0; i < n; ++i) { /* length times code fits 30 bits */
      const float normal = (float)(n * (x[i] - origin) - total) / deviation;
      y[i] = (uint8_t)fb_code((normal * gain[i] + shift[i]) / scale, zero, low, high);
    }
  }
}

void FB_FN(norm)(const fb_norm* c, int64_t begin, int64_t end) {
  if (c->x_type == FB_S16) {
    wide(c, begin, end);
    return;
  }
  const int32_t n = c->length, zero = c->zero;
  const float low = (float)(c->low - c->zero), high = (float)(c->high - c->zero), scale = c->scale;
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* restrict x = c->x + row * n;
    uint8_t* restrict y = c->y + row * n;
    const float* gain = c->gain + row % c->gain_rows * n;
    const float* shift = c->shift + row % c->gain_rows * n;
    int64_t total = 0, squares = 0;
    for (int32_t first = 0; first < n; first += 32768) { /* parts whose sums of squares fit 32 bits */
      const int32_t last = n - first < 32768 ? n : first + 32768;
      uint32_t t = 0, u = 0;
      if (c->about_zero) {
        for (int32_t i = first; i < last; ++i) {
          const int32_t q = (int32_t)x[i] - c->x_zero;
          u += (uint32_t)(q * q);
        }
      } else {
        for (int32_t i = first; i < last; ++i) {
          t += x[i];
          u += (uint32_t)x[i] * x[i];
        }
      }
      total += t;
      squares += u;
    }
    const int64_t from = c->about_zero ? (int64_t)n * c->x_zero : total;
    const float deviation = fb_sqrt((float)(n * squares - total * total) + c->epsilon);
    if (n <= 8388607) { /* length times code fits 31 bits */
      const int32_t t = (int32_t)from;
      for (int32_t i = 0; i < n; ++i) {
        const float normal = (float)(n * (int32_t)x[i] - t) / deviation;
        y[i] = (uint8_t)fb_code((normal * gain[i] + shift[i]) / scale, zero, low, high);
      }
    } else {
      for (int32_t i = 0; i < n; ++i) {
        const float normal = (float)((int64_t)n * x[i] - from) / deviation;
        y[i] = (uint8_t)fb_code((normal * gain[i] + shift[i]) / scale, zero, low, high);
      }
    }
  }
}
