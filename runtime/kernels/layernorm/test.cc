// layernorm against double; bits equal on every instruction set.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_NAME "wide"
#include "kernels/layernorm/generic.inc"

namespace {

using namespace netsuke;

void check_case(const Shape& shape, int axis, bool gamma, bool beta, float offset, uint64_t seed) {
  TestRandom random(seed);
  Shape inner;
  for (int i = axis; i < shape.rank; ++i) inner.dim[inner.rank++] = shape.dim[i];
  const int64_t n = inner.elements();
  std::vector<TestTensor> in = {random.floats(shape), TestTensor(), TestTensor()};
  for (int64_t i = 0; i < shape.elements(); ++i) in[0].data<float>()[i] += offset;
  if (gamma) in[1] = random.floats(inner, seed % 2 == 0);
  if (beta) in[2] = random.floats(inner, seed % 2 == 0);
  char attrs[80];
  std::snprintf(attrs, sizeof(attrs), "{\"axis\":%d,\"eps\":1e-5}", static_cast<int>(seed % 2) ? axis : axis - shape.rank);
  std::vector<TestTensor> plain;
  CHECK_OK(OpRunner("layernorm", attrs, in, 1, Isa::kPortable, 1)(in, &plain));
  int64_t bad = 0;
  for (int64_t row = 0; row < shape.elements() / (n ? n : 1); ++row) {
    const float* x = in[0].data<float>() + row * n;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; ++i) mean += x[i];
    mean /= static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      double y = (x[i] - mean) / std::sqrt(variance + (double)1e-5f);
      const double g = gamma ? in[1].data<float>()[i] : 1;
      y = y * g + (beta ? in[2].data<float>()[i] : 0);
      // the mean carries (n/16 + 5) roundings of numbers up to |offset| + 1, divided by the deviation
      const double slack = (static_cast<double>(n) / 16 + 12) * 0x1p-23 * (std::fabs(offset) + 2) / std::sqrt(variance + 1e-5) * (std::fabs(g) + 1e-3) * 2;
      if (!(std::fabs(plain[0].data<float>()[row * n + i] - y) <= slack)) ++bad;
    }
  }
  CHECK(bad == 0);
  for (Isa isa : testable_isas()) {
    std::vector<TestTensor> out, codes, expected;
    CHECK_OK(OpRunner("layernorm", attrs, in, 1, isa, 3)(in, &out));
    CHECK(same_floats(plain[0], out[0]));
    CHECK_OK(OpRunner("layernorm", (std::string(attrs, std::strlen(attrs) - 1) + ",\"quant_scale\":0.02,\"quant_zero\":120}").c_str(), in, 1, isa, 2)(in, &codes));
    CHECK_OK(OpRunner("unary", "{\"fn\":\"identity\",\"quant_scale\":0.02,\"quant_zero\":120}", plain, 1, isa, 1)(plain, &expected));
    CHECK(expected[0].bytes == codes[0].bytes);
  }
}

void check_wide() {
  TestRandom random(4);
  for (int64_t n : {1, 7, 16, 24, 192, 197}) {
    const TestTensor x = random.floats(make_shape({3, n}));
    std::vector<float> a(static_cast<size_t>(n)), b(static_cast<size_t>(n));
    layernorm_kernels_portable.row(x.data<float>(), x.data<float>() + n, x.data<float>() + 2 * n, a.data(), n, 1e-6f);
    layernorm_kernels_wide.row(x.data<float>(), x.data<float>() + n, x.data<float>() + 2 * n, b.data(), n, 1e-6f);
    CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  }
}

}  // namespace

int main() {
  check_case(make_shape({2, 197, 192}), 2, true, true, 0, 1);
  check_case(make_shape({3, 5, 7}), 1, true, false, 2, 2);
  check_case(make_shape({4, 33}), 1, false, true, -1, 3);
  check_case(make_shape({4, 1}), 1, false, false, 0, 4);
  check_case(make_shape({0, 8}), 1, true, true, 0, 5);
  check_case(make_shape({2, 9000}), 1, true, true, 0.5f, 6);
  check_wide();
  TestRandom random(1);
  const std::vector<TestTensor> in = {random.floats(make_shape({2, 4})), random.floats(make_shape({3}))};
  std::vector<TestTensor> out;
  CHECK(!OpRunner("layernorm", "{\"axis\":1,\"eps\":1e-5}", in, 1, Isa::kPortable, 1)(in, &out).ok());
  CHECK(!OpRunner("layernorm", "{\"axis\":1,\"eps\":-1.0}", in, 1, Isa::kPortable, 1).status().ok());
  return check_result();
}
