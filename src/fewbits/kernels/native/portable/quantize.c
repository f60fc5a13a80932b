/* float32 to codes and back (eq. 1, 2, 16, 28). */
#include "level.h"
#include "rounding.h"

/* Nearest integer, ties away from 0, of |v| <= 2^22: the fraction is exact, and so is twice it, whose whole part is 1 from a
   half on. Without comparisons, which would keep the loop from being vectorised. */
static inline int32_t away(float v) {
  const int32_t whole = (int32_t)v;
  const float rest = v - (float)whole;
  return whole + (int32_t)(rest + rest);
}

void FB_FN(quantize)(const fb_quantize* c, int64_t begin, int64_t end) {
  const float low = (float)(c->low - c->zero), high = (float)(c->high - c->zero), scale = c->scale;
  const float* restrict x = c->x;
  const int32_t zero = c->zero;
  if (c->type == FB_S16) {
    int16_t* restrict y = (int16_t*)c->y;
    for (int64_t i = begin; i < end; ++i) {
      const float v = fb_clamp(x[i] / scale, low, high);
      y[i] = (int16_t)((c->away ? away(v) : fb_nearest(v)) + zero);
    }
  } else if (c->away) {
    uint8_t* restrict y = (uint8_t*)c->y;
    for (int64_t i = begin; i < end; ++i) y[i] = (uint8_t)(away(fb_clamp(x[i] / scale, low, high)) + zero);
  } else {
    uint8_t* restrict y = (uint8_t*)c->y;
    for (int64_t i = begin; i < end; ++i) y[i] = (uint8_t)fb_code(x[i] / scale, zero, low, high);
  }
}

void FB_FN(dequantize)(const fb_dequantize* c, int64_t begin, int64_t end) {
  const int64_t n = c->channels == 1 ? end - begin : c->channels;
  for (int64_t row = begin; row < end; row += c->channels == 1 ? end - begin : 1) {
    float* restrict y = c->y + row * c->channels;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = row * c->channels + i;
      const float number = c->type == FB_U8    ? (float)((int32_t)((const uint8_t*)c->x)[at] - c->zero)
                           : c->type == FB_S16 ? (float)((int32_t)((const int16_t*)c->x)[at] - c->zero)
                                               : (float)((int64_t)((const int32_t*)c->x)[at] - c->zero);
      y[i] = number * c->scale[c->channels == 1 ? 0 : i];
    }
  }
}

void FB_FN(threshold)(const fb_threshold* c, int64_t begin, int64_t end) {
  for (int64_t line = begin; line < end; ++line) {
    const int64_t row = line % c->rows;
    const int32_t up = c->direction[row] > 0;
    for (int64_t i = 0; i < c->inner; ++i) {
      const int64_t at = line * c->inner + i;
      int32_t reached = 0;
      if (c->type == FB_S32) {
        const int64_t x = ((const int32_t*)c->x)[at], directed = up ? x : -x;
        const int32_t* t = (const int32_t*)c->thresholds + row * c->number;
        for (int32_t k = 0; k < c->number; ++k) reached += directed >= t[k];
      } else {
        const float x = ((const float*)c->x)[at], directed = up ? x : -x;
        const float* t = (const float*)c->thresholds + row * c->number;
        for (int32_t k = 0; k < c->number; ++k) reached += directed >= t[k];
      }
      c->y[at] = c->levels[reached];
    }
  }
}

int32_t FB_FN(range)(const float* x, int64_t count, float* low, float* high) {
  float least = 0.0f, most = 0.0f;
  int32_t strange = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    strange |= (bits & 0x7F800000u) == 0x7F800000u;
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  *low = least;
  *high = most;
  return strange;
}
