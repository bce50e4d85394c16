// Random layers for the tests of this folder: every kernel of an instruction set against reference.cc, bit for bit.
#ifndef NETSUKE_KERNELS_QGEMM_TEST_CASES_H_
#define NETSUKE_KERNELS_QGEMM_TEST_CASES_H_

#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/check.h"
#include "base/choices.h"
#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {

struct Case {
  Geometry g;
  Extent e;
  Requant q;
  std::vector<int8_t> w;
  std::vector<int32_t> acc_bias, m, exponent;
  std::vector<float> mult, bias;
  std::vector<uint8_t> x, r_u8;
  std::vector<float> r_f32;
  bool with_acc_bias = false;
};

class Cases {
 public:
  explicit Cases(uint32_t seed) : rng_(seed) {}
  int64_t pick(int64_t lo, int64_t hi) { return lo + static_cast<int64_t>(rng_() % static_cast<uint64_t>(hi - lo + 1)); }
  bool one_in(int n) { return pick(1, n) == 1; }

  // Any layer: strides above the kernel, huge pads, dilation, groups, depthwise, 1x1 images, batches, odd channel counts.
  Case random() {
    Case c;
    Geometry& g = c.g;
    const int kind = static_cast<int>(pick(0, 5));
    const int64_t few = one_in(3) ? 70 : 20;
    g.groups = kind == 0 ? pick(1, 40) : kind == 1 ? pick(2, 6) : 1;
    const int64_t per_in = kind == 0 ? (one_in(4) ? 2 : 1) : pick(1, few), per_out = kind == 0 ? (one_in(4) ? 2 : 1) : pick(1, few);
    g.in_channels = g.groups * per_in;
    g.out_channels = g.groups * per_out;
    if (kind == 2) {  // pointwise
      g.kh = g.kw = 1;
      g.stride_h = g.stride_w = one_in(3) ? 2 : 1;
    } else {
      g.kh = one_in(2) ? 3 : pick(1, 7);
      g.kw = one_in(2) ? g.kh : pick(1, 7);
      g.stride_h = one_in(2) ? 1 : pick(1, 4);
      g.stride_w = one_in(2) ? g.stride_h : pick(1, 4);
      g.dil_h = one_in(4) ? pick(1, 3) : 1;
      g.dil_w = one_in(4) ? pick(1, 3) : 1;
      const int64_t most = one_in(10) ? 20 : 3;
      g.pad_top = pick(0, most);
      g.pad_left = pick(0, most);
      g.pad_bottom = pick(0, most);
      g.pad_right = pick(0, most);
    }
    c.e.n = one_in(4) ? pick(0, 3) : 1;
    do {
      c.e.h = one_in(4) ? 1 : pick(1, 14);
      c.e.w = one_in(4) ? 1 : pick(1, 14);
      if (one_in(20)) c.e.w = pick(100, 300);
    } while (!output_extent(g, &c.e).ok() && (g.pad_top++, g.pad_left++, true));
    fill(&c);
    return c;
  }

  // A 3x3 stride 1 layer, the shape with a kernel of its own.
  Case square3() {
    Case c;
    Geometry& g = c.g;
    g.kh = g.kw = 3;
    const bool deep = one_in(10);  // with extreme weights too large a sum for F(4x4)
    g.in_channels = deep ? pick(300, 330) : one_in(3) ? 8 * pick(1, 12) : pick(1, 50);
    g.out_channels = deep ? pick(16, 40) : one_in(3) ? 8 * pick(1, 12) : pick(1, 50);
    g.pad_top = pick(0, 2);
    g.pad_left = pick(0, 2);
    g.pad_bottom = pick(0, 2);
    g.pad_right = pick(0, 2);
    c.e.n = one_in(4) ? 2 : 1;
    const int64_t most = deep ? 6 : one_in(8) ? 46 : 20;  // many blocks of Winograd tiles for a thread
    c.e.h = pick(3, most);
    c.e.w = pick(3, most);
    CHECK_OK(output_extent(g, &c.e));
    fill(&c);
    return c;
  }

  Case depthwise() {
    Case c;
    Geometry& g = c.g;
    g.groups = g.in_channels = g.out_channels = one_in(2) ? 8 * pick(1, 20) : pick(1, 130);
    g.kh = one_in(2) ? 3 : pick(1, 7);
    g.kw = one_in(4) ? pick(1, 7) : g.kh;
    g.stride_h = pick(1, 2);
    g.stride_w = one_in(4) ? pick(1, 3) : g.stride_h;
    g.dil_h = g.dil_w = one_in(4) ? 2 : 1;
    g.pad_top = pick(0, 3);
    g.pad_left = pick(0, 3);
    g.pad_bottom = pick(0, 3);
    g.pad_right = pick(0, 3);
    c.e.n = one_in(4) ? 2 : 1;
    c.e.h = pick(13, 20);
    c.e.w = pick(13, 40);
    CHECK_OK(output_extent(g, &c.e));
    fill(&c);
    return c;
  }

  // Codes of fewer bits, mostly at their extremes: sums of 16 bits must be exact where the layer's proof just allows them.
  void narrow(Case* c) {
    const int weight_bits = static_cast<int>(pick(2, 8)), bits = static_cast<int>(pick(2, 8)), style = static_cast<int>(pick(0, 3));
    const int64_t most = (1 << (weight_bits - 1)) - 1;
    c->g.x_hi = (1 << bits) - 1;
    c->g.x_zero = static_cast<int32_t>(one_in(2) ? 0 : pick(0, c->g.x_hi));
    for (int8_t& v : c->w) v = static_cast<int8_t>(style == 0 ? most : style == 1 ? -most : style == 2 ? (one_in(2) ? most : -most) : pick(-most, most));
    const bool full = one_in(2);
    for (uint8_t& v : c->x) v = static_cast<uint8_t>(full ? c->g.x_hi : one_in(2) ? c->g.x_hi : pick(0, c->g.x_hi));
  }

  void fill(Case* c) {
    const Geometry& g = c->g;
    const int weights = static_cast<int>(pick(0, 3));  // full range, extremes only, bell-shaped, small
    c->w.resize(static_cast<size_t>(g.out_channels * g.kh * g.kw * g.in_per_group()));
    std::normal_distribution<float> bell(0.0f, 25.0f);
    for (int8_t& v : c->w) {
      if (weights == 0) v = static_cast<int8_t>(pick(-128, 127));
      if (weights == 1) v = static_cast<int8_t>(one_in(2) ? 127 : one_in(3) ? -128 : -127);
      if (weights == 2) v = static_cast<int8_t>(std::max(-127.0f, std::min(127.0f, bell(rng_))));
      if (weights == 3) v = static_cast<int8_t>(pick(-8, 7));
    }
    c->g.x_zero = static_cast<int32_t>(one_in(3) ? 0 : one_in(3) ? 255 : pick(0, 255));
    const bool extreme = one_in(4);
    c->x.resize(static_cast<size_t>(c->e.n * c->e.h * c->e.w * g.in_channels));
    for (uint8_t& v : c->x) v = static_cast<uint8_t>(extreme ? (one_in(2) ? 255 : 0) : pick(0, 255));
    c->with_acc_bias = one_in(3);
    c->acc_bias.resize(static_cast<size_t>(g.out_channels));
    for (int32_t& v : c->acc_bias) v = static_cast<int32_t>(pick(-100000, 100000));
    fill_requant(c);
  }

  void fill_requant(Case* c) {
    Requant& q = c->q;
    const size_t channels = static_cast<size_t>(c->g.out_channels), padded = (channels / kChannelPad + 2) * kChannelPad;
    q.dyadic = one_in(4);
    q.out_f32 = !q.dyadic && one_in(3);
    if (one_in(2)) q.residual = q.out_f32 ? Residual::kF32 : Residual::kU8;
    q.zero = static_cast<int32_t>(one_in(3) ? 0 : pick(0, 255));  // 0 with ReLU has an epilogue of its own
    q.lo = one_in(2) ? q.zero : 0;
    q.hi = one_in(2) ? 255 : static_cast<int32_t>(pick(q.lo, 255));
    q.code_lo = static_cast<float>(q.lo - q.zero);
    q.code_hi = static_cast<float>(q.hi - q.zero);
    q.has_flo = one_in(2);
    q.has_fhi = one_in(2);
    q.flo = -1.5f;
    q.fhi = 6.0f;
    q.r_zero = static_cast<int32_t>(pick(0, 255));
    std::uniform_real_distribution<float> unit(0.0f, 1.0f);
    q.r_mult = unit(rng_);
    q.r_m = static_cast<int32_t>(pick(1 << 30, 0x7fffffff));
    q.r_e = static_cast<int32_t>(pick(28, 33));
    const float typical = 255.0f / (2000.0f * static_cast<float>(c->w.size() / channels) + 1.0f);
    for (size_t i = 0; i < padded; ++i) {
      const bool inside = i < channels;
      c->mult.push_back(inside ? typical * unit(rng_) * (one_in(30) ? -1.0f : 1.0f) : 0.0f);
      c->bias.push_back(inside ? 200.0f * unit(rng_) - 100.0f : -0.0f);
      c->m.push_back(inside ? (one_in(20) ? 0 : static_cast<int32_t>(pick(1 << 30, 0x7fffffff))) : 0);
      c->exponent.push_back(inside ? static_cast<int32_t>(one_in(8) ? pick(1, 62) : pick(36, 46)) : 1);
    }
    if (one_in(4)) std::fill(c->bias.begin(), c->bias.end(), -0.0f);
    if (one_in(20)) std::fill(c->mult.begin(), c->mult.begin() + static_cast<long>(channels), one_in(2) ? 1e35f : -1e35f);  // overflows
    // Codes beyond 16 bits, still within what packs_clamp allows: only saturation keeps them.
    if (one_in(6)) std::fill(c->mult.begin(), c->mult.begin() + static_cast<long>(channels), one_in(3) ? -0.37f : 0.37f);
    // Halves: mult 0.5 makes every odd sum a tie.
    if (one_in(4)) std::fill(c->mult.begin(), c->mult.begin() + static_cast<long>(channels), 0.5f);
    const size_t outputs = static_cast<size_t>(c->e.n * c->e.oh * c->e.ow) * channels;
    c->r_u8.resize(outputs);
    c->r_f32.resize(outputs);
    for (size_t i = 0; i < outputs; ++i) {
      c->r_u8[i] = static_cast<uint8_t>(pick(0, 255));
      c->r_f32[i] = one_in(100) ? std::numeric_limits<float>::quiet_NaN() : 8.0f * unit(rng_) - 4.0f;
    }
  }

 private:
  std::mt19937 rng_;
};

inline void bind(Case* c) {
  c->q.mult = c->mult.data();
  c->q.bias = c->bias.data();
  c->q.m = c->m.data();
  c->q.e = c->exponent.data();
}

// Runs one case on one instruction set with a number of threads and compares every byte, including the guard behind the output.
inline bool check_case(Case* c, Isa isa, int threads) {
  bind(c);
  Weights weights;
  weights.w = c->w.data();
  weights.acc_bias = c->with_acc_bias ? c->acc_bias.data() : nullptr;
  const size_t outputs = c->r_u8.size(), bytes = outputs * (c->q.out_f32 ? 4 : 1);
  const void* residual = c->q.residual == Residual::kNone ? nullptr : c->q.out_f32 ? static_cast<void*>(c->r_f32.data()) : c->r_u8.data();
  std::vector<float> want(outputs + 16), got(outputs + 16);  // float storage: aligned for both output types
  std::memset(want.data(), 0x5a, want.size() * 4);
  std::memset(got.data(), 0x5a, got.size() * 4);
  reference(c->g, weights, c->q, c->e, c->x.data(), residual, want.data());
  Layer layer;
  Status status = layer.build(c->g, weights, c->q, isa, threads);
  if (!CHECK(status.ok())) return false;
  Buffer scratch;
  status = scratch.allocate(layer.scratch_bytes(c->e, threads));
  if (!CHECK(status.ok())) return false;
  std::memset(scratch.data(), 0xab, scratch.bytes());
  ThreadPool pool(threads);
  layer.run(c->e, c->x.data(), residual, got.data(), scratch.data(), pool);
  if (CHECK(std::memcmp(want.data(), got.data(), want.size() * 4) == 0)) return true;
  size_t at = 0;
  while (reinterpret_cast<uint8_t*>(want.data())[at] == reinterpret_cast<uint8_t*>(got.data())[at]) ++at;
  const Geometry& g = c->g;
  std::fprintf(stderr,
               "%s threads %d: byte %zu of %zu differs; x %lldx%lldx%lldx%lld zero %d, k %lldx%lld out %lld groups %lld strides %lld %lld "
               "dil %lld %lld pads %lld %lld %lld %lld dyadic %d f32 %d residual %d\n",
               layer.kernel_name().c_str(), threads, at, bytes, (long long)c->e.n, (long long)c->e.h, (long long)c->e.w,
               (long long)g.in_channels, g.x_zero, (long long)g.kh, (long long)g.kw, (long long)g.out_channels, (long long)g.groups,
               (long long)g.stride_h, (long long)g.stride_w, (long long)g.dil_h, (long long)g.dil_w, (long long)g.pad_top,
               (long long)g.pad_left, (long long)g.pad_bottom, (long long)g.pad_right, c->q.dyadic, c->q.out_f32, static_cast<int>(c->q.residual));
  return false;
}

inline void check_many(Isa isa, int count, uint32_t seed) {
  Cases cases(seed);
  for (int i = 0; i < count && check_failures() < 10; ++i) {
    Case c = i % 4 == 2 ? cases.square3() : i % 4 == 3 ? cases.depthwise() : cases.random();
    if (cases.one_in(3)) cases.narrow(&c);
    check_case(&c, isa, 1 + i % 3);
  }
}

// Activations of 1 to 4 bits against +-m or ternary weights, with the choice "bits" set: binary x 1 to 4 bits, ternary x 1 and 2 bits.
inline void check_bits(Isa isa, int count, uint32_t seed) {
  Cases cases(seed);
  int taken = 0;
  for (int i = 0; i < count && check_failures() < 10; ++i) {
    Case c = i % 2 == 0 ? cases.square3() : cases.random();
    const int bits = static_cast<int>(cases.pick(1, 4));
    const int64_t magnitude = cases.one_in(3) ? cases.pick(1, 127) : 1;
    const bool ternary = bits <= 2 && cases.one_in(2);
    c.g.x_hi = (1 << bits) - 1;
    c.g.x_zero = static_cast<int32_t>(cases.one_in(2) ? 0 : cases.pick(0, c.g.x_hi));
    for (int8_t& v : c.w) v = static_cast<int8_t>((ternary ? cases.pick(-1, 1) : cases.one_in(2) ? 1 : -1) * magnitude);
    const bool full = cases.one_in(4);
    for (uint8_t& v : c.x) v = static_cast<uint8_t>(full ? c.g.x_hi : cases.pick(0, c.g.x_hi));
    bind(&c);
    Weights weights;
    weights.w = c.w.data();
    Layer layer;
    if (!CHECK(layer.build(c.g, weights, c.q, isa, 1).ok())) return;
    taken += layer.kernel_name().find("_bits") != std::string::npos;
    check_case(&c, isa, 1 + i % 3);
  }
  CHECK(taken > count / 8);
}

// F(2x2) over 8-bit lanes, codes and weights at the edges of what fits: codes to 63 and weights to +-14 always, 15 by the weights' signs.
// F(3x3): codes to 7 and weights of +-1, 2 by their signs.
inline void check_narrow_winograd(int out, Isa isa, int count, uint32_t seed) {
  Cases cases(seed);
  const int64_t hi = out == 2 ? 63 : 7, w_most = out == 2 ? 14 : 1;
  const std::string way = "winograd" + std::to_string(out) + "_narrow";
  set_choices({{"*", way}});
  int taken = 0;
  for (int i = 0; i < count && check_failures() < 10; ++i) {
    Case c = cases.square3();
    const int64_t most = cases.one_in(2) ? w_most : cases.pick(1, w_most + 1), style = cases.pick(0, 3);
    c.g.x_hi = static_cast<int32_t>(cases.one_in(2) ? hi : cases.pick(1, hi + 1));
    c.g.x_zero = static_cast<int32_t>(cases.one_in(2) ? 0 : cases.pick(0, c.g.x_hi));
    for (int8_t& v : c.w) v = static_cast<int8_t>(style == 0 ? most : style == 1 ? -most : style == 2 ? (cases.one_in(2) ? most : -most) : cases.pick(-most, most));
    const bool corners = cases.one_in(2);  // all V at their extremes
    for (uint8_t& v : c.x) v = static_cast<uint8_t>(corners ? (cases.one_in(2) ? c.g.x_hi : 0) : cases.pick(0, c.g.x_hi));
    bind(&c);
    Weights weights;
    weights.w = c.w.data();
    Layer layer;
    if (!CHECK(layer.build(c.g, weights, c.q, isa, 1).ok())) return;
    const bool narrow = layer.kernel_name().find("_" + way + "_") != std::string::npos;
    taken += narrow;
    if (c.g.x_hi > hi || (most > w_most && style < 2)) CHECK(!narrow);
    check_case(&c, isa, 1 + i % 3);
  }
  CHECK(taken > count / 2);
}

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_TEST_CASES_H_
