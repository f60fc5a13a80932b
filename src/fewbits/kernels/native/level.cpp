// Which instructions the inner loops use: from CPUID and the state that the system saves, never from a model's name.
#include "kernels.h"
#include "dispatch.h"

#include <atomic>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace fb {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)
// Linux saves the tiles only for processes that ask first; where it refuses (an old one, or an alternative signal stack that is
// too small for them), there are none.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kAskFor = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kAskFor, kTileData) == 0;
#else
  return false;
#endif
}

int32_t detect() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const bool saved = c >> 27 & 1, avx = c >> 28 & 1, fma = c >> 12 & 1, half = c >> 29 & 1, popcount = c >> 23 & 1;
  if (!saved || !avx || !fma || !half || !popcount) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const unsigned leaves = a;
  if (!(b >> 5 & 1) || !(b >> 8 & 1) || !(b >> 3 & 1)) return 0;  // AVX2, BMI2, BMI1
  int32_t found = 1 << kAvx2;
  const bool wide = (low & 0xe6) == 0xe6 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1) &&
                    (c >> 11 & 1);  // F, DQ, BW, VL, VNNI
  if (wide) found |= 1 << kAvx512;
  const bool tiles = (low >> 17 & 3) == 3 && (d >> 24 & 1) && (d >> 25 & 1) && (c >> 1 & 1);  // and VBMI
  if (wide && tiles && may_use_tiles()) found |= 1 << kAmx;
  if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1)) found |= 1 << kAvxVnni;
  return found;
}

int32_t detect_features() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  return (c >> 1 & 1 ? kVbmi : 0) | (c >> 6 & 1 ? kVbmi2 : 0) | (c >> 14 & 1 ? kVpopcntdq : 0);
}
#elif defined(__aarch64__) && defined(__linux__)
int32_t detect() { return (getauxval(AT_HWCAP) >> 20 & 1) ? 1 << kNeon : 0; }  // HWCAP_ASIMDDP
#elif defined(__aarch64__) && defined(__APPLE__)
int32_t detect() { return 1 << kNeon; }  // every processor that Apple sold with it has the dot product
#else
int32_t detect() { return 0; }
#endif

#if !(defined(__x86_64__) && defined(__GNUC__))
int32_t detect_features() { return 0; }
#endif

const int32_t found = detect() | 1 << kPortable;
const int32_t beside = detect_features();

int32_t best() {
  for (int32_t level = kLevels - 1; level > 0; --level) {
    if (found >> level & 1) return level;
  }
  return kPortable;
}

std::atomic<int32_t> used{best()};

}  // namespace

int32_t features() { return beside; }
int32_t level() { return used.load(std::memory_order_relaxed); }

const Kernels& kernels() {
  switch (level()) {
#if defined(__x86_64__) && defined(__GNUC__)
    case kAvx2:
      return fb_avx2_kernels;
    case kAvxVnni:
      return fb_avxvnni_kernels;
    case kAvx512:
      return fb_avx512_kernels;
    case kAmx:
      return fb_amx_kernels;
#elif defined(__aarch64__)
    case kNeon:
      return fb_neon_kernels;
#endif
    default:
      return fb_portable_kernels;
  }
}

}  // namespace fb

int32_t fb_interface() { return kInterface; }
int32_t fb_levels() { return fb::found; }
int32_t fb_level() { return fb::level(); }
int32_t fb_features() { return fb::features(); }
int32_t fb_set_level(int32_t wanted) {
  if (wanted < 0 || wanted >= fb::kLevels || !(fb::found >> wanted & 1)) return 1;
  fb::used.store(wanted, std::memory_order_relaxed);
  return 0;
}
