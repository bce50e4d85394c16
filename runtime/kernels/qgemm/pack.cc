// Building a Gemm: packing the weights into panels and folding the zero point into the accumulators' start.
#include <algorithm>
#include <cstring>

#include "kernels/qgemm/gemm.h"

namespace netsuke {
namespace qgemm {
namespace {

// One channel's run of k values into column n of a panel; dst is the run's first group, group is 2 or 4.
template <int kGroup>
void scatter(const int8_t* src, int64_t length, int64_t n, int64_t width, uint8_t* dst) {
  uint8_t* d = dst + n * kGroup;
  int64_t k = 0;
  for (; k + kGroup <= length; k += kGroup, d += width * kGroup) std::memcpy(d, src + k, kGroup);
  if (k < length) std::memcpy(d, src + k, static_cast<size_t>(length - k));
}

// Panels that hold several small groups side by side: 16 / out_per_group groups become one block-diagonal group. The zeros cost
// products, but those lanes would idle anyway, and one tile replaces several.
int64_t merged(const Geometry& g, int width) {
  if (g.groups == 1 || g.out_per_group() * 2 > width) return 1;
  int64_t best = 1;
  for (int64_t m = 1; m <= g.groups && m * g.out_per_group() <= width; ++m) {
    if (g.groups % m == 0) best = m;
  }
  return best;
}

// The set whose panels waste the fewest channels; the first row of kernels.inc wins ties. Sets of another layout than the first
// row's serve other algorithms.
const TileSet& choose_set(const Geometry& g, const Kernels& kernels) {
  const TileSet* best = &kernels.sets[0];
  for (int i = 1; i < kernels.n_sets; ++i) {
    const TileSet& set = kernels.sets[i];
    if (set.layout == best->layout && round_up(g.out_per_group(), set.width) < round_up(g.out_per_group(), best->width)) best = &set;
  }
  return *best;
}

// With one group a chain the tile needs as many multiplications as kS16x2, and more instructions.
constexpr int64_t kLeastChain = 2;

}  // namespace

// Lane i of vpmaddubsw adds 2 products, each at most hi * max|w| in magnitude; a chain adds `chain` of them.
int64_t narrow_chain(const Geometry& g, const Weights& weights, const Kernels& kernels) {
  if (kernels.narrow_set == nullptr) return 0;
  const int64_t count = g.out_channels * g.kh * g.kw * g.in_per_group();
  int32_t least = 0, most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t w = weights.w[i];
    least = w < least ? w : least;
    most = w > most ? w : most;
  }
  const int64_t product = int64_t{std::max(g.x_hi, g.x_zero)} * std::max(-least, most);
  const int64_t chain = product == 0 ? kMostChain : std::min<int64_t>(INT16_MAX / (2 * product), kMostChain);
  return chain >= kLeastChain ? chain : 0;
}

Status Gemm::build(const Geometry& geometry, const Weights& weights, const Requant& requant, const Kernels& kernels, int) {
  g_ = geometry;
  q_ = requant;
  kernels_ = &kernels;
  chain_ = narrow_chain(g_, weights, kernels);
  set_ = chain_ > 0 ? kernels.narrow_set : &choose_set(g_, kernels);
  const int64_t width = set_->width, merge = merged(g_, set_->width), group = group_of(set_->layout);
  super_groups_ = g_.groups / merge;
  c_ = g_.in_per_group() * merge;
  o_ = g_.out_per_group() * merge;
  row_runs_ = super_groups_ == 1 && g_.dil_w == 1;
  runs_ = row_runs_ ? g_.kh : g_.kh * g_.kw;
  run_length_ = row_runs_ ? g_.kw * c_ : c_;
  run_groups_ = ceil_div(run_length_, group);
  panels_ = ceil_div(o_, width);
  panel_bytes_ = runs_ * run_groups_ * width * group;
  int64_t bytes = 0;
  if (!checked_mul(panel_bytes_, super_groups_ * panels_, &bytes)) return error(Code::kOutOfMemory, "the packed weights are too large");
  NETSUKE_TRY(packed_.allocate(static_cast<size_t>(bytes)));
  std::memset(packed_.data(), 0, static_cast<size_t>(bytes));
  init_.assign(static_cast<size_t>(super_groups_ * panels_ * width), 0);
  pack(weights, merge);
  return Status();
}

void Gemm::pack(const Weights& weights, int64_t merge) {
  const int64_t width = set_->width, group = group_of(set_->layout);
  const uint32_t shift = static_cast<uint32_t>(zero_shift(set_->layout, g_.x_zero));
  const int64_t per_group_c = g_.in_per_group(), per_group_o = g_.out_per_group(), taps = row_runs_ ? g_.kw : 1;
  const int64_t run_bytes = run_groups_ * width * group;
  std::vector<int8_t> run(static_cast<size_t>(run_length_));
  for (int64_t o = 0; o < g_.out_channels; ++o) {
    const int64_t super = o / o_, local = o % o_, panel = local / width, column = local % width;
    const int64_t first = (o / per_group_o) * per_group_c - super * c_;  // this group's first channel inside the super group
    uint8_t* dst = packed_.data() + (super * panels_ + panel) * panel_bytes_;
    const int8_t* src = weights.w + o * g_.kh * g_.kw * per_group_c;
    uint32_t sum = 0;
    for (int64_t k = 0; k < g_.kh * g_.kw * per_group_c; ++k) sum += static_cast<uint32_t>(static_cast<int32_t>(src[k]));
    for (int64_t r = 0; r < runs_; ++r) {
      const int8_t* tap = src + r * taps * per_group_c;
      if (merge > 1) {  // this group's channels among the zeros of its neighbours
        std::fill(run.begin(), run.end(), 0);
        for (int64_t t = 0; t < taps; ++t) {
          std::memcpy(run.data() + t * c_ + first, tap + t * per_group_c, static_cast<size_t>(per_group_c));
        }
        tap = run.data();
      }
      if (group == 2) {
        scatter<2>(tap, run_length_, column, width, dst + r * run_bytes);
      } else {
        scatter<4>(tap, run_length_, column, width, dst + r * run_bytes);
      }
    }
    const uint32_t start = weights.acc_bias ? static_cast<uint32_t>(weights.acc_bias[o]) : 0u;
    init_[static_cast<size_t>((super * panels_ + panel) * width + column)] = static_cast<int32_t>(start - shift * sum);
  }
}

}  // namespace qgemm
}  // namespace netsuke
