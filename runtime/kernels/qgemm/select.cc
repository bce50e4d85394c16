// Which kernels an instruction set has. The lists themselves are in kernels.inc; a tile set is packed for at load, so the choice is
// made once a layer (Layer::build).
#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {

extern const Kernels kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kernels_x86_avx2, kernels_x86_avx512vnni;
#elif defined(__aarch64__)
extern const Kernels kernels_arm_neon, kernels_arm_neondot;
#endif

namespace {

const Kernels* g_override = nullptr;
Isa g_override_isa = Isa::kPortable;

}  // namespace

void override_kernels_for_test(Isa isa, const Kernels* kernels) {
  g_override = kernels;
  g_override_isa = isa;
}

const Kernels* kernels_of(Isa isa) {
  if (g_override != nullptr && g_override_isa == isa) return g_override;
  switch (isa) {
    case Isa::kPortable: return &kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
    case Isa::kAvx2: return &kernels_x86_avx2;
    case Isa::kAvx512Vnni: return &kernels_x86_avx512vnni;
#elif defined(__aarch64__)
    case Isa::kNeon: return &kernels_arm_neon;
    case Isa::kNeonDot: return &kernels_arm_neondot;
#endif
    default: return nullptr;
  }
}

}  // namespace qgemm
}  // namespace netsuke
