/* Sums to codes by an integer multiplier and a shift (eq. 17 to 20). No floating point. */
#include "level.h"

/* Saturating rounding doubling high multiply, then a rounding shift, half away from 0 (eq. 18). */
static inline int64_t twice_rounded(int64_t t, int64_t mantissa, int32_t shift) {
  const int32_t left = shift > 0 ? shift : 0, right = shift < 0 ? -shift : 0;
  /* Unsigned, as products that lowering did not prove to fit wrap. */
  const int64_t high = (int64_t)(((uint64_t)t << left) * (uint64_t)mantissa + ((uint64_t)1 << 30)) >> 31;
  const int64_t mask = ((int64_t)1 << right) - 1;
  return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0));
}

/* One shift of the whole product, half up (eq. 19); its parts one after the other, since 48 bits times 31 are too many. */
static inline int64_t once_rounded(int64_t t, int64_t mantissa, int32_t shift) {
  const int32_t right = 31 - shift;
  if (right < 20) return (int64_t)((uint64_t)t * (uint64_t)mantissa + (((uint64_t)1 << right) >> 1)) >> right;
  const int64_t lower = (t & 0xFFFFF) * mantissa + ((int64_t)1 << (right - 1));
  return ((t >> 20) * mantissa + (lower >> 20)) >> (right - 20);
}

/* By the upper 16 bits of the multiplier, half up (eq. 20). */
static inline int64_t wide_rounded(int64_t t, int64_t mantissa, int32_t shift) {
  int64_t upper = (mantissa + 0x8000) >> 16;
  const int32_t right = 15 - shift;
  upper = upper < 0x7FFF ? upper : 0x7FFF;
  return right > 0 ? (t * upper + ((int64_t)1 << (right - 1))) >> right : (int64_t)((uint64_t)(t * upper) << -right);
}

static inline void put(const fb_rescale* r, int64_t v, void* y, int64_t at) {
  v += r->zero;
  v = v > r->low ? v : r->low;
  v = v < r->high ? v : r->high;
  if (r->type == FB_S16) {
    ((int16_t*)y)[at] = (int16_t)v;
  } else {
    ((uint8_t*)y)[at] = (uint8_t)v;
  }
}

#define ROWS                                                                                       \
  for (int64_t i = 0; i < count; ++i) {                                                            \
    const int64_t c = r->per_channel ? channel + i : 0;                                            \
    const int64_t mantissa = r->mantissa[c];                                                       \
    const int32_t shift = r->shift[c];                                                             \
    const int64_t v = r->kind == FB_DOUBLE   ? twice_rounded(sums[i], mantissa, shift)             \
                      : r->kind == FB_SINGLE ? once_rounded(sums[i], mantissa, shift)              \
                                             : wide_rounded(sums[i], mantissa, shift);             \
    put(r, v, y, at + i);                                                                          \
  }

void FB_FN(rescale_fixed)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y,
                          int64_t at) {
  ROWS
}

void FB_FN(rescale_wide_fixed)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                               int64_t at) {
  ROWS
}
