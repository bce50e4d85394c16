// qavgpool and qmean: every instruction set against the plain loops, one average by hand, operators, refusals.
#include "kernels/base/test_op.h"
#include "kernels/qpool/test_cases.h"

namespace netsuke {
namespace {

TestAttrs& set_params(TestAttrs& attrs, const QPoolParams& p) {
  return attrs.set("x_zero", p.x_zero).set("mult", p.mult).set("zero", p.codes.zero).set("lo", p.codes.lo).set("hi", p.codes.hi);
}

// Codes 10 11 12 13 with x_zero 10: windows of 2 average 0.5 and 2.5, halves to even: 0 and 2, zero 7.
void by_hand() {
  std::vector<uint8_t> x = {10, 11, 12, 13};
  TestAttrs attrs;
  attrs.set("kernel", std::vector<int64_t>{1, 2}).set("strides", std::vector<int64_t>{1, 2}).set("pads", std::vector<int64_t>{0, 0, 0, 0});
  set_params(attrs, QPoolParams{10, 1.0f, Codes{7, 0, 255}});
  for (Isa isa : test_isas()) {
    const TestResult r = run_op("qavgpool", attrs, {make_tensor(DType::kU8, {1, 1, 4, 1}, x)}, isa, 1);
    CHECK_OK(r.status);
    CHECK((r.bytes == std::vector<uint8_t>{7, 9}));
  }
}

void operators() {
  TestRandom random(13);
  for (int i = 0; i < 16; ++i) {
    PoolCase test = random_pool_case(random, false);
    test.x[0] = i == 0 ? 0 : random.range(1, 5);
    if (i == 1) test.x = {2, 40, 41, 200};
    const QPoolParams params = random_qpool(random);
    PoolShape shape;
    Shape out;
    CHECK_OK(pool_shape(test.window, test_shape(test.x), &shape, &out));
    std::vector<uint8_t> x(static_cast<size_t>(test_shape(test.x).elements())), expected(static_cast<size_t>(out.elements()));
    std::vector<uint8_t> means(static_cast<size_t>(shape.n * shape.c));
    for (uint8_t& v : x) v = random.code();
    for (int64_t image = 0; image < shape.n; ++image) {
      const uint8_t* start = x.data() + image * shape.h * shape.w * shape.c;
      for (int64_t row = 0; row < shape.out_h; ++row) {
        qpool_reference.avg(test.window, shape, start, row, params, expected.data() + (image * shape.out_h + row) * shape.out_w * shape.c);
      }
      qpool_reference.mean(start, shape.h * shape.w, shape.c, shape.c, params, means.data() + image * shape.c);
    }
    TestAttrs window = window_attrs(test.window, false, true), plain;
    for (Isa isa : test_isas()) {
      for (int threads = 1; threads <= 3; ++threads) {
        TestResult r = run_op("qavgpool", set_params(window, params), {make_tensor(DType::kU8, test.x, x)}, isa, threads);
        CHECK_OK(r.status);
        CHECK(r.bytes == expected && r.out.shape == out);
        r = run_op("qmean", set_params(plain, params), {make_tensor(DType::kU8, test.x, x)}, isa, threads);
        CHECK_OK(r.status);
        CHECK(r.bytes == means && r.out.shape == test_shape({shape.n, 1, 1, shape.c}));
      }
    }
  }
}

void refusals() {
  std::vector<uint8_t> x(64);
  std::vector<float> f(64);
  TestAttrs attrs;
  set_params(attrs, QPoolParams());
  CHECK(run_op("qmean", attrs, {make_tensor(DType::kU8, {1, 2, 2, 4}, x)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("qmean", attrs, {make_tensor(DType::kU8, {1, 0, 2, 4}, x)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("qmean", attrs, {make_tensor(DType::kU8, {0, 3000, 3000, 4}, x)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("qmean", attrs, {make_tensor(DType::kU8, {2, 2, 4}, x)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("qmean", attrs, {make_tensor(DType::kF32, {1, 2, 2, 4}, f)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("qavgpool", attrs, {make_tensor(DType::kU8, {1, 2, 2, 4}, x)}, Isa::kPortable, 1).status.ok());
  attrs.set("kernel", std::vector<int64_t>{2, 2}).set("strides", std::vector<int64_t>{1, 1}).set("pads", std::vector<int64_t>{0, 0, 0, 0});
  CHECK(run_op("qavgpool", attrs, {make_tensor(DType::kU8, {1, 2, 2, 4}, x)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("qavgpool", attrs.set("x_zero", 300), {make_tensor(DType::kU8, {1, 2, 2, 4}, x)}, Isa::kPortable, 1).status.ok());
}

// Sums times m / 2^e against the definition; another number of positions than the node's is refused.
void dyadic() {
  TestRandom random(14);
  for (int i = 0; i < 40; ++i) {
    const int64_t n = random.range(1, 3), h = random.range(1, 9), w = random.range(1, 9), c = random.range(1, 150), x_zero = random.range(0, 255);
    const int64_t m = i % 4 ? random.range(int64_t{1} << 30, INT32_MAX) : int64_t{1} << 30, e = i % 4 ? random.range(31, 40) : 32;
    const int64_t zero = random.range(0, 255), lo = random.range(0, 100), hi = random.range(lo, 255);
    std::vector<uint8_t> x(static_cast<size_t>(n * h * w * c)), expected(static_cast<size_t>(n * c));
    for (uint8_t& v : x) v = random.code();
    for (int64_t k = 0; k < n * c; ++k) {
      int64_t sum = 0;
      for (int64_t p = 0; p < h * w; ++p) sum += x[static_cast<size_t>((k / c * h * w + p) * c + k % c)] - x_zero;
      const int64_t v = shift_rne(sum * m, static_cast<int32_t>(e)) + zero;
      expected[static_cast<size_t>(k)] = static_cast<uint8_t>(v < lo ? lo : v > hi ? hi : v);
    }
    TestAttrs attrs;
    attrs.set("x_zero", x_zero).set("m", m).set("e", e).set("count", h * w).set("zero", zero).set("lo", lo).set("hi", hi);
    const TestResult r = run_op("qmean_dyadic", attrs, {make_tensor(DType::kU8, {n, h, w, c}, x)}, Isa::kPortable, 1 + i % 3);
    CHECK_OK(r.status);
    CHECK(r.bytes == expected && r.out.shape == test_shape({n, 1, 1, c}));
    CHECK(!run_op("qmean_dyadic", attrs.set("count", h * w + 1), {make_tensor(DType::kU8, {n, h, w, c}, x)}, Isa::kPortable, 1).status.ok());
    CHECK(!run_op("qmean_dyadic", attrs.set("count", int64_t{0}), {make_tensor(DType::kU8, {n, h, w, c}, x)}, Isa::kPortable, 1).status.ok());
  }
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_qpool(qpool_kernels(isa), 200);
  by_hand();
  operators();
  refusals();
  dyadic();
  return check_result();
}
