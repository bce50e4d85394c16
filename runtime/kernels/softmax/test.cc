// softmax and log-softmax against double, over every kind of axis; bits equal on every instruction set.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_NAME "wide"
#include "kernels/softmax/generic.inc"

namespace {

using namespace netsuke;

void check_case(const Shape& shape, int axis, float scale, uint64_t seed) {
  TestRandom random(seed);
  const std::vector<TestTensor> in = {random.floats(shape, false, scale)};
  const float* x = in[0].data<float>();
  const int64_t n = shape.dim[axis], inner = product(shape, axis + 1, shape.rank);
  for (int log : {0, 1}) {
    char attrs[60];
    std::snprintf(attrs, sizeof(attrs), "{\"axis\":%d,\"log\":%d}", axis - (log ? shape.rank : 0), log);
    std::vector<TestTensor> plain;
    CHECK_OK(OpRunner("softmax", attrs, in, 1, Isa::kPortable, 1)(in, &plain));
    int64_t bad = 0;
    for (int64_t row = 0; row < (n == 0 ? 0 : shape.elements() / n); ++row) {
      const int64_t base = row / inner * n * inner + row % inner;
      double top = -INFINITY, total = 0;
      for (int64_t j = 0; j < n; ++j) top = std::fmax(top, x[base + j * inner]);
      for (int64_t j = 0; j < n; ++j) total += std::exp(x[base + j * inner] - top);
      // x - max is rounded (relative 2^-24 of up to 2 scale), exp 1 ulp, the sum n/16 + 4 additions, division
      const double relative = (2.0 * scale + 3 + static_cast<double>(n) / 16 + 4) * 0x1p-24;
      for (int64_t j = 0; j < n; ++j) {
        const int64_t i = base + j * inner;
        const double exact = log ? x[i] - top - std::log(total) : std::exp(x[i] - top) / total;
        const double allowed = log ? relative * (1 + std::fabs(exact)) : relative * exact + 1e-44;
        if (!(std::fabs(plain[0].data<float>()[i] - exact) <= allowed)) ++bad;
      }
    }
    CHECK(bad == 0);
    for (Isa isa : testable_isas()) {
      std::vector<TestTensor> out, codes;
      CHECK_OK(OpRunner("softmax", attrs, in, 1, isa, 3)(in, &out));
      CHECK(same_floats(plain[0], out[0]));
      std::string with_quant = std::string(attrs, std::strlen(attrs) - 1) + (log ? ",\"quant_scale\":0.1,\"quant_zero\":200}" : ",\"quant_scale\":0.00392156,\"quant_zero\":0}");
      CHECK_OK(OpRunner("softmax", with_quant.c_str(), in, 1, isa, 2)(in, &codes));
      std::vector<TestTensor> expected;
      with_quant = log ? "{\"fn\":\"identity\",\"quant_scale\":0.1,\"quant_zero\":200}" : "{\"fn\":\"identity\",\"quant_scale\":0.00392156,\"quant_zero\":0}";
      CHECK_OK(OpRunner("unary", with_quant.c_str(), plain, 1, isa, 1)(plain, &expected));
      CHECK(expected[0].bytes == codes[0].bytes);
    }
  }
}

void check_wide() {
  TestRandom random(4);
  for (int64_t n : {1, 5, 16, 17, 31, 32, 200}) {
    const TestTensor x = random.floats(make_shape({7, n}), false, 9);  // some together, some alone
    std::vector<float> a(static_cast<size_t>(7 * n)), b(a.size());
    for (bool log : {false, true}) {
      softmax_kernels_portable.rows(x.data<float>(), a.data(), 7, n, log);
      softmax_kernels_wide.rows(x.data<float>(), b.data(), 7, n, log);
      CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    }
  }
}

}  // namespace

int main() {
  check_case(make_shape({3, 197}), 1, 5, 1);
  check_case(make_shape({2, 3, 17, 17}), 3, 20, 2);
  check_case(make_shape({2, 21, 5, 7}), 1, 3, 3);
  check_case(make_shape({33}), 0, 80, 4);
  check_case(make_shape({4, 1}), 1, 1, 5);
  check_case(make_shape({0, 3}), 1, 1, 6);
  check_case(make_shape({1, 30000}), 1, 2, 7);
  check_wide();
  // A masked row: -inf entries get 0; a row of only -inf is NaN, as it is everywhere.
  const std::vector<TestTensor> in = {floats(make_shape({2, 3}), {0, -INFINITY, 0, -INFINITY, -INFINITY, -INFINITY})};
  std::vector<TestTensor> out;
  CHECK_OK(OpRunner("softmax", "{\"axis\":1}", in, 1, best_isa(), 1)(in, &out));
  CHECK(same_floats(out[0], floats(make_shape({2, 3}), {0.5f, 0, 0.5f, NAN, NAN, NAN})));
  return check_result();
}
