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

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_qbinary(qelementwise_kernels(isa));
  broadcasting();
  refusals();
  return check_result();
}
