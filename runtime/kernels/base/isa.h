// Kernel tables, one per instruction set. A folder declares its table type, then NETSUKE_KERNEL_TABLES(Table, name): this
// declares name_portable, name_avx2 ... (each defined in the file of that instruction set) and name(isa), which picks one.
#ifndef NETSUKE_KERNELS_BASE_ISA_H_
#define NETSUKE_KERNELS_BASE_ISA_H_

#include "base/cpu.h"

#if defined(__x86_64__) || defined(_M_X64)
#define NETSUKE_KERNEL_TABLES(Table, name)                                           \
  extern const Table name##_portable, name##_avx2, name##_avx512vnni;                \
  inline const Table& name(Isa isa) {                                                \
    if (isa == Isa::kAvx512Vnni) return name##_avx512vnni;                           \
    return isa == Isa::kAvx2 ? name##_avx2 : name##_portable;                        \
  }
#elif defined(__aarch64__)
#define NETSUKE_KERNEL_TABLES(Table, name)                                           \
  extern const Table name##_portable, name##_neon;                                   \
  inline const Table& name(Isa isa) {                                                \
    return isa == Isa::kNeon || isa == Isa::kNeonDot ? name##_neon : name##_portable; \
  }
#else
#define NETSUKE_KERNEL_TABLES(Table, name) \
  extern const Table name##_portable;      \
  inline const Table& name(Isa) { return name##_portable; }
#endif

#endif  // NETSUKE_KERNELS_BASE_ISA_H_
