// reduce and argmax over every set of axes against double; bits equal on every instruction set and to the order of numerics.md.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_NAME "wide"
#include "kernels/reduce/generic.inc"

namespace {

using namespace netsuke;

// The elements of x that fall on each output, row-major.
std::vector<std::vector<double>> groups_of(const TestTensor& x, uint32_t axes) {
  std::vector<std::vector<double>> groups;
  int64_t kept = 1;
  for (int d = 0; d < x.shape.rank; ++d) kept *= axes >> d & 1 ? 1 : x.shape.dim[d];
  groups.resize(static_cast<size_t>(kept));
  for (int64_t i = 0; i < x.size(); ++i) {
    int64_t left = i, at = 0, step = 1;
    for (int d = x.shape.rank - 1; d >= 0; --d) {
      if (!(axes >> d & 1)) {
        at += left % x.shape.dim[d] * step;
        step *= x.shape.dim[d];
      }
      left /= x.shape.dim[d];
    }
    groups[static_cast<size_t>(at)].push_back(x.data<float>()[i]);
  }
  return groups;
}

double fold(const std::string& fn, const std::vector<double>& v, double* size) {
  double sum = 0, abs = 0, squares = 0, product = 1, top = -INFINITY, low = INFINITY, exps = 0;
  for (double x : v) {
    sum += x;
    abs += std::fabs(x);
    squares += x * x;
    product *= x;
    top = std::fmax(top, x);
    low = std::fmin(low, x);
  }
  for (double x : v) exps += std::exp(x - top);
  const double n = static_cast<double>(v.size());
  *size = fn == "mean" ? abs / n : (fn == "sum" || fn == "l1" ? abs : (fn == "l2" || fn == "sumsq" ? squares + 1 : std::fabs(product) + std::fabs(top) + 3));
  if (fn == "mean") return sum / n;
  if (fn == "sum") return sum;
  if (fn == "max") return top;
  if (fn == "min") return low;
  if (fn == "prod") return product;
  if (fn == "l1") return abs;
  if (fn == "l2") return std::sqrt(squares);
  return fn == "sumsq" ? squares : top + std::log(exps);
}

void check_case(const Shape& shape, uint32_t axes, uint64_t seed) {
  TestRandom random(seed);
  const std::vector<TestTensor> in = {random.floats(shape, false, 1.5f)};
  const auto groups = groups_of(in[0], axes);
  std::string list;
  for (int d = 0; d < shape.rank; ++d) {
    if (axes >> d & 1) list += (list.empty() ? "" : ",") + std::to_string(seed % 2 ? d : d - shape.rank);
  }
  for (const char* fn : {"mean", "sum", "max", "min", "prod", "l1", "l2", "sumsq", "logsumexp"}) {
    const std::string attrs = std::string("{\"fn\":\"") + fn + "\",\"axes\":[" + list + "],\"keepdims\":" + (seed % 3 ? "1}" : "0}");
    std::vector<TestTensor> plain;
    CHECK_OK(OpRunner("reduce", attrs.c_str(), in, 1, Isa::kPortable, 1)(in, &plain));
    if (!CHECK(plain.size() == 1 && plain[0].size() == static_cast<int64_t>(groups.size()))) continue;
    int64_t bad = 0;
    for (size_t i = 0; i < groups.size(); ++i) {
      double size;
      const double exact = fold(fn, groups[i], &size);
      const double allowed = (static_cast<double>(groups[i].size()) + 8) * 0x1p-24 * size;  // n roundings of at most `size`
      if (!(std::fabs(plain[0].data<float>()[i] - exact) <= allowed)) ++bad;
    }
    if (!CHECK(bad == 0)) std::fprintf(stderr, "  %s %s\n", shape_text(shape).c_str(), attrs.c_str());
    for (Isa isa : testable_isas()) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner("reduce", attrs.c_str(), in, 1, isa, 3)(in, &out));
      CHECK(same_floats(plain[0], out[0]));
    }
  }
}

// The order itself, written out: the same numbers summed as rows, as columns and gathered give these bits.
void check_order() {
  TestRandom random(3);
  const int64_t n = 59;
  TestTensor row = random.floats(make_shape({n}));
  float p[16] = {};
  for (int64_t i = 0; i < n; ++i) p[i % 16] = p[i % 16] + row.data<float>()[i];
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) p[i] = p[i] + p[i + half];
  }
  TestTensor column(DType::kF32, make_shape({n, 3})), split(DType::kF32, make_shape({n, 2, 1}));
  for (int64_t i = 0; i < n; ++i) {
    for (int j = 0; j < 3; ++j) column.data<float>()[i * 3 + j] = row.data<float>()[i];
    for (int j = 0; j < 2; ++j) split.data<float>()[i * 2 + j] = row.data<float>()[i];
  }
  for (Isa isa : testable_isas()) {
    for (const TestTensor* x : {&row, &column, &split}) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner("reduce", "{\"fn\":\"sum\",\"axes\":[0]}", {*x}, 1, isa, 1)({*x}, &out));
      for (int64_t i = 0; i < out[0].size(); ++i) CHECK(out[0].data<float>()[i] == p[0]);
    }
  }
}

void check_wide() {
  TestRandom random(5);
  for (int64_t n : {1, 15, 16, 17, 64, 131}) {
    const TestTensor x = random.floats(make_shape({n, 37}));
    for (int fold_of = 0; fold_of < static_cast<int>(Fold::count); ++fold_of) {
      CHECK(reduce_kernels_wide.rows[fold_of](x.data<float>(), n, 0.5f) == reduce_kernels_portable.rows[fold_of](x.data<float>(), n, 0.5f));
      std::vector<float> a(37), b(37), shift(37, 0.25f);
      reduce_kernels_wide.columns[fold_of](x.data<float>(), n, 37, shift.data(), a.data(), 37);
      reduce_kernels_portable.columns[fold_of](x.data<float>(), n, 37, shift.data(), b.data(), 37);
      CHECK(a == b);
    }
  }
}

void check_others() {
  TestTensor ints(DType::kI64, make_shape({2, 3})), bools(DType::kBool, make_shape({2, 3}));
  const int64_t values[] = {5, -7, 2, 4, 4, int64_t{1} << 62};
  for (int i = 0; i < 6; ++i) ints.data<int64_t>()[i] = values[i], bools.data<uint8_t>()[i] = i > 0;
  const struct {
    const char* fn;
    int64_t expected[2];
  } rows[] = {{"sum", {0, (int64_t{1} << 62) + 8}}, {"max", {5, int64_t{1} << 62}}, {"min", {-7, 4}}, {"prod", {-70, 0}}};
  std::vector<TestTensor> out;
  for (const auto& row : rows) {
    CHECK_OK(OpRunner("reduce", (std::string("{\"fn\":\"") + row.fn + "\",\"axes\":[1]}").c_str(), {ints}, 1, Isa::kPortable, 1)({ints}, &out));
    CHECK(out[0].data<int64_t>()[0] == row.expected[0] && out[0].data<int64_t>()[1] == row.expected[1]);
  }
  CHECK_OK(OpRunner("reduce", "{\"fn\":\"all\",\"axes\":[1],\"keepdims\":0}", {bools}, 1, Isa::kPortable, 1)({bools}, &out));
  CHECK(out[0].shape == make_shape({2}) && out[0].data<uint8_t>()[0] == 0 && out[0].data<uint8_t>()[1] == 1);
  CHECK_OK(OpRunner("reduce", "{\"fn\":\"any\",\"axes\":[0]}", {bools}, 1, Isa::kPortable, 1)({bools}, &out));
  CHECK(out[0].data<uint8_t>()[0] == 1);
  CHECK(!OpRunner("reduce", "{\"fn\":\"mean\",\"axes\":[0]}", {ints}, 1, Isa::kPortable, 1)({ints}, &out).ok());
  CHECK(!OpRunner("reduce", "{\"fn\":\"sum\",\"axes\":[2]}", {ints}, 1, Isa::kPortable, 1)({ints}, &out).ok());
  const TestTensor f = floats(make_shape({2, 2, 3}), {1, 5, 5, 7, 5, NAN, -1, -2, -1, 0, 0, 9});
  CHECK_OK(OpRunner("argmax", "{\"axis\":-1,\"keepdims\":0}", {f}, 1, Isa::kPortable, 2)({f}, &out));
  const int64_t last[] = {1, 2, 0, 2};
  CHECK(out[0].shape == make_shape({2, 2}) && std::memcmp(out[0].bytes.data(), last, sizeof(last)) == 0);
  CHECK_OK(OpRunner("argmax", "{\"axis\":1}", {f}, 1, Isa::kPortable, 2)({f}, &out));
  const int64_t middle[] = {1, 0, 1, 1, 1, 1};
  CHECK(out[0].shape == make_shape({2, 1, 3}) && std::memcmp(out[0].bytes.data(), middle, sizeof(middle)) == 0);
  // infinities in logsumexp
  const TestTensor inf = floats(make_shape({2, 2}), {-INFINITY, -INFINITY, INFINITY, 1});
  CHECK_OK(OpRunner("reduce", "{\"fn\":\"logsumexp\",\"axes\":[1]}", {inf}, 1, Isa::kPortable, 1)({inf}, &out));
  CHECK(out[0].data<float>()[0] == -INFINITY && out[0].data<float>()[1] == INFINITY);
}

}  // namespace

int main() {
  uint64_t seed = 1;
  for (const Shape& shape : {make_shape({2, 7, 5, 33}), make_shape({3, 1, 4, 2}), make_shape({1, 49, 130})}) {
    for (uint32_t axes = 1; axes < 1u << shape.rank; ++axes) check_case(shape, axes, seed++);
  }
  check_case(make_shape({20000}), 1, seed++);
  check_case(make_shape({0, 3}), 2, seed++);
  check_order();
  check_wide();
  check_others();
  return check_result();
}
