// Products of wide codes by vpmaddubsw (picked.h): what a panel holds, that no lane can overflow, and layers with the inputs that come
// nearest to it, bit for bit.
#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/qgemm/test_cases.h"

namespace netsuke {
namespace qgemm {
namespace {

enum class Bell { kNarrow, kTrained, kNormal, kExtremes, kSparse };

// Codes of one layer, the largest of each output near 127 as per-channel scales make it.
std::vector<int8_t> bell_codes(Cases* cases, std::mt19937* rng, Bell kind, int64_t outputs, int64_t taps) {
  std::normal_distribution<float> bell(0.0f, kind == Bell::kNarrow ? 12.0f : kind == Bell::kTrained ? 25.0f : 45.0f);
  std::vector<int8_t> w(static_cast<size_t>(outputs * taps));
  for (int8_t& v : w) {
    v = static_cast<int8_t>(std::max(-128.0f, std::min(127.0f, std::round(bell(*rng)))));
    if (kind == Bell::kExtremes && cases->one_in(4)) v = cases->one_in(2) ? int8_t{127} : int8_t{-128};
    if (kind == Bell::kSparse && !cases->one_in(5)) v = 0;
  }
  return w;
}

struct Lanes {
  std::vector<int> times;  // how often each weight was found
  int64_t worst = 0;       // a bound that is broken: 1 a pair, 2 a plain lane, 3 an offset lane, 4 a weight or window that is wrong
};

int32_t magnitude(int32_t w, int sign) { return w * sign > 0 ? w * sign : 0; }

// One output's lane of a unit: its channels are marked, its sums compared with the bounds.
void read_lane(const PickedPanel& p, const uint8_t* unit, const PickedAt& at, bool offset, const int8_t* run, int o, int lane, Lanes* found) {
  int32_t up = 0, down = 0;
  for (int group = 0; group < 2; ++group) {
    int32_t pair_up = 0, pair_down = 0;
    for (int i = 0; i < 2; ++i) {
      const int byte = 2 * lane + i, w = static_cast<int8_t>(unit[64 * group + 32 * (o / 8) + 4 * (o % 8) + byte]);
      const uint32_t pick = at.pick[group] >> (8 * byte) & 0xff;
      if (pick >= 16) {
        if (w != 0 || pick < 128) found->worst = 4;
        continue;
      }
      const int64_t k = at.window + static_cast<int64_t>(pick);
      if (k >= p.run_length || (o < p.columns ? run[o * p.runs * p.run_length + k] : 0) != w) found->worst = 4;
      if (o < p.columns) ++found->times[static_cast<size_t>(run - p.w + o * p.runs * p.run_length + k)];
      pair_up += magnitude(w, 1);
      pair_down += magnitude(w, -1);
    }
    if (p.hi * std::max(pair_up, pair_down) > 32767) found->worst = 1;
    up += pair_up;
    down += pair_down;
  }
  if (!offset && p.hi * std::max(up, down) > 32767) found->worst = 2;
  if (!offset) return;
  const int word = 2 * (o % 8) + lane;  // of the 16 that half o / 8 starts from
  const int c = 256 * static_cast<int8_t>(unit[kPickedPlain + 16 * (word / 8) + 8 * (o / 8) + word % 8]);
  if (p.hi * up + c > 32767 || -p.hi * down + c < -32768) found->worst = 3;
}

void check_panel(const Kernels& kernels, const PickedPanel& p, bool expected) {
  const int64_t bound = round_up(picked_bound(p.runs, p.run_length), 64);
  Buffer work;
  CHECK_OK(work.allocate(static_cast<size_t>(2 * bound + 64)));
  std::memset(work.data(), 0x5a, work.bytes());
  uint32_t lost[kPickedWidth];
  const PickedSize size = kernels.picked_pack(p, work.data(), work.data() + bound, lost);
  if (!CHECK((size.bytes > 0) == expected) || size.bytes == 0) return;
  CHECK(size.bytes <= bound && work.data()[2 * bound] == 0x5a);
  int64_t head = 0;
  std::memcpy(&head, work.data(), 8);
  const int32_t* counts = reinterpret_cast<const int32_t*>(work.data() + head);
  const PickedAt* at = reinterpret_cast<const PickedAt*>(counts + 2 * p.runs);
  const uint8_t* unit = work.data() + 64;
  Lanes found;
  found.times.assign(static_cast<size_t>(p.columns * p.runs * p.run_length), 0);
  for (int64_t r = 0; r < p.runs; ++r) {
    for (int i = 0; i < counts[2 * r] + counts[2 * r + 1]; ++i, ++at) {
      const bool offset = i >= counts[2 * r];
      CHECK(at->window >= 0 && at->window + kPickedWindow <= p.run_length);  // windows stay inside the run
      for (int o = 0; o < kPickedWidth; ++o) {
        for (int lane = 0; lane < 2; ++lane) read_lane(p, unit, *at, offset, p.w + r * p.run_length, o, lane, &found);
      }
      unit += offset ? kPickedOffset : kPickedPlain;
    }
  }
  CHECK(unit == work.data() + head);
  CHECK(found.worst == 0);
  bool once = true;
  for (size_t i = 0; i < found.times.size(); ++i) once = once && found.times[i] <= 1 && (found.times[i] == 1 || p.w[i] == 0);
  CHECK(once);
}

void check_panels(const Kernels& kernels) {
  Cases cases(11);
  std::mt19937 rng(12);
  for (int i = 0; i < 400; ++i) {
    PickedPanel p;
    p.columns = static_cast<int>(cases.one_in(2) ? 16 : cases.pick(1, 16));
    p.runs = cases.pick(1, 3);
    p.run_length = cases.one_in(2) ? 16 * cases.pick(1, 6) : cases.pick(16, 90);
    p.hi = static_cast<int32_t>(cases.one_in(2) ? 255 : cases.pick(2, 255));
    const std::vector<int8_t> w = bell_codes(&cases, &rng, static_cast<Bell>(i % 5), p.columns, p.runs * p.run_length);
    p.w = w.data();
    check_panel(kernels, p, true);
  }
  const std::vector<int8_t> w(16 * 15, 1);
  PickedPanel narrow;
  narrow.w = w.data();
  narrow.columns = 16;
  narrow.runs = 1;
  narrow.run_length = 15;
  check_panel(kernels, narrow, false);
}

// Every pixel drives one output as high or as low as it goes.
void drive(Case* c, Cases* cases) {
  const Geometry& g = c->g;
  const int64_t pixels = c->e.n * c->e.h * c->e.w, taps = g.kh * g.kw * g.in_channels;
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t o = cases->pick(0, g.out_channels - 1), tap = cases->pick(0, g.kh * g.kw - 1);
    const int sign = cases->one_in(2) ? 1 : -1;
    for (int64_t k = 0; k < g.in_channels; ++k) {
      const int w = c->w[static_cast<size_t>(o * taps + tap * g.in_channels + k)];
      c->x[static_cast<size_t>(i * g.in_channels + k)] = static_cast<uint8_t>(w * sign > 0 ? g.x_hi : 0);
    }
  }
}

bool is_picked(Case* c, Isa isa) {
  bind(c);
  Weights weights;
  weights.w = c->w.data();
  Layer layer;
  return layer.build(c->g, weights, c->q, isa, 1).ok() && layer.kernel_name().find("_picked") != std::string::npos;
}

void check_layers(Isa isa) {
  Cases cases(21);
  std::mt19937 rng(22);
  int picked = 0;
  for (int i = 0; i < 160 && check_failures() < 10; ++i) {
    Case c;
    Geometry& g = c.g;
    const bool spatial = cases.one_in(3);
    g.in_channels = spatial ? cases.pick(8, 30) : cases.pick(16, 300);
    g.out_channels = cases.pick(1, 50);
    g.kh = g.kw = spatial ? 3 : 1;
    g.stride_h = g.stride_w = cases.one_in(3) ? 2 : 1;
    g.dil_h = g.dil_w = spatial && cases.one_in(4) ? 2 : 1;
    g.pad_top = g.pad_left = g.pad_bottom = g.pad_right = spatial ? cases.pick(0, 2) : 0;
    c.e.n = cases.one_in(4) ? 2 : 1;
    c.e.h = cases.pick(5, 12);
    c.e.w = cases.pick(5, 12);
    CHECK_OK(output_extent(g, &c.e));
    cases.fill(&c);
    c.w = bell_codes(&cases, &rng, static_cast<Bell>(i % 5), g.out_channels, g.kh * g.kw * g.in_channels);
    g.x_hi = static_cast<int32_t>(cases.one_in(3) ? cases.pick(100, 255) : 255);
    g.x_zero = static_cast<int32_t>(cases.one_in(2) ? 0 : cases.pick(0, g.x_hi));
    drive(&c, &cases);
    picked += is_picked(&c, isa) ? 1 : 0;
    check_case(&c, isa, 1 + i % 3);
  }
  CHECK(picked > 80);  // or this test tests something else
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : compiled_isas()) {
    if (!isa_available(isa) || qgemm::kernels_of(isa)->picked_set == nullptr) continue;
    qgemm::check_panels(*qgemm::kernels_of(isa));
    qgemm::check_layers(isa);
    std::printf("%s: %d checks so far\n", isa_name(isa), check_count());
  }
  return check_count() == 0 ? 0 : check_result();  // only AVX2 has such tiles
}
