// Which instruction sets this CPU has, and which one is used. This file and cpu.cc are compiled for the baseline CPU.
#ifndef NETSUKE_BASE_CPU_H_
#define NETSUKE_BASE_CPU_H_

#include <string>
#include <vector>

namespace netsuke {

// Ordered: a larger value of the same family is a superset of the smaller ones.
enum class Isa : int {
  kPortable = 0,
  kAvx2 = 10,        // AVX2 + FMA
  kAvx512Vnni = 20,  // AVX-512 F/BW/DQ/VL + VNNI
  kNeon = 30,        // AArch64 baseline
  kNeonDot = 31,     // + SDOT/UDOT
};

// Extensions that some kernels use on top of their ISA.
struct CpuFeatures {
  bool avx512_bf16 = false;
  bool avx512_gfni = false;
  bool avx512_vbmi = false;
  bool avx512_vpopcntdq = false;
};

const char* isa_name(Isa isa);                           // "portable", "avx2", "avx512vnni", "neon", "neondot"
bool isa_from_name(const std::string& name, Isa* out);
bool isa_available(Isa isa);                             // compiled in and present on this CPU
std::vector<Isa> compiled_isas();                        // best first
Isa best_isa();                                          // ignores NETSUKE_ISA
const CpuFeatures& cpu_features();                       // of this CPU; all false when a lower ISA is forced by the caller

}  // namespace netsuke

#endif  // NETSUKE_BASE_CPU_H_
