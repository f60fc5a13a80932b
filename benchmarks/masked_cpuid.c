// Loaded before a program (LD_PRELOAD), answers its CPUID instructions as a processor with fewer features would. Linux
// lets them fault (arch_prctl ARCH_SET_CPUID, where the processor can); the handler executes them, hides features and
// steps over them; all else runs at full speed. FEWBITS_CPUID: `avx2`, or `avx512`, which is AVX-512 without VNNI.
// Threads and forks inherit the setting; exec loses it and loads this again. See benchmarks/masked_cpuid.py.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { kSetCpuid = 0x1012, kFaults = 0, kWorks = 1 };  // asm/prctl.h
enum { kEax, kEbx, kEcx, kEdx };

typedef struct {
  uint32_t leaf, subleaf;
  int reg;
  int8_t bits[9];  // numbers of the bits that are hidden; ends with -1
} Hidden;

// Intel SDM, volume 2A, CPUID.
static const Hidden kDotProducts[] = {
    {7, 0, kEcx, {11, -1}},             // AVX512_VNNI
    {7, 0, kEdx, {22, 24, 25, -1}},     // AMX: BF16, TILE, INT8
    {7, 1, kEax, {4, 21, -1}},          // AVX-VNNI, AMX-FP16
    {7, 1, kEdx, {4, 8, 10, 19, -1}},   // AVX-VNNI-INT8, AMX-COMPLEX, AVX-VNNI-INT16, AVX10
};
static const Hidden kAvx512[] = {
    {7, 0, kEbx, {16, 17, 21, 26, 27, 28, 30, 31, -1}},  // F, DQ, IFMA, PF, ER, CD, BW, VL
    {7, 0, kEcx, {1, 6, 12, 14, -1}},                    // VBMI, VBMI2, BITALG, VPOPCNTDQ
    {7, 0, kEdx, {2, 3, 8, 23, -1}},                     // 4VNNIW, 4FMAPS, VP2INTERSECT, FP16
    {7, 1, kEax, {5, -1}},                               // BF16
};

static int keeps_avx512, passed_on;
static struct sigaction theirs;  // what the program wants done with SIGSEGV
static int (*real_sigaction)(int, const struct sigaction*, struct sigaction*);

static long cpuid_is(long state) { return syscall(SYS_arch_prctl, kSetCpuid, state); }

static void hide(const Hidden* rows, size_t count, uint32_t leaf, uint32_t subleaf, uint32_t* registers) {
  for (size_t i = 0; i < count; ++i)
    if (rows[i].leaf == leaf && rows[i].subleaf == subleaf)
      for (const int8_t* bit = rows[i].bits; *bit >= 0; ++bit) registers[rows[i].reg] &= ~(UINT32_C(1) << *bit);
}

static void on_fault(int number, siginfo_t* info, void* context) {
  greg_t* saved = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* at = (const uint8_t*)saved[REG_RIP];
  if (info->si_code != SI_KERNEL || at[0] != 0x0f || at[1] != 0xa2) {  // not a CPUID: the program's own affair
    passed_on = 1;
    real_sigaction(SIGSEGV, &theirs, NULL);
    if (info->si_code <= 0) raise(number);  // sent by somebody; else the instruction faults again
    return;
  }
  const uint32_t leaf = (uint32_t)saved[REG_RAX], subleaf = (uint32_t)saved[REG_RCX];
  uint32_t found[4];
  cpuid_is(kWorks);
  __cpuid_count(leaf, subleaf, found[kEax], found[kEbx], found[kEcx], found[kEdx]);
  cpuid_is(kFaults);
  hide(kDotProducts, sizeof kDotProducts / sizeof *kDotProducts, leaf, subleaf, found);
  if (!keeps_avx512) hide(kAvx512, sizeof kAvx512 / sizeof *kAvx512, leaf, subleaf, found);
  saved[REG_RAX] = found[kEax], saved[REG_RBX] = found[kEbx];
  saved[REG_RCX] = found[kEcx], saved[REG_RDX] = found[kEdx];
  saved[REG_RIP] += 2;
}

// A handler for SIGSEGV that the program sets (Python's faulthandler, torch) waits behind ours.
int sigaction(int number, const struct sigaction* wanted, struct sigaction* before) {
  if (real_sigaction == NULL) *(void**)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
  if (number != SIGSEGV || passed_on) return real_sigaction(number, wanted, before);
  const struct sigaction now = theirs;
  if (wanted != NULL) theirs = *wanted;
  if (before != NULL) *before = now;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
  struct sigaction wanted = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
  sigemptyset(&wanted.sa_mask);
  return sigaction(number, &wanted, &before) == 0 ? before.sa_handler : SIG_ERR;
}

__attribute__((constructor)) static void start(void) {
  const char* kind = getenv("FEWBITS_CPUID");
  if (kind == NULL) return;
  keeps_avx512 = strcmp(kind, "avx512") == 0;
  struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, before;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGSEGV, NULL, &before);  // finds the real one
  real_sigaction(SIGSEGV, &ours, &theirs);
  if (cpuid_is(kFaults) != 0) {
    static const char sentence[] = "this processor, or its virtual machine, cannot let CPUID fault: nothing was masked\n";
    (void)!write(STDERR_FILENO, sentence, sizeof sentence - 1);
    _exit(2);
  }
}
