// conv against a plain double loop within a computed tolerance, and bit for bit between instruction sets and thread counts.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

#if defined(__x86_64__)
// The 16-lane kernel that AVX-512 uses, lowered to whatever this CPU has. Not for Arm, which never runs it and compiles it for minutes.
#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_NAME "wide"
#include "kernels/conv/depthwise.inc"
#endif

namespace {

using namespace netsuke;

struct Case {
  int64_t n, h, w, c, o, kh, kw, sh, sw, pad[4], dh, dw, groups;
};

std::string attrs_of(const Case& c, const char* more) {
  char text[300];
  std::snprintf(text, sizeof(text), "{\"strides\":[%d,%d],\"pads\":[%d,%d,%d,%d],\"dilations\":[%d,%d],\"groups\":%d%s}", (int)c.sh, (int)c.sw,
                (int)c.pad[0], (int)c.pad[1], (int)c.pad[2], (int)c.pad[3], (int)c.dh, (int)c.dw, (int)c.groups, more);
  return text;
}

// |fma chain - exact| <= k eps sum |x w| (plus the additions of bias and residual); all in double.
void check_against_plain(const Case& c, const std::vector<TestTensor>& in, const TestTensor& out, bool relu) {
  const int64_t cg = c.c / c.groups, og = c.o / c.groups, oh = out.shape.dim[1], ow = out.shape.dim[2];
  const float *x = in[0].data<float>(), *w = in[1].data<float>(), *y = out.data<float>();
  int64_t bad = 0;
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t o = i % c.o, ox = i / c.o % ow, oy = i / c.o / ow % oh, n = i / c.o / ow / oh, g = o / og;
    double sum = 0, size = 0;
    for (int64_t ky = 0; ky < c.kh; ++ky) {
      for (int64_t kx = 0; kx < c.kw; ++kx) {
        const int64_t iy = oy * c.sh - c.pad[0] + ky * c.dh, ix = ox * c.sw - c.pad[1] + kx * c.dw;
        if (iy < 0 || iy >= c.h || ix < 0 || ix >= c.w) continue;
        for (int64_t ch = 0; ch < cg; ++ch) {
          const double p = (double)x[((n * c.h + iy) * c.w + ix) * c.c + g * cg + ch] * w[((o * c.kh + ky) * c.kw + kx) * cg + ch];
          sum += p;
          size += std::fabs(p);
        }
      }
    }
    if (in[2].present) sum += in[2].data<float>()[o], size += std::fabs(in[2].data<float>()[o]);
    if (in[3].present) sum += in[3].data<float>()[i], size += std::fabs(in[3].data<float>()[i]);
    if (relu && sum < 0) sum = 0;
    const double allowed = (double)(c.kh * c.kw * cg + 2) * 0x1p-24 * size;
    if (!(std::fabs(y[i] - sum) <= allowed)) ++bad;
  }
  CHECK(bad == 0);
}

// As bfloat16, and the float tensor cut to the same numbers.
TestTensor to_bf16(TestTensor* t) {
  TestTensor half(DType::kBF16, t->shape, t->constant);
  for (int64_t i = 0; i < t->size(); ++i) {
    uint32_t b;
    std::memcpy(&b, t->data<float>() + i, 4);
    half.data<uint16_t>()[i] = static_cast<uint16_t>(b >> 16);
    b &= 0xffff0000u;
    std::memcpy(t->data<float>() + i, &b, 4);
  }
  return half;
}

void check_case(const Case& c, uint64_t seed, bool bf16 = false) {
  TestRandom random(seed);
  const bool bias = seed % 3 != 0, residual = seed % 4 == 1, relu = seed % 2 == 0;
  std::vector<TestTensor> in = {random.floats(make_shape({c.n, c.h, c.w, c.c})), random.floats(make_shape({c.o, c.kh, c.kw, c.c / c.groups}), true)};
  in.push_back(bias ? random.floats(make_shape({c.o}), true) : TestTensor());
  in.push_back(TestTensor());
  std::vector<TestTensor> exact = in;  // what the numbers mean, for the plain loop
  if (bf16) {
    to_bf16(&in[0]);
    exact[0] = in[0];
    in[1] = to_bf16(&exact[1]);
  }
  const std::string attrs = attrs_of(c, relu ? ",\"act\":\"relu\"" : "");
  std::vector<TestTensor> plain;
  if (residual) {
    OpRunner shape_only("conv", attrs.c_str(), in, 1, Isa::kPortable, 1);
    CHECK_OK(shape_only.prepare(in, &plain));
    exact[3] = in[3] = random.floats(plain[0].shape);
  }
  CHECK_OK(OpRunner("conv", attrs.c_str(), in, 1, Isa::kPortable, 1)(in, &plain));
  check_against_plain(c, exact, plain[0], relu);
  for (Isa isa : testable_isas()) {
    for (int threads : {1, 3}) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner("conv", attrs.c_str(), in, 1, isa, threads)(in, &out));
      if (!CHECK(same_floats(plain[0], out[0]))) std::fprintf(stderr, "  case %d %s\n", (int)seed, isa_name(isa));
    }
  }
}

const Case kCases[] = {
    {1, 9, 11, 3, 20, 7, 7, 2, 2, {3, 3, 3, 3}, 1, 1, 1},     // merged, stem
    {2, 8, 7, 3, 8, 3, 3, 2, 2, {0, 0, 1, 1}, 1, 1, 1},       // merged, padding only on one side
    {1, 6, 9, 5, 33, 3, 2, 1, 1, {0, 0, 0, 0}, 1, 1, 1},      // merged without padding: no copy
    {1, 6, 6, 4, 7, 3, 3, 1, 1, {2, 2, 2, 2}, 2, 2, 1},       // dilated, so not merged
    {1, 7, 7, 64, 40, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 1},     // three blocks of K
    {1, 3, 3, 300, 17, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 1},    // a tap cut in two
    {2, 5, 5, 700, 24, 1, 1, 1, 1, {0, 0, 0, 0}, 1, 1, 1},    // plain product, K in three blocks
    {1, 15, 14, 16, 96, 1, 1, 1, 1, {0, 0, 0, 0}, 1, 1, 1},   // several row blocks
    {1, 9, 9, 33, 65, 1, 1, 2, 2, {0, 0, 0, 0}, 1, 1, 1},     // strided 1x1
    {1, 4, 5, 8, 9, 1, 1, 1, 1, {1, 0, 0, 1}, 1, 1, 1},       // padded 1x1
    {1, 1, 1, 130, 1000, 1, 1, 1, 1, {0, 0, 0, 0}, 1, 1, 1},  // one row: wide tiles
    {2, 1, 1, 77, 200, 1, 1, 1, 1, {0, 0, 0, 0}, 1, 1, 1},    // two rows
    {3, 1, 1, 64, 129, 1, 1, 1, 1, {0, 0, 0, 0}, 1, 1, 1},    // three rows
    {1, 6, 6, 24, 36, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 4},     // grouped
    {1, 5, 6, 12, 24, 3, 3, 2, 1, {1, 1, 1, 1}, 1, 1, 12},    // two filters a channel
    {2, 9, 8, 37, 37, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 37},    // depthwise, odd channels
    {1, 12, 13, 96, 96, 5, 5, 2, 2, {2, 2, 2, 2}, 1, 1, 96},  // depthwise 5x5 stride 2
    {1, 9, 9, 70, 70, 3, 3, 1, 1, {2, 2, 2, 2}, 2, 2, 70},    // depthwise dilated
    {1, 10, 11, 24, 24, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 6},   // groups of 4
    {2, 9, 9, 38, 38, 3, 3, 2, 2, {1, 0, 1, 2}, 1, 1, 19},    // groups of 2
    {1, 5, 2, 3, 9, 3, 5, 1, 1, {1, 2, 1, 2}, 1, 1, 1},       // merged, every window reaches over both borders
    {1, 4, 30, 2, 9, 1, 3, 1, 4, {0, 9, 0, 11}, 1, 1, 1},     // merged, windows entirely in the padding
    {1, 1, 40, 6, 10, 1, 5, 1, 2, {0, 2, 0, 2}, 1, 1, 1},     // one-dimensional
    {0, 5, 5, 4, 4, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 1},       // empty batch
};

void check_random() {
  TestRandom random(99);
  for (uint64_t i = 0; i < 60; ++i) {
    Case c = {};
    c.groups = random.below(3) == 0 ? 1 + random.below(6) : 1;
    c.n = 1 + random.below(2);
    c.h = 1 + random.below(14);
    c.w = 1 + random.below(14);
    c.c = c.groups * (1 + random.below(40));
    c.o = c.groups * (1 + random.below(40));
    c.kh = 1 + random.below(4);
    c.kw = 1 + random.below(4);
    c.sh = 1 + random.below(3);
    c.sw = 1 + random.below(3);
    c.dh = 1 + random.below(2);
    c.dw = 1 + random.below(2);
    for (int64_t& p : c.pad) p = random.below(3);
    if (c.h + c.pad[0] + c.pad[2] < (c.kh - 1) * c.dh + 1 || c.w + c.pad[1] + c.pad[3] < (c.kw - 1) * c.dw + 1) continue;
    check_case(c, 100 + i);
  }
}

// Fused activations give the bits of the activation as an operator of its own.
void check_activations() {
  const Case c = {1, 6, 7, 20, 18, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 1};
  const Case depthwise = {1, 6, 7, 20, 20, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 20};
  TestRandom random(5);
  for (const Case& k : {c, depthwise}) {
    const std::vector<TestTensor> in = {random.floats(make_shape({1, 6, 7, 20}), false, 3), random.floats(make_shape({k.o, 3, 3, 20 / k.groups}), true)};
    for (const char* more : {",\"act\":\"gelu\"", ",\"act\":\"silu\"", ",\"act\":\"hard_swish\"", ",\"act\":\"clip\",\"alpha\":0.0,\"beta\":0.25",
                             ",\"act\":\"leaky_relu\",\"alpha\":0.3", ",\"act\":\"relu\""}) {
      for (Isa isa : testable_isas()) {
        std::vector<TestTensor> plain, fused, after;
        CHECK_OK(OpRunner("conv", attrs_of(k, "").c_str(), in, 1, isa, 1)(in, &plain));
        CHECK_OK(OpRunner("conv", attrs_of(k, more).c_str(), in, 1, isa, 2)(in, &fused));
        std::string unary = std::string("{") + (more + 1) + "}";
        unary.replace(unary.find("act"), 3, "fn");
        CHECK_OK(OpRunner("unary", unary.c_str(), plain, 1, isa, 1)(plain, &after));
        CHECK(same_floats(fused[0], after[0]));
      }
    }
  }
}

#if defined(__x86_64__)
// Every kind of run against the kernel of four lanes: with and without neighbouring taps, of f32 and bfloat16, to both.
void check_wide_run(TestRandom* random, int64_t group, int64_t rows, int64_t stride, int64_t pixels, bool tiny) {
  const int64_t channels = 68, padded = 80, taps = 3 * rows, columns = stride * pixels + 3;
  TestTensor x = random->floats(make_shape({rows, columns, channels})), w = random->floats(make_shape({taps * group, padded}));
  const TestTensor more = random->floats(make_shape({pixels, channels}));
  for (TestTensor* t : {&x, &w}) {
    for (int64_t i = 0; tiny && i < t->size(); ++i) t->data<float>()[i] *= 0x1p-63f;
  }
  const TestTensor x_halves = to_bf16(&x);
  to_bf16(&w);
  std::vector<const void*> a, a_halves;
  std::vector<const float*> weights;
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t at = (t / 3 * columns + t % 3) * channels;
    a.push_back(x.data<float>() + at);
    a_halves.push_back(x_halves.data<uint16_t>() + at);
    weights.push_back(w.data<float>() + t * group * padded);
  }
  DepthwiseRun run = {};
  run.w = weights.data();
  run.taps = taps;
  run.pixels = pixels;
  run.step = stride * channels;
  run.channels = run.y_step = channels;
  run.group = group;
  run.w_stride = padded;
  if (!tiny) {
    run.bias = w.data<float>();
    run.r = more.data<float>();
  }
  run.lo = -0.5f;
  run.hi = 2.0f;
  for (bool halves_in : {false, true}) {
    run.a = halves_in ? a_halves.data() : a.data();
    run.flush = tiny;
    std::vector<float> plain(static_cast<size_t>(pixels * channels)), wide(plain.size());
    std::vector<uint16_t> plain_halves(plain.size()), wide_halves(plain.size());
    for (int64_t column : {int64_t{0}, channels}) {
      run.column = column;
      for (const DepthwiseKernels* kernels : {&depthwise_kernels_portable, &depthwise_kernels_wide}) {
        const bool first = kernels == &depthwise_kernels_portable;
        run.y = (first ? plain : wide).data();
        run.halves = nullptr;
        (halves_in ? kernels->run_bf16 : kernels->run)(run);
        run.y = nullptr;
        run.halves = (first ? plain_halves : wide_halves).data();
        (halves_in ? kernels->run_bf16 : kernels->run)(run);
      }
      CHECK(std::memcmp(plain.data(), wide.data(), plain.size() * sizeof(float)) == 0);
      CHECK(plain_halves == wide_halves);
    }
  }
}
void check_wide_depthwise() {
  TestRandom random(31);
  for (int64_t pixels = 1; pixels <= 12; ++pixels) {
    for (int64_t rows : {1, 2, 3}) {
      for (int64_t stride : {1, 2, 3}) check_wide_run(&random, 1, rows, stride, pixels, pixels % 4 == 0);
    }
  }
  for (int64_t group : {2, 4}) check_wide_run(&random, group, 3, 1, 21, false);
}
#else
void check_wide_depthwise() {}
#endif

void check_refusals() {
  TestRandom random(7);
  const std::vector<TestTensor> in = {random.floats(make_shape({1, 2, 2, 4})), random.floats(make_shape({6, 3, 3, 4}), true)};
  std::vector<TestTensor> out;
  CHECK(!OpRunner("conv", "{\"strides\":[1,1],\"pads\":[0,0,0,0]}", in, 1, Isa::kPortable, 1)(in, &out).ok());          // kernel larger than x
  CHECK(!OpRunner("conv", "{\"strides\":[0,1],\"pads\":[1,1,1,1]}", in, 1, Isa::kPortable, 1).status().ok());           // stride 0
  CHECK(!OpRunner("conv", "{\"strides\":[1,1],\"pads\":[1,1,1,-1]}", in, 1, Isa::kPortable, 1).status().ok());          // negative padding
  CHECK(!OpRunner("conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"groups\":4}", in, 1, Isa::kPortable, 1).status().ok());  // 6 % 4
  CHECK(!OpRunner("conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"act\":\"bogus\"}", in, 1, Isa::kPortable, 1).status().ok());
}

}  // namespace

int main() {
  uint64_t seed = 1;
  for (const Case& c : kCases) {
    for (int i = 0; i < 4; ++i) check_case(c, seed++);
    for (int i = 0; i < 2; ++i) check_case(c, seed++, true);
  }
  check_random();
  check_activations();
  check_wide_depthwise();
  check_refusals();
  return check_result();
}
