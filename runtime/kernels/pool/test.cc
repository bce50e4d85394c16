// maxpool and avgpool: every instruction set against the plain loops, output sizes and averages by hand, operators, refusals.
#include <cmath>

#include "kernels/pool/test_cases.h"

namespace netsuke {
namespace {

// Output widths of an H = 1 input, from PyTorch 2.13's max_pool2d.
void sizes() {
  const struct { int64_t size, kernel, stride, pad, dilation; bool ceil; int64_t out; } rows[] = {
      {112, 3, 2, 1, 1, false, 56}, {7, 2, 2, 0, 1, false, 3}, {7, 2, 2, 0, 1, true, 4},
      {5, 3, 3, 1, 1, true, 2},     {4, 1, 3, 0, 1, true, 2},  {9, 3, 2, 1, 2, false, 4}, {5, 2, 4, 1, 1, true, 2}};
  for (const auto& row : rows) {
    PoolWindow window;
    window.kernel[1] = row.kernel;
    window.strides[1] = row.stride;
    window.pads[1] = window.pads[3] = row.pad;
    window.dilations[1] = row.dilation;
    window.ceil = row.ceil;
    PoolShape shape;
    Shape out;
    CHECK_OK(pool_shape(window, test_shape({1, 1, row.size, 1}), &shape, &out));
    CHECK(out.dim[2] == row.out);
  }
}

// 1 2 3 4 5 with a window of 3, stride 2, one column of padding each side: {1 2} {2 3 4} {4 5}.
void averages() {
  std::vector<float> x = {1, 2, 3, 4, 5};
  TestAttrs attrs;
  attrs.set("kernel", std::vector<int64_t>{1, 3}).set("strides", std::vector<int64_t>{1, 2}).set("pads", std::vector<int64_t>{0, 1, 0, 1});
  for (int include = 0; include < 2; ++include) {
    attrs.set("count_include_pad", include);
    const std::vector<float> expected = include ? std::vector<float>{1.0f, 3.0f, 3.0f} : std::vector<float>{1.5f, 3.0f, 4.5f};
    for (Isa isa : test_isas()) {
      const TestResult r = run_op("avgpool", attrs, {make_tensor(DType::kF32, {1, 1, 5, 1}, x)}, isa, 1);
      CHECK_OK(r.status);
      CHECK(r.bytes.size() == 12 && std::memcmp(r.bytes.data(), expected.data(), 12) == 0);
    }
  }
}

template <typename T, typename Row>
void compare_op(const char* name, const TestAttrs& attrs, DType dtype, const PoolCase& test, std::vector<T>& x, const Row& reference) {
  PoolShape shape;
  Shape out;
  CHECK_OK(pool_shape(test.window, test_shape(test.x), &shape, &out));
  std::vector<T> expected(static_cast<size_t>(out.elements()));
  for (int64_t i = 0; i < shape.n * shape.out_h; ++i) {
    reference(test.window, shape, x.data() + i / shape.out_h * shape.h * shape.w * shape.c, i % shape.out_h, expected.data() + i * shape.out_w * shape.c);
  }
  for (Isa isa : test_isas()) {
    for (int threads = 1; threads <= 3; ++threads) {
      const TestResult r = run_op(name, attrs, {make_tensor(dtype, test.x, x)}, isa, threads);
      CHECK_OK(r.status);
      CHECK(r.out.shape == out && r.out.dtype == dtype);
      CHECK(r.bytes.size() == expected.size() * sizeof(T));
      CHECK(r.bytes.empty() || std::memcmp(r.bytes.data(), expected.data(), r.bytes.size()) == 0);
    }
  }
}

void operators() {
  TestRandom random(10);
  for (int i = 0; i < 12; ++i) {
    PoolCase test = random_pool_case(random, i % 2 == 0);
    test.x[0] = i == 11 ? 0 : random.range(1, 3);
    if (i == 10) test = PoolCase{{{3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, false, false}, {2, 57, 56, 64}};
    const size_t size = static_cast<size_t>(test_shape(test.x).elements());
    std::vector<uint8_t> codes(size);
    std::vector<float> values(size);
    for (uint8_t& v : codes) v = random.code();
    for (float& v : values) v = random.uniform(-5.0f, 5.0f);
    compare_op("maxpool", window_attrs(test.window, true, false), DType::kU8, test, codes, pool_reference.max_u8);
    compare_op("maxpool", window_attrs(test.window, true, false), DType::kF32, test, values, pool_reference.max_f32);
    if (i % 2 == 1) compare_op("avgpool", window_attrs(test.window, false, true), DType::kF32, test, values, pool_reference.avg_f32);
  }
}

void refusals() {
  std::vector<uint8_t> x(64);
  const auto ok = [&](std::vector<int64_t> shape, std::vector<int64_t> kernel, std::vector<int64_t> strides, std::vector<int64_t> pads) {
    TestAttrs attrs;
    attrs.set("kernel", kernel).set("strides", strides).set("pads", pads);
    return run_op("maxpool", attrs, {make_tensor(DType::kU8, shape, x)}, Isa::kPortable, 1).status.ok();
  };
  CHECK(ok({1, 4, 4, 4}, {2, 2}, {2, 2}, {0, 0, 0, 0}));
  CHECK(!ok({4, 4, 4}, {2, 2}, {2, 2}, {0, 0, 0, 0}));
  CHECK(!ok({1, 1, 4, 4}, {2, 2}, {2, 2}, {0, 0, 0, 0}));
  CHECK(!ok({1, 0, 4, 4}, {2, 2}, {2, 2}, {1, 1, 1, 1}));
  CHECK(!ok({1, 4, 4, 4}, {2}, {2, 2}, {0, 0, 0, 0}));
  CHECK(!ok({1, 4, 4, 4}, {2, 0}, {2, 2}, {0, 0, 0, 0}));
  CHECK(!ok({1, 4, 4, 4}, {2, 2}, {0, 2}, {0, 0, 0, 0}));
  CHECK(!ok({1, 4, 4, 4}, {2, 2}, {2, 2}, {0, 0, 2, 0}));
  CHECK(!ok({1, 4, 4, 4}, {2, 2}, {2, 2}, {0, 0, -1, 0}));
  CHECK(!ok({1, 4, 4, 4}, {2, 2}, {2, 2}, {0, 0}));
  CHECK(!ok({1, 2, 2, 4}, {3, 3}, {2, 2}, {0, 0, 0, 0}));
  TestAttrs attrs;
  attrs.set("kernel", std::vector<int64_t>{2, 2}).set("strides", std::vector<int64_t>{2, 2}).set("pads", std::vector<int64_t>{0, 0, 0, 0});
  CHECK(!run_op("avgpool", attrs, {make_tensor(DType::kU8, {1, 4, 4, 4}, x)}, Isa::kPortable, 1).status.ok());
  CHECK(!run_op("maxpool", attrs.set("ceil", 2), {make_tensor(DType::kU8, {1, 4, 4, 4}, x)}, Isa::kPortable, 1).status.ok());
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_pool(pool_kernels(isa), 200);
  sizes();
  averages();
  operators();
  refusals();
  return check_result();
}
