// unary, binary, where, prelu, cast: accuracy against the C library in double, special values, and bits equal on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "base/check.h"
#include "kernels/base/op_runner.h"
#include "kernels/elementwise/unary.h"

// The 16-lane kernels that AVX-512 uses, lowered to whatever this CPU has.
#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#include "kernels/elementwise/binary.inc"
#include "kernels/elementwise/unary.inc"

namespace {

using namespace netsuke;

// Values of every magnitude, both signs, dense around 0 and 1, and the special ones.
std::vector<float> samples() {
  std::vector<float> v = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, -0.5f, 1.5f, 2.5f, -2.5f, kInf, -kInf, NAN, 1e-45f, -1e-45f, 1.17549435e-38f,
                          3.4e38f, -3.4e38f, 8388607.5f, 8388608.0f, -8388609.0f, 88.72f, 88.73f, 89.5f, -87.4f, -103.9f, -104.5f, -150.0f, 20.0f, 20.01f};
  for (uint32_t b = 0; b < 0x7f800000u; b += 40009) {
    float f;
    std::memcpy(&f, &b, 4);
    v.push_back(f);
    v.push_back(-f);
  }
  for (int i = -60000; i <= 60000; ++i) v.push_back(static_cast<float>(i) * 0.00173f);
  return v;
}

double ulp_of(double exact) {
  const float f = std::fabs(static_cast<float>(exact));
  const float g = f < 1.17549435e-38f ? 1.17549435e-38f : f;
  return std::ldexp(1.0, std::ilogb(g) - 23);
}

struct Reference {
  const char* fn;
  double (*f)(double);
  double ulps;      // allowed error
  double absolute;  // or this much, whichever is larger
};

double gelu_d(double x) { return x * 0.5 * std::erfc(-x * 0.70710678118654752440); }
double gelu_tanh_d(double x) { return x / (1 + std::exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x))); }
double silu_d(double x) { return x / (1 + std::exp(-x)); }
double sigmoid_d(double x) { return 1 / (1 + std::exp(-x)); }
double softplus_d(double x) { return x > 30 ? x + std::exp(-x) : std::log1p(std::exp(x)); }
double mish_d(double x) { return x * std::tanh(softplus_d(x)); }
double elu_d(double x) { return x < 0 ? std::expm1(x) : x; }
double hard_swish_d(double x) { return x * std::fmin(std::fmax(x / 6 + 0.5, 0), 1); }
double hard_sigmoid_d(double x) { return x != x ? x : std::fmin(std::fmax(x * (double)0.2f + 0.5, 0), 1); }
double round_d(double x) { return std::nearbyint(x); }
double reciprocal_d(double x) { return 1 / x; }
double relu_d(double x) { return x < 0 ? 0 : x; }
double leaky_d(double x) { return x < 0 ? x * (double)0.01f : x; }
double sign_d(double x) { return x > 0 ? 1 : (x < 0 ? -1 : x); }
double neg_d(double x) { return -x; }

// Measured maxima are a little below the limits. Functions ending in a product with a saturating factor lose a few ulp in their tail, where the
// argument of exp is large: the relative error of exp(t) is at least |t| 2^-24.
const Reference kReferences[] = {
    {"exp", std::exp, 1.5, 0},          {"log", std::log, 2, 0},          {"tanh", std::tanh, 2.5, 0},       {"sigmoid", sigmoid_d, 4, 1.2e-38},
    {"erf", std::erf, 2.5, 0},          {"gelu", gelu_d, 8, 2e-38},       {"gelu_tanh", gelu_tanh_d, 220, 4e-38}, {"silu", silu_d, 5, 5e-36},
    {"softplus", softplus_d, 3, 0},     {"mish", mish_d, 6, 5e-36},       {"elu", elu_d, 3, 0},              {"sin", std::sin, 0.51, 0},
    {"cos", std::cos, 0.51, 0},         {"sqrt", std::sqrt, 0.5, 0},      {"abs", std::fabs, 0, 0},          {"ceil", std::ceil, 0, 0},
    {"floor", std::floor, 0, 0},        {"round", round_d, 0, 0},         {"reciprocal", reciprocal_d, 0.5, 0}, {"relu", relu_d, 0, 0},
    {"leaky_relu", leaky_d, 0.5, 0},    {"sign", sign_d, 0, 0},           {"neg", neg_d, 0, 0},              {"hard_swish", hard_swish_d, 3, 3e-7},
    {"hard_sigmoid", hard_sigmoid_d, 1.5, 6e-8},
};

bool close(double got, double exact, const Reference& r, double* worst) {
  if (std::isnan(exact)) return std::isnan(got);
  const float rounded = static_cast<float>(exact);
  if (std::isinf(rounded) || std::isinf(got)) return got == rounded || std::fabs(exact) > 3.402e38;
  const double error = std::fabs(got - exact), ulps = error / ulp_of(exact);
  if (error <= r.absolute) return true;
  if (ulps > *worst) *worst = ulps;
  return ulps <= r.ulps;
}

void check_accuracy() {
  const std::vector<float> v = samples();
  const std::vector<TestTensor> in = {floats(make_shape({static_cast<int64_t>(v.size())}), v)};
  for (const Reference& r : kReferences) {
    const std::string attrs = std::string("{\"fn\":\"") + r.fn + "\"}";
    std::vector<TestTensor> plain;
    CHECK_OK(OpRunner("unary", attrs.c_str(), in, 1, Isa::kPortable, 1)(in, &plain));
    int64_t bad = 0;
    double worst = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      if (close(plain[0].data<float>()[i], r.f(v[i]), r, &worst)) continue;
      if (++bad <= 3) std::fprintf(stderr, "  %s(%.9g) = %.9g, expected %.12g\n", r.fn, v[i], plain[0].data<float>()[i], r.f(v[i]));
    }
    if (!CHECK(bad == 0)) std::fprintf(stderr, "  %s: %lld wrong, worst %.2f ulp\n", r.fn, (long long)bad, worst);
    if (std::getenv("NETSUKE_TEST_VERBOSE")) std::printf("%-14s %.3f ulp\n", r.fn, worst);
    for (Isa isa : testable_isas()) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner("unary", attrs.c_str(), in, 1, isa, 3)(in, &out));
      CHECK(same_floats(plain[0], out[0]));
    }
  }
}

void check_wide() {
  const std::vector<float> v = samples();
  const int64_t n = static_cast<int64_t>(v.size());
  std::vector<float> y(v.size()), wide(v.size()), w(v.rbegin(), v.rend());
  const auto same = [&](const char* name) {
    int64_t bad = 0;
    for (size_t i = 0; i < v.size(); ++i) bad += std::memcmp(&y[i], &wide[i], 4) != 0 && (y[i] == y[i] || wide[i] == wide[i]);
    if (!CHECK(bad == 0)) std::fprintf(stderr, "  %s\n", name);
  };
  for (int fn = 0; fn < static_cast<int>(UnaryFn::count); ++fn) {
    unary_kernels_portable.rows[fn](v.data(), y.data(), n, 0.3f, 0.7f);
    unary_kernels_wide.rows[fn](v.data(), wide.data(), n, 0.3f, 0.7f);
    same("unary");
  }
  for (int fn = 0; fn < kArithmeticFns; ++fn) {
    binary_kernels_portable.arithmetic[fn](v.data(), w.data(), y.data(), n, 1, fn % 2);
    binary_kernels_wide.arithmetic[fn](v.data(), w.data(), wide.data(), n, 1, fn % 2);
    same("binary");
  }
  std::vector<uint8_t> q(v.size()), q_wide(v.size());
  unary_kernels_portable.quantize(v.data(), q.data(), n, 0.13f, 7);
  unary_kernels_wide.quantize(v.data(), q_wide.data(), n, 0.13f, 7);
  CHECK(q == q_wide);
}

// The quantized output is the function followed by section 2 of numerics.md.
void check_quantized() {
  const std::vector<float> v = samples();
  const std::vector<TestTensor> in = {floats(make_shape({static_cast<int64_t>(v.size())}), v)};
  for (const char* fn : {"identity", "gelu", "sigmoid"}) {
    const std::string start = std::string("{\"fn\":\"") + fn + "\"";
    for (Isa isa : testable_isas()) {
      std::vector<TestTensor> y, q;
      CHECK_OK(OpRunner("unary", (start + "}").c_str(), in, 1, isa, 1)(in, &y));
      CHECK_OK(OpRunner("unary", (start + ",\"quant_scale\":0.037,\"quant_zero\":113}").c_str(), in, 1, isa, 2)(in, &q));
      int64_t bad = 0;
      for (size_t i = 0; i < v.size(); ++i) {
        float t = y[0].data<float>()[i] / 0.037f;
        t = t > -113.0f ? t : -113.0f;
        t = t < 142.0f ? t : 142.0f;
        if (q[0].data<uint8_t>()[i] != static_cast<int>(std::nearbyintf(t)) + 113) ++bad;
      }
      CHECK(bad == 0);
    }
  }
}

void check_pow() {
  TestRandom random(3);
  std::vector<float> a, b;
  const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 2.0f, -2.0f, 0.5f, 3.0f, -3.0f, kInf, -kInf, NAN, 1e-40f, 16777217.0f, 2.5f, -0.5f};
  for (float x : special) {
    for (float y : special) a.push_back(x), b.push_back(y);
  }
  for (int i = 0; i < 20000; ++i) {
    a.push_back(std::exp(40 * random.unit()));
    b.push_back(i % 2 ? 3 * random.unit() : static_cast<float>(random.below(9) - 4));
  }
  const Shape s = make_shape({static_cast<int64_t>(a.size())});
  const std::vector<TestTensor> in = {floats(s, a), floats(s, b)};
  for (Isa isa : testable_isas()) {
    std::vector<TestTensor> out;
    CHECK_OK(OpRunner("binary", "{\"fn\":\"pow\"}", in, 1, isa, 1)(in, &out));
    int64_t bad = 0;
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const double exact = std::pow((double)a[i], (double)b[i]);
      const float y = out[0].data<float>()[i];
      if (close(y, exact, {"pow", nullptr, 0.51, 1e-45}, &worst)) continue;
      if (++bad < 4) std::fprintf(stderr, "  pow(%.9g, %.9g) = %.9g, expected %.9g\n", a[i], b[i], y, exact);
    }
    CHECK(bad == 0);
  }
}

template <typename T, typename Out, typename F>
void check_binary(const char* fn, DType dtype, const Shape& sa, const Shape& sb, const std::vector<T>& va, const std::vector<T>& vb, const F& f) {
  TestTensor a(dtype, sa), b(dtype, sb);
  std::copy(va.begin(), va.end(), a.data<T>());
  std::copy(vb.begin(), vb.end(), b.data<T>());
  const std::vector<TestTensor> in = {a, b};
  Shape y;
  CHECK_OK(broadcast(sa, sb, &y));
  for (Isa isa : testable_isas()) {
    std::vector<TestTensor> out;
    CHECK_OK(OpRunner("binary", (std::string("{\"fn\":\"") + fn + "\"}").c_str(), in, 1, isa, 2)(in, &out));
    if (out.empty() || !CHECK(out[0].shape == y)) continue;
    int64_t bad = 0;
    for (int64_t i = 0; i < y.elements(); ++i) {
      int64_t left = i, at[2] = {0, 0}, step[2] = {1, 1};
      for (int d = y.rank - 1; d >= 0; --d) {
        const int64_t p = left % y.dim[d];
        left /= y.dim[d];
        for (int k = 0; k < 2; ++k) {
          const Shape& s = k ? sb : sa;
          const int j = d - (y.rank - s.rank);
          if (j < 0) continue;
          at[k] += s.dim[j] == 1 ? 0 : p * step[k];
          step[k] *= s.dim[j];
        }
      }
      const Out expected = f(va[static_cast<size_t>(at[0])], vb[static_cast<size_t>(at[1])]), got = out[0].data<Out>()[i];
      if (std::memcmp(&expected, &got, sizeof(Out)) != 0 && (expected == expected || got == got)) ++bad;
    }
    if (!CHECK(bad == 0)) std::fprintf(stderr, "  %s %s %s %s\n", fn, shape_text(sa).c_str(), shape_text(sb).c_str(), isa_name(isa));
  }
}

void check_broadcasts() {
  const Shape pairs[][2] = {
      {make_shape({2, 3, 5, 37}), make_shape({37})}, {make_shape({2, 3, 5, 37}), make_shape({2, 1, 1, 37})}, {make_shape({4, 1, 6}), make_shape({1, 5, 1})},
      {make_shape({}), make_shape({19})},            {make_shape({1}), make_shape({})},                     {make_shape({100003}), make_shape({100003})},
      {make_shape({3, 40000}), make_shape({3, 1})},  {make_shape({2, 0, 3}), make_shape({3})},              {make_shape({7, 1, 3, 1}), make_shape({1, 2, 1, 4})},
  };
  TestRandom random(8);
  for (const auto& pair : pairs) {
    for (int swap = 0; swap < 2; ++swap) {
      const Shape &sa = pair[swap], &sb = pair[1 - swap];
      std::vector<float> a, b;
      for (int64_t i = 0; i < sa.elements(); ++i) a.push_back(i % 97 == 3 ? NAN : std::round(8 * random.unit()) / 4);
      for (int64_t i = 0; i < sb.elements(); ++i) b.push_back(i % 89 == 4 ? NAN : std::round(8 * random.unit()) / 4);
      check_binary<float, float>("add", DType::kF32, sa, sb, a, b, [](float x, float y) { return x + y; });
      check_binary<float, float>("sub", DType::kF32, sa, sb, a, b, [](float x, float y) { return x - y; });
      check_binary<float, float>("mul", DType::kF32, sa, sb, a, b, [](float x, float y) { return x * y; });
      check_binary<float, float>("div", DType::kF32, sa, sb, a, b, [](float x, float y) { return x / y; });
      check_binary<float, float>("max", DType::kF32, sa, sb, a, b, [](float x, float y) { return x != x || y != y ? NAN : (x > y ? x : y); });
      check_binary<float, float>("min", DType::kF32, sa, sb, a, b, [](float x, float y) { return x != x || y != y ? NAN : (x < y ? x : y); });
      check_binary<float, float>("mod", DType::kF32, sa, sb, a, b, [](float x, float y) { return std::fmod(x, y); });
      check_binary<float, uint8_t>("less", DType::kF32, sa, sb, a, b, [](float x, float y) -> uint8_t { return x < y; });
      check_binary<float, uint8_t>("equal", DType::kF32, sa, sb, a, b, [](float x, float y) -> uint8_t { return x == y; });
      check_binary<float, uint8_t>("greater_equal", DType::kF32, sa, sb, a, b, [](float x, float y) -> uint8_t { return x >= y; });
      std::vector<int64_t> ia, ib;
      for (int64_t i = 0; i < sa.elements(); ++i) ia.push_back(random.below(41) - 20);
      for (int64_t i = 0; i < sb.elements(); ++i) ib.push_back(random.below(2) ? 1 + random.below(9) : -1 - random.below(9));
      check_binary<int64_t, int64_t>("div", DType::kI64, sa, sb, ia, ib, [](int64_t x, int64_t y) { return x / y; });
      check_binary<int64_t, int64_t>("mod", DType::kI64, sa, sb, ia, ib, [](int64_t x, int64_t y) { return ((x % y) + y) % y; });
      check_binary<int64_t, uint8_t>("less_equal", DType::kI64, sa, sb, ia, ib, [](int64_t x, int64_t y) -> uint8_t { return x <= y; });
    }
  }
}

void check_integer_edges() {
  const int64_t low = std::numeric_limits<int64_t>::min();
  check_binary<int64_t, int64_t>("div", DType::kI64, make_shape({1}), make_shape({1}), {low}, {-1}, [=](int64_t, int64_t) { return low; });
  check_binary<int64_t, int64_t>("mul", DType::kI64, make_shape({1}), make_shape({1}), {low}, {3}, [=](int64_t, int64_t) { return low; });
  check_binary<int32_t, int32_t>("pow", DType::kI32, make_shape({2}), make_shape({2}), {-3, 2}, {3, 10}, [](int32_t x, int32_t) { return x < 0 ? -27 : 1024; });
  TestTensor a(DType::kI64, make_shape({1})), b(DType::kI64, make_shape({1}));
  std::vector<TestTensor> out;
  CHECK(!OpRunner("binary", "{\"fn\":\"div\"}", {a, b}, 1, Isa::kPortable, 1)({a, b}, &out).ok());  // by zero
  b.data<int64_t>()[0] = -2;
  CHECK(!OpRunner("binary", "{\"fn\":\"pow\"}", {a, b}, 1, Isa::kPortable, 1)({a, b}, &out).ok());
  TestTensor f(DType::kF32, make_shape({1}));
  CHECK(!OpRunner("binary", "{\"fn\":\"add\"}", {a, f}, 1, Isa::kPortable, 1)({a, f}, &out).ok());  // two dtypes
}

void check_select() {
  TestTensor c(DType::kBool, make_shape({3, 1})), a(DType::kI64, make_shape({1, 4})), b(DType::kI64, make_shape({}));
  c.data<uint8_t>()[1] = 1;
  for (int i = 0; i < 4; ++i) a.data<int64_t>()[i] = 10 + i;
  b.data<int64_t>()[0] = 7;
  std::vector<TestTensor> out;
  CHECK_OK(OpRunner("where", "{}", {c, a, b}, 1, Isa::kPortable, 1)({c, a, b}, &out));
  for (int i = 0; i < 12; ++i) CHECK(out[0].data<int64_t>()[i] == (i / 4 == 1 ? 10 + i % 4 : 7));
  const TestTensor x = floats(make_shape({2, 3}), {-1, -2, -4, 1, 2, NAN}), slope = floats(make_shape({3}), {0.5f, 0.25f, 2});
  CHECK_OK(OpRunner("prelu", "{}", {x, slope}, 1, Isa::kPortable, 1)({x, slope}, &out));
  CHECK(same_floats(out[0], floats(make_shape({2, 3}), {-0.5f, -0.5f, -8, 1, 2, NAN})));
  const TestTensor wide = floats(make_shape({8}), {1e20f, -1e20f, NAN, 2.9f, -2.9f, 255.5f, -0.5f, kInf});
  CHECK_OK(OpRunner("cast", "{\"to\":\"i64\"}", {wide}, 1, Isa::kPortable, 1)({wide}, &out));
  const int64_t i64[] = {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min(), 0, 2, -2, 255, 0, std::numeric_limits<int64_t>::max()};
  CHECK(std::memcmp(out[0].bytes.data(), i64, sizeof(i64)) == 0);
  CHECK_OK(OpRunner("cast", "{\"to\":\"u8\"}", {wide}, 1, Isa::kPortable, 1)({wide}, &out));
  const uint8_t u8[] = {255, 0, 0, 2, 0, 255, 0, 255};
  CHECK(std::memcmp(out[0].bytes.data(), u8, sizeof(u8)) == 0);
}

}  // namespace

int main() {
  check_accuracy();
  check_wide();
  check_quantized();
  check_pow();
  check_broadcasts();
  check_integer_edges();
  check_select();
  return check_result();
}
