/* Sums to codes by a factor in float32 (eq. 6), and to float32 (eq. 30). */
#include "level.h"
#include "rounding.h"

#define ROWS(SUM)                                                                                          \
  const float low = (float)(r->low - r->zero), high = (float)(r->high - r->zero);                          \
  const int32_t zero = r->zero;                                                                            \
  const float* factor = r->per_channel ? r->factor + channel : r->factor;                                  \
  if (r->kind == FB_REAL) {                                                                                \
    float* out = (float*)y + at;                                                                           \
    for (int64_t i = 0; i < count; ++i) out[i] = (float)sums[i] * (r->per_channel ? factor[i] : factor[0]); \
    if (r->offset) {                                                                                       \
      for (int64_t i = 0; i < count; ++i) out[i] = out[i] + r->offset[channel + i];                        \
    }                                                                                                      \
  } else if (r->type == FB_S16) {                                                                          \
    int16_t* out = (int16_t*)y + at;                                                                       \
    for (int64_t i = 0; i < count; ++i) {                                                                  \
      out[i] = (int16_t)fb_code((float)sums[i] * factor[r->per_channel ? i : 0], zero, low, high);         \
    }                                                                                                      \
  } else if (r->per_channel) {                                                                             \
    uint8_t* out = (uint8_t*)y + at;                                                                       \
    for (int64_t i = 0; i < count; ++i) out[i] = (uint8_t)fb_code((float)sums[i] * factor[i], zero, low, high); \
  } else {                                                                                                 \
    uint8_t* out = (uint8_t*)y + at;                                                                       \
    const float one = factor[0];                                                                           \
    for (int64_t i = 0; i < count; ++i) out[i] = (uint8_t)fb_code((float)sums[i] * one, zero, low, high);  \
  }

void FB_FN(rescale_float)(const fb_rescale* r, const int32_t* restrict sums, int64_t channel, int64_t count,
                          void* restrict y, int64_t at) {
  ROWS(int32_t)
}

void FB_FN(rescale_wide_float)(const fb_rescale* r, const int64_t* restrict sums, int64_t channel, int64_t count,
                               void* restrict y, int64_t at) {
  ROWS(int64_t)
}
