// Which kernels an instruction set has for one-bit products.
#include "kernels/bgemm/bgemm.h"

namespace netsuke {
namespace bgemm {

extern const Kernels kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kernels_x86_avx2, kernels_x86_avx512vpopcntdq;
#elif defined(__aarch64__)
extern const Kernels kernels_arm_neon;
#endif

namespace {

const Kernels* g_override = nullptr;

}  // namespace

void override_kernels_for_test(const Kernels* kernels) { g_override = kernels; }

// AVX-512 without VPOPCNTDQ (Cascade Lake) takes the AVX2 tables: its 512-bit byte shuffle has one port, so it would not be faster.
const Kernels& kernels_of(Isa isa, bool deep) {
  if (g_override != nullptr) return *g_override;
#if defined(__x86_64__) || defined(_M_X64)
  if (isa == Isa::kAvx512Vnni && cpu_features().avx512_vpopcntdq) return kernels_x86_avx512vpopcntdq;
  if (isa == Isa::kAvx512Vnni || isa == Isa::kAvx2) return deep ? kernels_portable : kernels_x86_avx2;
#elif defined(__aarch64__)
  if (isa == Isa::kNeon || isa == Isa::kNeonDot) return kernels_arm_neon;
#endif
  (void)isa;
  (void)deep;
  return kernels_portable;
}

}  // namespace bgemm
}  // namespace netsuke
