// Which instructions the inner loops use.
#include "kernels.h"

namespace {

int32_t detect() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return kAvx512;
  if (__builtin_cpu_supports("avx2")) return kAvx2;
#endif
  return kPortable;
}

const int32_t best = detect();
int32_t level = best;

}  // namespace

int32_t fb_interface() { return kInterface; }
int32_t fb_best_level() { return best; }
int32_t fb_level() { return level; }
void fb_set_level(int32_t wanted) { level = wanted < kPortable ? kPortable : (wanted > best ? best : wanted); }
