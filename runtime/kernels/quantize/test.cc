// quantize and dequantize: every instruction set against the plain loops, the boundaries of the specification by hand, and the operators.
#include <cmath>
#include <limits>

#include "kernels/base/test_op.h"
#include "kernels/quantize/test_cases.h"

namespace netsuke {
namespace {

void boundaries() {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  std::vector<float> x = {0.0f, -0.0f, 0.25f, 0.75f, 1.25f, -0.25f, -0.75f, 1e30f, -1e30f, inf, -inf, nan, -nan};
  // scale 0.5: quotients 0 0 .5 1.5 2.5 -.5 -1.5; halves go to the even integer.
  const std::vector<uint8_t> expected = {10, 10, 10, 12, 12, 10, 8, 200, 4, 200, 4, 4, 4};
  TestAttrs attrs;
  attrs.set("scale", 0.5f).set("zero", 10).set("lo", 4).set("hi", 200);
  for (Isa isa : test_isas()) {
    const TestResult r = run_op("quantize", attrs, {make_tensor(DType::kF32, {13}, x)}, isa, 1);
    CHECK_OK(r.status);
    CHECK(r.bytes == expected);
  }
}

void operators() {
  TestRandom random(3);
  std::vector<float> x(100003);
  for (float& v : x) v = random.uniform(-30.0f, 30.0f);
  std::vector<uint8_t> expected(x.size());
  quantize_reference(x.data(), expected.data(), static_cast<int64_t>(x.size()), 0.17f, Codes{3, 0, 255});
  std::vector<float> back(x.size());
  dequantize_reference(expected.data(), back.data(), static_cast<int64_t>(x.size()), 0.17f, 3);
  TestAttrs attrs;
  attrs.set("scale", 0.17f).set("zero", 3);
  for (Isa isa : test_isas()) {
    for (int threads = 1; threads <= 3; ++threads) {
      TestResult r = run_op("quantize", attrs, {make_tensor(DType::kF32, {1, 100003}, x)}, isa, threads);
      CHECK_OK(r.status);
      CHECK(r.bytes == expected && r.out.dtype == DType::kU8 && r.out.shape.rank == 2);
      r = run_op("dequantize", attrs, {make_tensor(DType::kU8, {100003}, expected)}, isa, threads);
      CHECK_OK(r.status);
      CHECK(std::memcmp(r.bytes.data(), back.data(), r.bytes.size()) == 0 && r.out.dtype == DType::kF32);
      r = run_op("quantize", attrs, {make_tensor(DType::kF32, {0, 7}, x)}, isa, threads);
      CHECK(r.status.ok() && r.bytes.empty());
    }
  }
}

void refusals() {
  std::vector<float> x(4);
  std::vector<uint8_t> q(4);
  const Isa isa = Isa::kPortable;
  const Tensor f = make_tensor(DType::kF32, {4}, x), u = make_tensor(DType::kU8, {4}, q);
  CHECK(!run_op("quantize", TestAttrs().set("scale", 0.0f).set("zero", 0), {f}, isa, 1).status.ok());
  CHECK(!run_op("quantize", TestAttrs().set("scale", INFINITY).set("zero", 0), {f}, isa, 1).status.ok());
  CHECK(!run_op("quantize", TestAttrs().set("scale", 1.0f).set("zero", 256), {f}, isa, 1).status.ok());
  CHECK(!run_op("quantize", TestAttrs().set("scale", 1.0f), {f}, isa, 1).status.ok());
  CHECK(!run_op("quantize", TestAttrs().set("scale", 1.0f).set("zero", 0).set("lo", 5).set("hi", 4), {f}, isa, 1).status.ok());
  CHECK(!run_op("quantize", TestAttrs().set("scale", 1.0f).set("zero", 0), {u}, isa, 1).status.ok());
  CHECK(!run_op("dequantize", TestAttrs().set("scale", 1.0f).set("zero", -1), {u}, isa, 1).status.ok());
  CHECK(!run_op("dequantize", TestAttrs().set("scale", 1.0f).set("zero", 0), {f}, isa, 1).status.ok());
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_quantize(quantize_kernels(isa));
  boundaries();
  operators();
  refusals();
  return check_result();
}
