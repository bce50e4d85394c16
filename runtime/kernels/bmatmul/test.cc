// bmatmul: every instruction set against plain loops over signs, and the operator's refusals.
#include "kernels/base/test_op.h"

namespace netsuke {
namespace {

struct Case {
  int64_t batch, m, n, k;
  bool zero_one, packed, bits, relative;
  int64_t threshold;
};

std::vector<uint64_t> random_words(TestRandom& random, int64_t rows, int64_t k) {
  std::vector<uint64_t> words(static_cast<size_t>(rows * ((k + 63) / 64)) + 1);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) words[static_cast<size_t>(r * ((k + 63) / 64) + i / 64)] |= (random.next() & 1) << (i % 64);
  }
  return words;
}

float term(const std::vector<uint64_t>& words, int64_t row, int64_t i, int64_t k, bool zero_one) {
  const bool set = (words[static_cast<size_t>(row * ((k + 63) / 64) + i / 64)] >> (i % 64) & 1) != 0;
  return set ? 1.0f : zero_one ? 0.0f : -1.0f;
}

void compare(TestRandom& random, const Case& c, Isa isa, int threads) {
  std::vector<uint64_t> a = random_words(random, c.batch * c.m, c.k), b = random_words(random, c.batch * c.n, c.k);
  std::vector<float> numbers(static_cast<size_t>(c.batch * c.k * c.n) + 1);
  for (float& v : numbers) v = random.uniform(-1.0f, 1.0f);
  const int64_t words = (c.k + 63) / 64, wide = (c.n + 63) / 64;
  const float mult = 0.37f;
  std::vector<float> sums(static_cast<size_t>(c.n));
  std::vector<float> want(static_cast<size_t>(c.batch * c.m * c.n));
  std::vector<uint64_t> want_bits(static_cast<size_t>(c.batch * c.m * wide));
  for (int64_t row = 0; row < c.batch * c.m; ++row) {
    float most = -1e30f;
    for (int64_t j = 0; j < c.n; ++j) {
      float acc = 0;
      for (int64_t i = 0; i < c.k; ++i) {
        const float left = term(a, row, i, c.k, c.zero_one);
        const float right = c.packed ? term(b, row / c.m * c.n + j, i, c.k, false) : numbers[static_cast<size_t>((row / c.m * c.k + i) * c.n + j)];
        if (left != 0) acc += left * right;
      }
      sums[static_cast<size_t>(j)] = acc;
      most = acc > most ? acc : most;
    }
    for (int64_t j = 0; j < c.n; ++j) {
      const float acc = sums[static_cast<size_t>(j)];
      want[static_cast<size_t>(row * c.n + j)] = acc * mult;
      const bool set = acc >= static_cast<float>(c.threshold) + (c.relative ? most : 0);
      want_bits[static_cast<size_t>(row * wide + j / 64)] |= static_cast<uint64_t>(set) << (j % 64);
    }
  }
  TestAttrs attrs;
  attrs.set("channels", c.k).set("levels", c.zero_one ? "bool" : "sign").set("out", c.bits ? "bits" : "f32");
  attrs.set("threshold", c.threshold).set("relative", c.relative ? 1 : 0);
  if (c.bits) attrs.set("columns", c.n);
  else attrs.set("mult", mult);
  const Tensor left = make_tensor(DType::kI64, {c.batch, c.m, words}, a);
  const Tensor right = c.packed ? make_tensor(DType::kI64, {c.batch, c.n, words}, b) : make_tensor(DType::kF32, {c.batch, c.k, c.n}, numbers);
  const TestResult r = run_op("bmatmul", attrs, {left, right}, isa, threads);
  CHECK_OK(r.status);
  const size_t bytes = c.bits ? want_bits.size() * 8 : want.size() * 4;
  CHECK(r.bytes.size() == bytes);
  const void* expected = c.bits ? static_cast<const void*>(want_bits.data()) : want.data();
  CHECK(bytes == 0 || std::memcmp(r.bytes.data(), expected, bytes) == 0);
}

void refusals(Isa isa) {
  std::vector<uint64_t> words(64);
  std::vector<float> numbers(64);
  const Tensor a = make_tensor(DType::kI64, {2, 3, 1}, words), b = make_tensor(DType::kI64, {2, 4, 1}, words);
  const Tensor other = make_tensor(DType::kI64, {1, 4, 1}, words), wide = make_tensor(DType::kI64, {2, 4, 2}, words);
  const Tensor f = make_tensor(DType::kF32, {2, 5, 4}, numbers), vector = make_tensor(DType::kI64, {1}, words);
  const auto ok = [&](const TestAttrs& attrs, const Tensor& x, const Tensor& y) { return run_op("bmatmul", attrs, {x, y}, isa, 1).status.ok(); };
  CHECK(ok(TestAttrs().set("channels", 5), a, b) && ok(TestAttrs().set("channels", 5), a, f));
  CHECK(!ok(TestAttrs(), a, b) && !ok(TestAttrs().set("channels", 0), a, b) && !ok(TestAttrs().set("channels", 65), a, b));
  CHECK(!ok(TestAttrs().set("channels", 5), a, other) && !ok(TestAttrs().set("channels", 5), a, wide));
  CHECK(!ok(TestAttrs().set("channels", 6), a, f) && !ok(TestAttrs().set("channels", 5).set("out", "bits").set("columns", 4), a, f));
  CHECK(!ok(TestAttrs().set("channels", 5).set("out", "bits"), a, b) && !ok(TestAttrs().set("channels", 5).set("out", "bits").set("columns", 3), a, b));
  CHECK(!ok(TestAttrs().set("channels", 5), vector, vector) && !ok(TestAttrs().set("channels", 5), f, f));
  CHECK(!ok(TestAttrs().set("channels", 5).set("levels", "ternary"), a, b) && !ok(TestAttrs().set("channels", 5).set("relative", 2), a, b));
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) {
    TestRandom random(1);
    for (int i = 0; i < 300; ++i) {
      Case c{random.range(0, 3), random.range(0, 9), random.range(1, 140), random.range(1, 200), random.range(0, 1) == 0,
             random.range(0, 3) != 0, false, false, 0};
      c.bits = c.packed && random.range(0, 1) == 0;
      c.relative = c.bits && random.range(0, 1) == 0;
      c.threshold = c.bits ? random.range(-12, c.relative ? 0 : 12) : 0;
      compare(random, c, isa, 1 + i % 2);
    }
    refusals(isa);
  }
  return check_result();
}
