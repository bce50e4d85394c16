// The weight gradient through the exact Winograd of winograd.cc: F(3x3, 4x4), tiles of dY for windows, in spans of tiles whose sums are exact.
#include <algorithm>
#include <cstring>

#include "train/winograd.h"

namespace netsuke {
namespace train {

namespace {

constexpr int64_t kInt32 = 2147483647;
constexpr int64_t kSpan = 256;  // tiles of one visit of the weight gradient: operands stay in the caches

}  // namespace

// Ends of the spans of tiles whose sums stay below 2^25: as many strips (rows of tiles of one image) as max|x| times what dY sums up to, or
// so few tiles that any dY does.
std::vector<int64_t> Trainer::spans_of_tiles(const Conv& c, const Codes& x, const Codes& g) {
  const int64_t oh = c.oh(), ow = c.ow(), th = (oh + 3) / 4, tw = (ow + 3) / 4, tiles = c.n * th * tw, strips = c.n * th;
  const int64_t product = std::max<int64_t>(1, x.top() * g.top()), limit = c.stride_h == 1 ? kExact : kExactTwo;
  const int64_t most = std::min(kSpan, (limit - 1) / (16 * product) / 2 * 2);
  std::vector<int64_t> ends;
  if (most == kSpan || tiles <= most || tw > kSpan) {
    for (int64_t end = most; end < tiles; end += most) ends.push_back(end);
    ends.push_back(tiles);
    return ends;
  }
  std::vector<uint32_t> sums(static_cast<size_t>(strips * c.o), 0);
  pool_.parallel_for(strips, [&](int64_t strip, int) {
    const int64_t row = strip / th * oh + strip % th * 4, rows = std::min<int64_t>(4, oh - strip % th * 4);
    const auto* from = static_cast<const uint8_t*>(g.data) + row * ow * c.o;
    table_.norm.distance(from, rows * ow, c.o, static_cast<uint8_t>(g.zero), sums.data() + strip * c.o);
  });
  std::vector<uint32_t> held(static_cast<size_t>(c.o), 0), with(held);
  int64_t begin = 0;
  for (int64_t strip = 0; strip < strips; ++strip) {
    uint32_t largest = 0, alone = 0;
    for (int64_t o = 0; o < c.o; ++o) {
      const auto at = static_cast<size_t>(o);
      const uint32_t one = sums[static_cast<size_t>(strip * c.o + o)];
      with[at] = held[at] + one;
      largest = std::max(largest, with[at]);
      alone = std::max(alone, one);
    }
    const int64_t here = strip * tw;
    if (here > begin && (here + tw - begin > kSpan || largest * x.top() >= limit)) {
      ends.push_back(here);
      begin = here;
      with.assign(sums.begin() + strip * c.o, sums.begin() + (strip + 1) * c.o);
    }
    held.swap(with);
    if (alone * x.top() < limit) continue;
    for (int64_t end = here + most; end < here + tw; end += most) ends.push_back(end);
    ends.push_back(begin = here + tw);
    std::fill(held.begin(), held.end(), 0);
  }
  if (begin < tiles) ends.push_back(tiles);
  return ends;
}

namespace {

// What a pass over the spans needs: operands of one span, sums of one block of windows, int64 totals over spans. A worker that takes whole
// spans has its own of each.
struct Workspace {
  uint32_t *a, *b;  // [position][panel][pair][16 channels of two tiles]
  int32_t* m;       // [position][16][2 * 16]
  int64_t* total;   // [o][tap][c]
};

struct WeightPass {
  const Conv& c;
  const Codes &x, &g;
  const Table& table;
  const Winograd& kernels;
  std::vector<WinogradPhase> phases;
  int side, points, positions;
  int64_t pairs, sources, a_panels, b_panels, blocks, a_position, b_position, m_position;
  const uint8_t *zero_x, *zero_g;
  bool several;
  const float* mult;
  float* dw;

  // Two tiles of x and of dY, from tile t0 + 2 * pair of a span of `count` on.
  void transform(const Workspace& to, int64_t t0, int64_t count, int64_t pair) const {
    const auto* xs = static_cast<const uint8_t*>(x.data);
    const auto* gs = static_cast<const uint8_t*>(g.data);
    const int64_t oh = c.oh(), ow = c.ow(), th = (oh + 3) / 4, tw = (ow + 3) / 4;
    const uint8_t* in[2][36];
    const uint8_t* out[2][16];
    for (int64_t s = 0; s < sources; ++s) {
      const WinogradPhase& phase = phases[static_cast<size_t>(s)];
      for (int i = 0; i < 2; ++i) {
        const int64_t t = t0 + 2 * pair + i, tx = t % tw, ty = t / tw % th, n = t / tw / th;
        if (t >= t0 + count) {
          std::fill(in[i], in[i] + positions, zero_x);
          std::fill(out[i], out[i] + 16, zero_g);
          continue;
        }
        const int64_t y0 = 4 * c.stride_h * ty + phase.y, x0 = 4 * c.stride_w * tx + phase.x;
        addresses(points, xs + n * c.h * c.w * c.c, c.h, c.w, c.c, c.stride_h, y0, x0, zero_x, in[i]);
        addresses(4, gs + n * oh * ow * c.o, oh, ow, c.o, 1, 4 * ty, 4 * tx, zero_g, out[i]);
      }
      kernels.input_pairs({in[0], in[1], c.c, static_cast<uint8_t>(x.zero), {1, 1}, to.b + (s * b_panels * pairs + pair) * kWidth, b_position, pairs * kWidth});
    }
    kernels.gradient_pairs({out[0], out[1], c.o, static_cast<uint8_t>(g.zero), {1, 1}, to.a + pair * kWidth, a_position, pairs * kWidth});
  }

  int64_t tasks() const { return a_panels * sources * blocks; }

  // One panel of outputs, one phase and two panels of inputs of a span: added to the totals, or to dW where the span is all there is.
  void multiply(const Workspace& in, int64_t count, bool first, int64_t task) const {
    const int64_t pa = task / blocks / sources, source = task / blocks % sources, pb = task % blocks * kPair;
    const int64_t together = std::min<int64_t>(kPair, b_panels - pb);
    const auto groups = static_cast<int32_t>((count + 1) / 2);
    for (int at = 0; at < positions; ++at) {
      size_t begin, end;
      phases_at(phases, side, at, &begin, &end);
      if (static_cast<size_t>(source) < begin || static_cast<size_t>(source) >= end) {
        memset(in.m + at * m_position, 0, kPair * kWidth * kWidth * 4);
        continue;
      }
      const auto* rows_a = reinterpret_cast<const uint8_t*>(in.a + at * a_position + pa * pairs * kWidth);
      const uint8_t* row[kWidth];
      for (int i = 0; i < kWidth; ++i) row[i] = rows_a + 4 * i;
      const auto* panel_b = reinterpret_cast<const uint8_t*>(in.b + at * b_position + (source * b_panels + pb) * pairs * kWidth);
      multiply_pair(table, row, 0, kWidth, groups, kGroupBytes, panel_b, pairs * kGroupBytes, together, in.m + at * m_position);
    }
    for (int64_t p = 0; p < together; ++p) {
      for (int64_t i = 0; i < kWidth; ++i) {
        alignas(64) int32_t window[9 * kWidth];
        kernels.window(in.m + i * kPair * kWidth + p * kWidth, m_position, window);
        for (int t = 0; t < side * side; ++t) {
          const int tap = phases[static_cast<size_t>(source)].taps[t];
          const int64_t o = pa * kWidth + i, to = (o * 9 + tap) * c.c + (pb + p) * kWidth;
          if (tap >= 0) keep(in, window + t * kWidth, o, to, first);
        }
      }
    }
  }

  void keep(const Workspace& in, const int32_t* sum, int64_t o, int64_t to, bool first) const {
    if (several && first) memset(in.total + to, 0, kWidth * sizeof(int64_t));
    if (several) return kernels.add(sum, in.total + to);
    for (int64_t k = 0; k < kWidth; ++k) dw[to + k] = static_cast<float>(sum[k]) * mult[o];
  }
};

// Threads that take whole spans, each with totals of its own, hand no operands to each other: 64 channels of 32x32 take 4.4 instead of 5.0 ms
// with two (Zen 5). Totals that leave the caches, or spans too few for every thread, cost more than that.
bool takes_spans(size_t spans, int64_t threads, int64_t total_bytes) {
  return threads > 1 && static_cast<int64_t>(spans) >= 2 * threads && total_bytes <= int64_t{3} << 19;
}

}  // namespace

Status Trainer::winograd_weights(const Conv& c, const Codes& x, const Codes& g, const float* mult, float* dw) {
  const int side = c.stride_h == 1 ? 3 : 2, points = side + 3, positions = points * points;
  const std::vector<int64_t> ends = spans_of_tiles(c, x, g);
  int64_t span = 0;
  for (size_t i = 0; i < ends.size(); ++i) span = std::max(span, ends[i] - (i == 0 ? 0 : ends[i - 1]));
  const std::vector<uint8_t> zero_x(static_cast<size_t>(c.c), static_cast<uint8_t>(x.zero)), zero_g(static_cast<size_t>(c.o), static_cast<uint8_t>(g.zero));
  std::vector<WinogradPhase> phases = phases_of(c);
  const int64_t pairs = (span + 1) / 2 | 1, sources = static_cast<int64_t>(phases.size()), a_panels = c.o / kWidth, b_panels = c.c / kWidth;
  const WeightPass pass = {c, x, g, table_, side == 3 ? table_.winograd : table_.winograd_two, std::move(phases), side, points, positions, pairs, sources,
                           a_panels, b_panels, (b_panels + kPair - 1) / kPair, (a_panels * pairs + 1) * kWidth, (sources * b_panels * pairs + 1) * kWidth,
                           kPair * kWidth * kWidth + kLine / 4, zero_x.data(), zero_g.data(), ends.size() > 1, mult, dw};
  const int64_t threads = pool_.threads(), totals = c.o * 9 * c.c;
  const bool alone = takes_spans(ends.size(), threads, totals * 8);
  const int64_t workers = alone ? threads : 1;
  const int64_t a_bytes = positions * pass.a_position * 4 + kSlackBytes, b_bytes = positions * pass.b_position * 4 + kSlackBytes;
  NETSUKE_TRY(reserve(&a_, workers * a_bytes));
  NETSUKE_TRY(reserve(&b_, workers * b_bytes));
  NETSUKE_TRY(reserve(&sums_, threads * positions * pass.m_position * 4));
  NETSUKE_TRY(reserve(&wide_, std::max<int64_t>(64, pass.several ? workers * totals * 8 : 0)));
  auto* total = reinterpret_cast<int64_t*>(wide_.data());
  const auto workspace = [&](int64_t worker, int64_t thread) {
    return Workspace{reinterpret_cast<uint32_t*>(a_.data() + worker * a_bytes), reinterpret_cast<uint32_t*>(b_.data() + worker * b_bytes),
                     reinterpret_cast<int32_t*>(sums_.data()) + thread * positions * pass.m_position, total + worker * totals};
  };
  const Stopwatch watch(&tiles_ns_);
  pool_.parallel_for(alone ? workers : 0, [&](int64_t worker, int) {
    const Workspace mine = workspace(worker, worker);
    for (auto visit = static_cast<size_t>(worker); visit < ends.size(); visit += static_cast<size_t>(workers)) {
      const int64_t t0 = visit == 0 ? 0 : ends[visit - 1], count = ends[visit] - t0;
      for (int64_t pair = 0; pair < (count + 1) / 2; ++pair) pass.transform(mine, t0, count, pair);
      for (int64_t task = 0; task < pass.tasks(); ++task) pass.multiply(mine, count, visit == static_cast<size_t>(worker), task);
    }
  });
  for (size_t visit = 0; !alone && visit < ends.size(); ++visit) {
    const int64_t t0 = visit == 0 ? 0 : ends[visit - 1], count = ends[visit] - t0;
    pool_.parallel_for((count + 1) / 2, [&](int64_t pair, int thread) { pass.transform(workspace(0, thread), t0, count, pair); });
    pool_.parallel_for(pass.tasks(), [&](int64_t task, int thread) { pass.multiply(workspace(0, thread), count, visit == 0, task); });
  }
  if (!pass.several) return Status();
  const bool small = c.n * c.oh() * c.ow() <= kInt32 / std::max<int64_t>(1, x.top() * g.top());  // totals fit 32 bits, which convert faster
  pool_.parallel_for(c.o, [&](int64_t o, int) {
    for (int64_t at = o * 9 * c.c; at < (o + 1) * 9 * c.c; ++at) {
      int64_t sum = total[at];
      for (int64_t worker = 1; worker < workers; ++worker) sum += total[worker * totals + at];
      dw[at] = (small ? static_cast<float>(static_cast<int32_t>(sum)) : static_cast<float>(sum)) * mult[o];
    }
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
