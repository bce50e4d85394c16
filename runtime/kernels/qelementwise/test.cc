// qadd and qmul: every instruction set against the plain loops; broadcasting of random shapes; in place; refusals.
#include "kernels/base/test_op.h"
#include "kernels/qelementwise/test_cases.h"

namespace netsuke {
namespace {

struct Shapes {
  std::vector<int64_t> a, b;
};

std::vector<Shapes> shape_cases(TestRandom& random) {
  std::vector<Shapes> cases = {{{2, 9, 9, 24}, {2, 1, 1, 24}}, {{2, 1, 1, 24}, {2, 9, 9, 24}}, {{1, 112, 112, 16}, {16}}, {{3, 5000}, {3, 1}},
                               {{4, 3000}, {3000}},            {{2, 7, 7, 5}, {2, 7, 7, 1}},   {{}, {}},                  {{5}, {}},
                               {{0, 4}, {4}},                  {{7, 1}, {1, 9}},               {{100003}, {100003}},      {{1, 56, 56, 72}, {1, 1, 1, 72}},
                               {{9000, 2}, {9000, 1}}};
  for (int i = 0; i < 120; ++i) {
    Shapes shapes;
    const int64_t rank = random.range(1, 5), missing = random.range(0, rank - 1);
    for (int64_t d = 0; d < rank; ++d) {
      const int64_t dim = random.range(1, 12), kind = random.range(0, 3);
      shapes.a.push_back(kind == 0 ? 1 : dim);
      if (d >= missing) shapes.b.push_back(kind == 1 ? 1 : dim);
    }
    if (random.range(0, 1)) std::swap(shapes.a, shapes.b);
    cases.push_back(shapes);
  }
  return cases;
}

TestAttrs attrs_of(const QBinaryParams& p, bool mul) {
  TestAttrs attrs;
  attrs.set("a_zero", p.a_zero).set("b_zero", p.b_zero).set("zero", p.codes.zero).set("lo", p.codes.lo).set("hi", p.codes.hi);
  if (mul) attrs.set("mult", p.mult);
  else attrs.set("a_mult", p.a_mult).set("b_mult", p.b_mult);
  if (!mul && p.fused) attrs.set("offset", p.offset);
  return attrs;
}

void broadcasting() {
  TestRandom random(4);
  int index = 0;
  for (const Shapes& shapes : shape_cases(random)) {
    const bool mul = ++index % 2 == 0;
    const QBinaryParams params = random_qbinary(random);
    std::vector<uint8_t> a(static_cast<size_t>(test_shape(shapes.a).elements())), b(static_cast<size_t>(test_shape(shapes.b).elements()));
    for (uint8_t& v : a) v = random.code();
    for (uint8_t& v : b) v = random.code();
    const Tensor ta = make_tensor(DType::kU8, shapes.a, a), tb = make_tensor(DType::kU8, shapes.b, b);
    Shape out;
    CHECK_OK(broadcast(ta.shape, tb.shape, &out));
    std::vector<uint8_t> expected(static_cast<size_t>(out.elements()));
    qbinary_reference(mul, ta.shape, a.data(), tb.shape, b.data(), out, expected.data(), params);
    for (Isa isa : test_isas()) {
      const char* name = mul ? "qmul" : "qadd";
      TestResult r = run_op(name, attrs_of(params, mul), {ta, tb}, isa, 1 + index % 3);
      CHECK_OK(r.status);
      CHECK(r.bytes == expected && r.out.shape == out);
      if (ta.shape.elements() == out.elements()) CHECK(run_op(name, attrs_of(params, mul), {ta, tb}, isa, 2, 0, 0).bytes == expected);
      if (tb.shape.elements() == out.elements()) CHECK(run_op(name, attrs_of(params, mul), {ta, tb}, isa, 2, 0, 1).bytes == expected);
    }
  }
}

void refusals() {
  std::vector<uint8_t> data(64);
  const Tensor x = make_tensor(DType::kU8, {2, 3}, data), y = make_tensor(DType::kU8, {2, 4}, data);
  const QBinaryParams params{1, 2, 0.5f, 0.5f, 0.5f, Codes{3, 0, 255}};
  for (const char* name : {"qadd", "qmul"}) {
    const bool mul = name[1] == 'm';
    CHECK(run_op(name, attrs_of(params, mul), {x, x}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op(name, attrs_of(params, mul), {x, y}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op(name, attrs_of(params, mul), {x}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op(name, attrs_of(params, mul).set("lo", 9).set("hi", 8), {x, x}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op(name, attrs_of(params, mul).set("b_zero", -1), {x, x}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op(name, attrs_of(params, !mul), {x, x}, Isa::kPortable, 1).status.ok());
  }
}

// All pairs of codes against the definition, in int64; halves (e = 31, m = 2^30) included; refusals.
void dyadic() {
  TestRandom random(6);
  std::vector<uint8_t> a(65536), b(65536);
  for (size_t i = 0; i < 65536; ++i) {
    a[i] = static_cast<uint8_t>(i);
    b[i] = static_cast<uint8_t>(i >> 8);
  }
  const Tensor ta = make_tensor(DType::kU8, {65536}, a), tb = make_tensor(DType::kU8, {65536}, b);
  for (int round = 0; round < 12; ++round) {
    const bool half = round % 3 == 0;
    const int64_t a_m = half ? int64_t{1} << 30 : random.range(int64_t{1} << 30, INT32_MAX), b_m = round == 1 ? 0 : random.range(int64_t{1} << 30, INT32_MAX);
    const int64_t a_e = half ? 31 : random.range(1, 62), b_e = random.range(28, 36), a_zero = random.range(0, 255), b_zero = random.range(0, 255);
    const int64_t zero = random.range(0, 255), lo = random.range(0, 100), hi = random.range(lo, 255);
    TestAttrs attrs;
    attrs.set("a_zero", a_zero).set("b_zero", b_zero).set("a_m", a_m).set("a_e", a_e).set("b_m", b_m).set("b_e", b_e);
    attrs.set("zero", zero).set("lo", lo).set("hi", hi);
    std::vector<uint8_t> expected(65536);
    for (size_t i = 0; i < 65536; ++i) {
      const int64_t v = shift_rne((a[i] - a_zero) * a_m, static_cast<int32_t>(a_e)) + shift_rne((b[i] - b_zero) * b_m, static_cast<int32_t>(b_e)) + zero;
      expected[i] = static_cast<uint8_t>(v < lo ? lo : v > hi ? hi : v);
    }
    const TestResult r = run_op("qadd_dyadic", attrs, {ta, tb}, Isa::kPortable, 1 + round % 3);
    CHECK_OK(r.status);
    CHECK(r.bytes == expected);
    CHECK(run_op("qadd_dyadic", attrs, {ta, tb}, Isa::kPortable, 2, 0, 0).bytes == expected);
    CHECK(!run_op("qadd_dyadic", attrs.set("a_m", int64_t{5}), {ta, tb}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op("qadd_dyadic", attrs.set("a_m", a_m).set("b_e", int64_t{63}), {ta, tb}, Isa::kPortable, 1).status.ok());
  }
  CHECK(shift_rne(3, 1) == 2 && shift_rne(1, 1) == 0 && shift_rne(-1, 1) == 0 && shift_rne(-3, 1) == -2 && shift_rne(-5, 1) == -2);
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_qbinary(qelementwise_kernels(isa));
  broadcasting();
  refusals();
  dyadic();
  return check_result();
}
