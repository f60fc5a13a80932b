/* Sums to codes by comparison with thresholds (eq. 16). */
#include "level.h"

enum { SOME = 64 };

void FB_FN(rescale_levels)(const fb_rescale* r, const int32_t* restrict sums, int64_t channel, int64_t count,
                           void* restrict y, int64_t at) {
  uint8_t* out = (uint8_t*)y + at;
  for (int64_t first = 0; first < count; first += SOME) {
    const int64_t some = count - first < SOME ? count - first : SOME;
    const int32_t* x = sums + first;
    int32_t reached[SOME];
    for (int64_t i = 0; i < some; ++i) reached[i] = 0;
    for (int32_t k = 0; k < r->number; ++k) {
      if (r->per_channel) {
        const int32_t* t = r->thresholds + (int64_t)k * r->channels + channel + first;
        const int32_t* up = r->direction + channel + first;
        for (int64_t i = 0; i < some; ++i) reached[i] += up[i] > 0 ? x[i] >= t[i] : x[i] <= t[i];
      } else {
        const int32_t t = r->thresholds[(int64_t)k * r->channels];
        if (r->direction[0] > 0) {
          for (int64_t i = 0; i < some; ++i) reached[i] += x[i] >= t;
        } else {
          for (int64_t i = 0; i < some; ++i) reached[i] += x[i] <= t;
        }
      }
    }
    if (r->number == 1) {
      const int32_t zero = r->levels[0], one = r->levels[1] - r->levels[0];
      for (int64_t i = 0; i < some; ++i) out[first + i] = (uint8_t)(zero + one * reached[i]);
    } else {
      for (int64_t i = 0; i < some; ++i) out[first + i] = r->levels[reached[i]];
    }
  }
}
