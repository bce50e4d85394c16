// Which kernels an instruction set has, and which algorithm a layer takes. Both are fixed at load, because weights are packed for them.
#include "kernels/qgemm/gemm.h"

namespace netsuke {
namespace qgemm {

extern const Kernels kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kernels_x86_avx2, kernels_x86_avx512vnni;
#elif defined(__aarch64__)
extern const Kernels kernels_arm_neon, kernels_arm_neondot;
#endif

namespace {

constexpr int64_t kLongChain = 8;

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

Status Layer::build(const Geometry& geometry, const Weights& weights, const Requant& requant, Isa isa, int threads) {
  g_ = geometry;
  q_ = requant;
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return error(Code::kUnsupported, "no integer kernels for %s in this build", isa_name(isa));
  int winograd = winograd_applies(g_, weights, *kernels);
  // Narrow codes: the direct product is as fast as F(2x2) (152 against 156 GMAC/s at 256 channels) with a quarter of its memory.
  if (winograd == 2 && narrow_chain(g_, weights, *kernels) >= kLongChain) winograd = 0;
  algorithm_ = depthwise_applies(g_, *kernels) ? make_depthwise() : winograd > 0 ? make_winograd(winograd) : make_gemm();
  return algorithm_->build(g_, weights, q_, *kernels, threads);
}

}  // namespace qgemm
}  // namespace netsuke
