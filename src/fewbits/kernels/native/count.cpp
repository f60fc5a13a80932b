// Numbers counted into evenly spaced bins: kernels/histogram.py, count_into.
#include <cmath>

#include "kernels.h"

namespace {

constexpr int64_t kBlock = 2048;

// The floors of values times a power of two, with which a product in Real is exact; apart from the counting, so that it
// becomes vector instructions.
template <typename Real>
void floors(const float* values, int64_t n, Real factor, int32_t* bins) {
  for (int64_t i = 0; i < n; ++i) {
    const Real scaled = static_cast<Real>(values[i]) * factor;
    const int32_t cut = static_cast<int32_t>(scaled);
    bins[i] = cut - (scaled < static_cast<Real>(cut));
  }
}

}  // namespace

void fb_count(const float* values, int64_t n, int32_t exponent, int64_t start, int64_t* counts) {
  // A float has no room for the product where it underflows, which a factor of 1 or more cannot make it do.
  const bool narrow = exponent <= 0 && exponent >= -126;
  const double factor = std::ldexp(1.0, -exponent);
  int32_t bins[kBlock];
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t size = n - first < kBlock ? n - first : kBlock;
    if (narrow) {
      floors(values + first, size, static_cast<float>(factor), bins);
    } else {
      floors(values + first, size, factor, bins);
    }
    for (int64_t i = 0; i < size; ++i) ++counts[bins[i] - start];
  }
}
