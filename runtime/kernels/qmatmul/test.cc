// qmatmul: every instruction set against the plain loops, the operator, and what it refuses.
#include "kernels/base/test_op.h"
#include "kernels/qmatmul/test_cases.h"

namespace netsuke {
namespace {

void operators() {
  TestRandom random(5);
  std::vector<uint8_t> a(2 * 3 * 19 * 21), b(3 * 21 * 35);
  for (uint8_t& v : a) v = random.code();
  for (uint8_t& v : b) v = random.code();
  const Tensor ta = make_tensor(DType::kU8, {2, 3, 19, 21}, a), tb = make_tensor(DType::kU8, {3, 21, 35}, b);
  QMatmulShape shape;
  Shape out;
  CHECK_OK(qmatmul_shape(ta.shape, tb.shape, false, &shape, &out));
  QMatmulParams params;
  params.a_zero = 7;
  params.b_zero = 130;
  params.mult = 0.004f;
  params.codes = Codes{128, 0, 255};
  for (bool f32 : {false, true}) {
    params.f32_out = f32;
    std::vector<uint8_t> expected(static_cast<size_t>(out.elements()) * (f32 ? 4 : 1));
    qmatmul_reference(shape, params, a.data(), b.data(), expected.data());
    TestAttrs attrs;
    attrs.set("a_zero", 7).set("b_zero", 130).set("mult", 0.004f).set("zero", 128).set("out", f32 ? "f32" : "u8");
    for (Isa isa : test_isas()) {
      for (int threads = 1; threads <= 3; ++threads) {
        const TestResult r = run_op("qmatmul", attrs, {ta, tb}, isa, threads);
        CHECK_OK(r.status);
        CHECK(r.bytes == expected && r.out.shape == test_shape({2, 3, 19, 35}));
        CHECK(r.out.dtype == (f32 ? DType::kF32 : DType::kU8));
      }
    }
  }
}

void refusals() {
  std::vector<uint8_t> data(200000);
  const auto u8 = [&](std::vector<int64_t> dims) { return make_tensor(DType::kU8, dims, data); };
  const auto attrs = [] { return TestAttrs().set("a_zero", 0).set("b_zero", 255).set("mult", 0.1f); };
  const auto ok = [&](const TestAttrs& a, std::vector<int64_t> x, std::vector<int64_t> y) {
    return run_op("qmatmul", a, {u8(x), u8(y)}, Isa::kPortable, 1).status.ok();
  };
  CHECK(ok(attrs(), {2, 3}, {3, 2}));
  CHECK(!ok(attrs(), {2, 3}, {2, 3}));
  CHECK(ok(attrs().set("trans_b", 1), {2, 3}, {2, 3}));
  CHECK(!ok(attrs().set("trans_b", 2), {2, 3}, {2, 3}));
  CHECK(!ok(attrs(), {3}, {3, 2}));
  CHECK(!ok(attrs(), {2, 2, 3}, {3, 3, 2}));
  CHECK(!ok(attrs().set("a_zero", 256), {2, 3}, {3, 2}));
  CHECK(!ok(attrs().set("mult", __builtin_inff()), {2, 3}, {3, 2}));
  CHECK(!ok(attrs().set("out", "s8"), {2, 3}, {3, 2}));
  CHECK(ok(attrs(), {1, 33025}, {33025, 1}));
  CHECK(!ok(attrs(), {1, 33026}, {33026, 1}));
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_qmatmul(qmatmul_kernels(isa), 150);
  operators();
  refusals();
  return check_result();
}
