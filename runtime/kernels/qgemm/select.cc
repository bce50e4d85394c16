// Which kernels an instruction set has, and which algorithm a layer takes. Both are fixed at load, because weights are packed for them.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/choices.h"
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

// What decides a layer's time besides the size of its input.
std::string layer_key(const Geometry& g, const Weights& weights) {
  int32_t most = 0;
  for (int64_t i = 0; i < g.out_channels * g.kh * g.kw * g.in_per_group(); ++i) most = std::max(most, std::abs(static_cast<int32_t>(weights.w[i])));
  const int64_t facts[] = {g.in_channels, g.out_channels, g.groups, g.kh, g.kw, g.stride_h, g.stride_w, g.dil_h, g.dil_w, g.x_hi, g.x_zero, most};
  std::string key = "q";
  for (int64_t fact : facts) key += "_" + std::to_string(fact);
  return key;
}

// The way that is fastest as a rule.
std::string rule(const Geometry& g, const Weights& weights, const Kernels& kernels, const std::vector<std::string>& winograd) {
  if (depthwise_applies(g, kernels)) return "depthwise";
  if (winograd.empty()) return "tiles";
  // Narrow codes: the direct product is as fast as F(2x2) (152 against 156 GMAC/s at 256 channels) with a quarter of its memory.
  if (winograd[0] == "winograd2" && narrow_chain(g, weights, kernels) >= kLongChain) return "tiles";
  return winograd[0];
}

// Requant::bounded. A sum is below 2^31 in magnitude (GemmOp proves it), so the scaled value is below 2^31 * |mult| + |bias| + 255 * |r_mult|;
// half the range of int32 leaves room for the roundings of those operations.
bool bounded(const Requant& q, int64_t channels) {
  if (q.dyadic || q.out_f32) return false;
  const double residual = q.residual == Residual::kNone ? 0.0 : 255.0 * std::fabs(static_cast<double>(q.r_mult));
  bool all = true;
  for (int64_t c = 0; c < channels; ++c) {
    const double most = 2147483648.0 * std::fabs(static_cast<double>(q.mult[c])) + std::fabs(static_cast<double>(q.bias[c])) + residual;
    all = all && most < 1073741824.0;
  }
  return all;
}

}  // namespace

std::unique_ptr<Algorithm> Layer::make(const std::string& way, Isa isa) const {
  if (way == "depthwise") return make_depthwise();
  if (way == "bits") return make_bitserial(isa);
  return way == "tiles" ? make_gemm() : make_winograd(way);
}

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
  q_.bounded = bounded(q_, g_.out_channels);
  q_.packs_clamp = q_.bounded && q_.lo == 0 && q_.hi == 255;
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return error(Code::kUnsupported, "no integer kernels for %s in this build", isa_name(isa));
  key_ = layer_key(g_, weights);
  const std::vector<std::string> winograd = winograd_ways(g_, weights, *kernels);
  ways_ = {rule(g_, weights, *kernels, winograd)};
  if (ways_[0] != "depthwise") {
    if (ways_[0] != "tiles") ways_.push_back("tiles");
    for (const std::string& way : winograd) {
      if (way != ways_[0]) ways_.push_back(way);
    }
    if (bitserial_applies(g_, weights, q_)) ways_.push_back("bits");
  }
  const std::string choice = chosen(key_, ways_);
  algorithm_ = make(choice.empty() ? ways_[0] : choice, isa);
  return algorithm_->build(g_, weights, q_, *kernels, threads);
}

}  // namespace qgemm
}  // namespace netsuke
