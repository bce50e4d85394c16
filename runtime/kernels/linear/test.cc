// linear: shapes, residual, fused activation, refusals. The arithmetic itself is tested in kernels/fgemm/test.cc.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

namespace {

using namespace netsuke;

// Plain fma chain; bit for bit.
void check_case(const Shape& x_shape, int64_t n, bool bias, bool residual, const char* act, uint64_t seed) {
  TestRandom random(seed);
  const int64_t k = x_shape.dim[x_shape.rank - 1], rows = product(x_shape, 0, x_shape.rank - 1);
  Shape y_shape = x_shape;
  y_shape.dim[y_shape.rank - 1] = n;
  std::vector<TestTensor> in = {random.floats(x_shape), random.floats(make_shape({n, k}), true), TestTensor(), TestTensor()};
  if (bias) in[2] = random.floats(make_shape({n}), true);
  if (residual) in[3] = random.floats(y_shape);
  TestTensor sum(DType::kF32, y_shape);
  for (int64_t i = 0; i < rows * n; ++i) {
    float acc = 0;
    for (int64_t j = 0; j < k; ++j) acc = std::fma(in[0].data<float>()[i / n * k + j], in[1].data<float>()[i % n * k + j], acc);
    if (bias) acc += in[2].data<float>()[i % n];
    if (residual) acc += in[3].data<float>()[i];
    sum.data<float>()[i] = acc;
  }
  const std::string name = act;
  std::vector<TestTensor> expected = {sum};
  if (name != "none") CHECK_OK(OpRunner("unary", ("{\"fn\":\"" + name + "\"}").c_str(), {sum}, 1, Isa::kPortable, 1)({sum}, &expected));
  for (Isa isa : testable_isas()) {
    for (int threads : {1, 2, 5}) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner("linear", ("{\"act\":\"" + name + "\"}").c_str(), in, 1, isa, threads)(in, &out));
      if (!CHECK(!out.empty() && same_floats(expected[0], out[0]))) std::fprintf(stderr, "  %s %s %d\n", shape_text(x_shape).c_str(), isa_name(isa), threads);
    }
  }
}

void check_refusals() {
  TestRandom random(2);
  std::vector<TestTensor> out;
  const TestTensor w = random.floats(make_shape({5, 8}), true);
  const TestTensor x = random.floats(make_shape({2, 7}));
  CHECK(!OpRunner("linear", "{}", {x, w}, 1, Isa::kPortable, 1)({x, w}, &out).ok());  // K differs
  const TestTensor good = random.floats(make_shape({2, 8})), bias = random.floats(make_shape({4}), true), r = random.floats(make_shape({2, 1}));
  CHECK(!OpRunner("linear", "{}", {good, w, bias}, 1, Isa::kPortable, 1).status().ok());  // bias of the wrong length
  CHECK(!OpRunner("linear", "{}", {good, w, TestTensor(), r}, 1, Isa::kPortable, 1)({good, w, TestTensor(), r}, &out).ok());
  CHECK(!OpRunner("linear", "{\"activation\":\"relu\"}", {good, w}, 1, Isa::kPortable, 1).status().ok());  // nobody reads it
}

}  // namespace

int main() {
  check_case(make_shape({1, 300}), 1000, true, false, "none", 1);
  check_case(make_shape({2, 3, 65}), 130, true, true, "gelu", 2);
  check_case(make_shape({197, 48}), 64, false, true, "relu", 3);
  check_case(make_shape({7}), 3, false, false, "none", 4);
  check_case(make_shape({3, 1}), 1, true, false, "silu", 5);
  check_case(make_shape({0, 4}), 6, true, false, "none", 6);
  check_case(make_shape({2, 1000}), 17, true, false, "tanh", 7);
  check_refusals();
  return check_result();
}
