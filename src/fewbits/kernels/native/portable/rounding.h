/* Rounding without math.h. Needs IEEE float32 without excess precision, and no -ffast-math. */
#ifndef FB_ROUNDING_H
#define FB_ROUNDING_H
#include <stdint.h>
#include <string.h>

/* Within [low, high]; low where v is no number. */
static inline float fb_clamp(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}

/* Nearest integer, ties to even, of |v| <= 2^22: 1.5 2^23 + v has no bits behind the point. */
static inline int32_t fb_nearest(float v) {
  const float moved = v + 12582912.0f;
  int32_t bits;
  memcpy(&bits, &moved, 4);
  return bits - 0x4B400000;
}

/* clip(rint(v) + zero, low, high): bounds are whole, so they may come first. */
static inline int32_t fb_code(float v, int32_t zero, float low, float high) {
  return fb_nearest(fb_clamp(v, low, high)) + zero;
}

/* The square root rounded to nearest even, of a number that is not negative and finite. */
static inline float fb_sqrt(float v) {
#if defined(__x86_64__) || defined(__aarch64__)
  return __builtin_sqrtf(v);
#else
  /* Bit by bit: root^2 <= mantissa, then the half-way point decides (a root is never half-way). */
  uint32_t bits;
  memcpy(&bits, &v, 4);
  if (bits == 0) return v;
  int32_t exponent = (int32_t)(bits >> 23);
  uint64_t mantissa = bits & 0x7FFFFFu;
  if (exponent == 0) {
    exponent = 1;
    while (!(mantissa & 0x800000u)) {
      mantissa <<= 1;
      --exponent;
    }
  } else {
    mantissa |= 0x800000u;
  }
  exponent -= 127;
  mantissa <<= (exponent & 1) ? 26 : 25; /* 49 or 50 bits: a root of 25 bits, the last one half a step */
  uint64_t root = 0;
  for (uint64_t bit = (uint64_t)1 << 24; bit; bit >>= 1) {
    if ((root | bit) * (root | bit) <= mantissa) root |= bit;
  }
  root = (root + 1) >> 1;
  bits = (uint32_t)root + ((uint32_t)(((exponent - (exponent & 1)) / 2 + 126)) << 23);
  memcpy(&v, &bits, 4);
  return v;
#endif
}

/* a b + c, rounded once. */
static inline float fb_fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  /* The product is exact in float64; the sum is rounded to odd there, so that rounding it to float32 is right (Boldo and
     Melquiond 2008, "Emulation of FMA and correctly rounded sums"). */
  const double product = (double)a * (double)b;
  const double total = product + (double)c;
  const double back = total - product;
  const double error = (product - (total - back)) + ((double)c - back);
  int64_t bits;
  double odd;
  memcpy(&bits, &total, 8);
  if (error != 0.0 && !(bits & 1)) bits += ((error > 0.0) == (total > 0.0)) ? 1 : -1;
  memcpy(&odd, &bits, 8);
  return (float)odd;
#endif
}

/* a / b, rounded, from r = 1 / b, rounded: where fused multiply-adds are instructions a division takes several times as long as
   two corrections. The first makes the quotient one of the two floats around a / b; from there the second rounds right
   (Markstein 1990, "Computation of elementary functions on the IBM RISC System/6000 processor", theorem 8.1). For |b| from
   2^-60 to 2^60, and a of 0 or |a| from 2^-60 to 2^60, so that nothing leaves the normal numbers. */
static inline float fb_quotient(float a, float b, float r) {
#if defined(__FMA__) || defined(__aarch64__)
  const float first = a * r, second = __builtin_fmaf(__builtin_fmaf(-first, b, a), r, first);
  return __builtin_fmaf(__builtin_fmaf(-second, b, a), r, second);
#else
  (void)r;
  return a / b;
#endif
}

#endif
