// Building a Gemm: packing the weights into panels and folding the zero point into the accumulators' start.
#include <algorithm>
#include <atomic>
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

// Nanoseconds a row and panel of 16 outputs on one Zen 3 core with everything in L1: an input code of kS16x2, a unit of kPicked.
constexpr double kDirectCost = 16 / 81.0, kPlainCost = 128 / 115.0, kOffsetCost = 128 / 98.0;
constexpr double kWorthIt = 0.97;
constexpr int64_t kPickedRoom = 4096;
constexpr int64_t kManyWeights = 1 << 17;  // of a layer that is packed by several threads: 0.4 ms of work, 30 us a thread

bool may_pick(const Geometry& g, const Kernels& kernels) {
  return kernels.picked_set != nullptr && g.groups == 1 && (g.dil_w == 1 ? g.kw : 1) * g.in_channels >= kPickedWindow;
}

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

Status Gemm::build(const Geometry& geometry, const Weights& weights, const Requant& requant, const Kernels& kernels, int threads) {
  g_ = geometry;
  q_ = requant;
  kernels_ = &kernels;
  chain_ = narrow_chain(g_, weights, kernels);
  if (chain_ == 0 && may_pick(g_, kernels)) {
    bool picked = false;
    NETSUKE_TRY(pick(weights, threads, &picked));
    if (picked) return Status();
  }
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
  NETSUKE_TRY(packed_.allocate_shared(static_cast<size_t>(bytes)));
  std::memset(packed_.data(), 0, static_cast<size_t>(bytes));
  init_.assign(static_cast<size_t>(super_groups_ * panels_ * width), 0);
  pack(weights, merge);
  return Status();
}

// Packs one panel into work and its part of init; size.bytes is 0 where it cannot be.
PickedSize Gemm::pick_panel(const Weights& weights, int64_t panel, uint8_t* work) {
  const int64_t taps = runs_ * run_length_;
  PickedPanel p;
  p.w = weights.w + panel * kPickedWidth * taps;
  p.columns = static_cast<int>(std::min<int64_t>(kPickedWidth, o_ - panel * kPickedWidth));
  p.runs = runs_;
  p.run_length = run_length_;
  p.hi = std::max(g_.x_hi, g_.x_zero);
  uint32_t lost[kPickedWidth];
  const PickedSize size = kernels_->picked_pack(p, work, work + round_up(picked_bound(runs_, run_length_), 64), lost);
  for (int column = 0; column < p.columns; ++column) {
    const int64_t o = panel * kPickedWidth + column;
    uint32_t sum = 0;
    for (int64_t k = 0; k < taps; ++k) sum += static_cast<uint32_t>(static_cast<int32_t>(weights.w[o * taps + k]));
    const uint32_t start = weights.acc_bias ? static_cast<uint32_t>(weights.acc_bias[o]) : 0u;
    init_[static_cast<size_t>(o)] = static_cast<int32_t>(start - static_cast<uint32_t>(g_.x_zero) * sum - lost[column]);
  }
  return size;
}

// Sets everything that kPicked needs, or leaves *picked false: a panel could not be packed, or the units are too many to be faster. The first
// panel decides early.
Status Gemm::pick(const Weights& weights, int threads, bool* picked) {
  c_ = g_.in_channels;
  o_ = g_.out_channels;
  row_runs_ = g_.dil_w == 1;
  runs_ = row_runs_ ? g_.kh : g_.kh * g_.kw;
  run_length_ = row_runs_ ? g_.kw * c_ : c_;
  run_groups_ = 0;
  panels_ = ceil_div(o_, kPickedWidth);
  super_groups_ = 1;
  init_.assign(static_cast<size_t>(panels_ * kPickedWidth), 0);
  const size_t work_bytes = static_cast<size_t>(2 * round_up(picked_bound(runs_, run_length_), 64));
  const double direct = kWorthIt * kDirectCost * static_cast<double>(runs_ * round_up(run_length_, 2));
  const auto cost = [](const PickedSize& s) { return kPlainCost * static_cast<double>(s.plain) + kOffsetCost * static_cast<double>(s.offset); };
  Buffer work;
  NETSUKE_TRY(work.allocate(work_bytes));
  const PickedSize first = pick_panel(weights, 0, work.data());
  if (first.bytes == 0 || cost(first) > direct) return Status();
  ThreadPool pool(o_ * runs_ * run_length_ >= kManyWeights ? static_cast<int>(std::min<int64_t>(threads, panels_)) : 1);
  NETSUKE_TRY(work.allocate(work_bytes * static_cast<size_t>(pool.threads())));
  // Panels are written behind each other as they come. How much room they need is a guess from the first one; where it does not do, the
  // second attempt knows.
  std::vector<PickedSize>& sizes = picked_sizes_;
  sizes.assign(static_cast<size_t>(panels_), PickedSize());
  picked_at_.assign(sizes.size(), 0);
  PickedSize all;
  int64_t room = first.bytes * panels_ + first.bytes * panels_ / 16 + kPickedRoom;
  for (bool again = true; again; room = all.bytes) {
    NETSUKE_TRY(packed_.allocate_shared(static_cast<size_t>(room)));
    std::atomic<int64_t> next{0};
    pool.parallel_for(panels_, [&](int64_t task, int thread) {
      const size_t panel = static_cast<size_t>(task);
      const uint8_t* from = work.data() + static_cast<size_t>(thread) * work_bytes;
      sizes[panel] = pick_panel(weights, task, work.data() + static_cast<size_t>(thread) * work_bytes);
      const int64_t at = next.fetch_add(sizes[panel].bytes), bytes = sizes[panel].bytes;
      picked_at_[panel] = at;
      if (at + bytes <= room) std::memcpy(packed_.data() + at, from, static_cast<size_t>(bytes));
    });
    again = next.load() > room;
    all = PickedSize();
    for (const PickedSize& s : sizes) {
      if (s.bytes == 0) return packed_.release(), Status();
      all.bytes += s.bytes;
      all.plain += s.plain;
      all.offset += s.offset;
    }
  }
  if (cost(all) > direct * static_cast<double>(panels_)) return packed_.release(), Status();
  set_ = kernels_->picked_set;
  picked_bytes_ = static_cast<size_t>(all.bytes);
  packed_.trim(picked_bytes_);
  picked_plain_ = static_cast<int>(100 * all.plain / std::max<int64_t>(all.plain + all.offset, 1));
  *picked = true;
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
