/* Which way sums go: as they are, by float32, or by integers. */
#include "level.h"

void FB_FN(rescale_row)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at) {
  if (r->kind == FB_SUMS) {
    memcpy((int32_t*)y + at, sums, (size_t)count * 4);
  } else if (r->kind == FB_FLOAT || r->kind == FB_REAL) {
    FB_FN(rescale_float)(r, sums, channel, count, y, at);
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
  } else {
    FB_FN(rescale_wide_fixed)(r, sums, channel, count, y, at);
  }
}
