#include "base/cpu.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace netsuke {
namespace {

struct Detected {
  bool avx2 = false;
  bool avx512vnni = false;
  bool neondot = false;
  CpuFeatures features;
};

#if defined(__x86_64__)

bool bit(uint32_t word, int index) { return (word >> index) & 1u; }

// Which register files the operating system saves on a context switch. An instruction set without this is unusable even
// when cpuid lists it. Only valid when cpuid(1).ecx bit 27 (OSXSAVE) is set.
uint64_t read_xcr0() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

Detected detect() {
  Detected found;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool fma = bit(c, 12), osxsave = bit(c, 27), avx = bit(c, 28), f16c = bit(c, 29);
  if (!osxsave || !avx) return found;
  const uint64_t xcr0 = read_xcr0();
  const bool os_avx = (xcr0 & 0x6) == 0x6;        // SSE and AVX state
  const bool os_avx512 = (xcr0 & 0xe6) == 0xe6;   // and opmask, ZMM0-15 high halves, ZMM16-31
  uint32_t a7 = 0, b7 = 0, c7 = 0, d7 = 0;
  if (!os_avx || !__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return found;
  // The AVX2 islands are compiled with -mavx2 -mfma -mf16c -mbmi -mbmi2; all of them must be there.
  found.avx2 = bit(b7, 5) && fma && f16c && bit(b7, 3) && bit(b7, 8);
  const bool avx512 = bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31);  // F, DQ, BW, VL
  found.avx512vnni = found.avx2 && os_avx512 && avx512 && bit(c7, 11);
  if (found.avx512vnni) {
    found.features.avx512_vbmi = bit(c7, 1);
    found.features.avx512_vpopcntdq = bit(c7, 14);
    found.features.avx512_gfni = bit(c7, 8);
    uint32_t a71 = 0, b71 = 0, c71 = 0, d71 = 0;
    if (a7 >= 1 && __get_cpuid_count(7, 1, &a71, &b71, &c71, &d71)) found.features.avx512_bf16 = bit(a71, 5);
  }
  return found;
}

#elif defined(__aarch64__) && defined(__linux__)

Detected detect() {
  Detected found;
  constexpr unsigned long kHwcapAsimdDp = 1ul << 20;
  found.neondot = (getauxval(AT_HWCAP) & kHwcapAsimdDp) != 0;
  return found;
}

#else

Detected detect() { return Detected(); }

#endif

const Detected& detected() {
  static const Detected found = detect();
  return found;
}

constexpr Isa kAll[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDot};

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable: return "portable";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512Vnni: return "avx512vnni";
    case Isa::kNeon: return "neon";
    case Isa::kNeonDot: return "neondot";
  }
  return "unknown";
}

bool isa_from_name(const std::string& name, Isa* out) {
  for (Isa isa : kAll) {
    if (name == isa_name(isa)) {
      *out = isa;
      return true;
    }
  }
  return false;
}

std::vector<Isa> compiled_isas() {
#if defined(__x86_64__)
  return {Isa::kAvx512Vnni, Isa::kAvx2, Isa::kPortable};
#elif defined(__aarch64__)
  return {Isa::kNeonDot, Isa::kNeon, Isa::kPortable};
#else
  return {Isa::kPortable};
#endif
}

bool isa_available(Isa isa) {
  switch (isa) {
    case Isa::kPortable: return true;
    case Isa::kAvx2: return detected().avx2;
    case Isa::kAvx512Vnni: return detected().avx512vnni;
#if defined(__aarch64__)
    case Isa::kNeon: return true;
#else
    case Isa::kNeon: return false;
#endif
    case Isa::kNeonDot: return detected().neondot;
  }
  return false;
}

Isa best_isa() {
  for (Isa isa : compiled_isas()) {
    if (isa_available(isa)) return isa;
  }
  return Isa::kPortable;
}

const CpuFeatures& cpu_features() { return detected().features; }

}  // namespace netsuke
