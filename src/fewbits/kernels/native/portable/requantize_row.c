/* Which way sums go: as they are, by float32, by thresholds, or by integers. */
#include "level.h"

#if defined(FB_SIMD)
#define FB_LEVELS_FN FB_FN(simd_levels) /* simd/levels.cpp */
void FB_LEVELS_FN(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
#else
#define FB_LEVELS_FN FB_FN(rescale_levels)
#endif

void FB_FN(rescale_row)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at) {
  if (r->kind == FB_SUMS) {
    memcpy((int32_t*)y + at, sums, (size_t)count * 4);
  } else if (r->kind == FB_FLOAT || r->kind == FB_REAL) {
    FB_FN(rescale_float)(r, sums, channel, count, y, at);
  } else if (r->kind == FB_LEVELS) {
    FB_LEVELS_FN(r, sums, channel, count, y, at);
  } else {
    FB_FN(rescale_fixed)(r, sums, channel, count, y, at);
  }
}

void FB_FN(rescale_wide_row)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                             int64_t at) {
  if (r->kind == FB_SUMS) {
    for (int64_t i = 0; i < count; ++i) ((int32_t*)y)[at + i] = (int32_t)sums[i];
  } else if (r->kind == FB_FLOAT || r->kind == FB_REAL) {
    FB_FN(rescale_wide_float)(r, sums, channel, count, y, at);
  } else if (r->kind == FB_LEVELS) { /* of sums that fit 32 bits, as those that FB_SUMS writes */
    int32_t narrow[64];
    for (int64_t first = 0; first < count; first += 64) {
      const int64_t some = count - first < 64 ? count - first : 64;
      for (int64_t i = 0; i < some; ++i) narrow[i] = (int32_t)sums[first + i];
      FB_LEVELS_FN(r, narrow, channel + first, some, y, at + first);
    }
  } else {
    FB_FN(rescale_wide_fixed)(r, sums, channel, count, y, at);
  }
}
