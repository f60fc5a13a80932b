// What the processor and the operating system say they can do. The answers are of the processor that runs this code,
// an emulated one too, which the system's own lists need not be.
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

int32_t fb_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t* registers) {
  if (leaf > __get_cpuid_max(leaf & 0x80000000u, nullptr)) return 0;
  __cpuid_count(leaf, subleaf, registers[0], registers[1], registers[2], registers[3]);
  return 1;
}

uint64_t fb_xgetbv() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}
#else
int32_t fb_cpuid(uint32_t, uint32_t, uint32_t*) { return 0; }
uint64_t fb_xgetbv() { return 0; }
#endif
