// matmul against a plain fma chain, bit for bit, with broadcast batches, transposed and constant b; on bfloat16 against its definition.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"
#include "kernels/fgemm/bf16.h"

namespace {

using namespace netsuke;

enum class Compute { kF32, kBf16, kTinyBf16 };  // tiny: products fall around 2^-126, where sums are flushed

// A row of a times a column of b, elements `step` apart.
float product_of(const float* a, const float* b, int64_t step, int64_t k, Compute compute) {
  float acc = 0;
  for (int64_t j = 0; j < k && compute == Compute::kF32; ++j) acc = std::fma(a[j], b[j * step], acc);
  for (int64_t j = 0; j < k && compute != Compute::kF32; j += 2) {
    const auto pair = [=](const float* v, int64_t s) {
      return rounded_to_bf16(v[j * s]) | (j + 1 < k ? static_cast<uint32_t>(rounded_to_bf16(v[(j + 1) * s])) << 16 : 0);
    };
    acc = bf16_multiply_add(pair(a, 1), pair(b, step), acc);
  }
  return acc;
}

void check_case(const Shape& a, const Shape& b, bool trans, float alpha, uint64_t seed, Compute compute) {
  TestRandom random(seed);
  const int64_t m = a.dim[a.rank - 2], k = a.dim[a.rank - 1], n = trans ? b.dim[b.rank - 2] : b.dim[b.rank - 1];
  Shape ba = a, bb = b, y;
  ba.rank -= 2;
  bb.rank -= 2;
  CHECK_OK(broadcast(ba, bb, &y));
  const int64_t batches = y.elements();
  const Shape batch = y;
  y.dim[y.rank++] = m;
  y.dim[y.rank++] = n;
  std::vector<TestTensor> in = {random.floats(a), random.floats(b)};
  for (TestTensor& t : in) {
    for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] *= compute == Compute::kTinyBf16 ? std::ldexp(1.0f, -66 + static_cast<int>(random.below(8))) : 1.0f;
  }
  TestTensor expected(DType::kF32, y);
  for (int64_t i = 0; i < batches; ++i) {
    int64_t at[2] = {0, 0}, left = i, step[2] = {1, 1};
    for (int d = batch.rank - 1; d >= 0; --d) {
      const int64_t p = left % batch.dim[d];
      left /= batch.dim[d];
      for (int s = 0; s < 2; ++s) {
        const Shape& shape = s ? bb : ba;
        const int j = d - (batch.rank - shape.rank);
        if (j < 0) continue;
        if (shape.dim[j] != 1) at[s] += p * step[s];
        step[s] *= shape.dim[j];
      }
    }
    for (int64_t e = 0; e < m * n; ++e) {
      const float* row = in[0].data<float>() + at[0] * m * k + e / n * k;
      const float* column = in[1].data<float>() + at[1] * k * n + (trans ? e % n * k : e % n);
      const float acc = product_of(row, column, trans ? 1 : n, k, compute);
      expected.data<float>()[i * m * n + e] = acc * alpha;
    }
  }
  char attrs[80];
  std::snprintf(attrs, sizeof(attrs), "{\"trans_b\":%d,\"alpha\":%.9g,\"compute\":\"%s\"}", trans ? 1 : 0, static_cast<double>(alpha),
                compute == Compute::kF32 ? "f32" : "bf16");
  for (Isa isa : testable_isas()) {
    for (int threads : {1, 3}) {
      for (bool constant : {false, true}) {
        in[1].constant = constant;
        std::vector<TestTensor> out;
        CHECK_OK(OpRunner("matmul", attrs, in, 1, isa, threads)(in, &out));
        if (!CHECK(!out.empty() && same_floats(expected, out[0]))) std::fprintf(stderr, "  %s %s %s\n", shape_text(a).c_str(), shape_text(b).c_str(), isa_name(isa));
      }
    }
  }
}

void check_all(Compute compute) {
  check_case(make_shape({5, 7}), make_shape({7, 9}), false, 1, 1, compute);
  check_case(make_shape({2, 3, 50, 32}), make_shape({2, 3, 50, 32}), true, 0.125f, 2, compute);   // attention scores
  check_case(make_shape({2, 3, 50, 50}), make_shape({2, 3, 50, 32}), false, 1, 3, compute);       // attention values
  check_case(make_shape({4, 1, 6, 20}), make_shape({3, 20, 33}), false, 1, 4, compute);           // both batches broadcast
  check_case(make_shape({3, 2, 11, 16}), make_shape({16, 40}), false, 2, 5, compute);             // one b: merged rows
  check_case(make_shape({9, 300}), make_shape({4, 300, 5}), false, 1, 6, compute);                // one a
  check_case(make_shape({130, 500}), make_shape({500, 70}), false, 1, 7, compute);                // large: cut up
  check_case(make_shape({0, 3, 4}), make_shape({0, 4, 5}), false, 1, 8, compute);
  check_case(make_shape({3, 0}), make_shape({0, 2}), false, 1, 9, compute);
}

}  // namespace

int main() {
  for (Compute compute : {Compute::kF32, Compute::kBf16, Compute::kTinyBf16}) check_all(compute);
  TestRandom random(1);
  const std::vector<TestTensor> wrong = {random.floats(make_shape({2, 3})), random.floats(make_shape({4, 5}))};
  std::vector<TestTensor> out;
  CHECK(!OpRunner("matmul", "{}", wrong, 1, Isa::kPortable, 1)(wrong, &out).ok());
  const std::vector<TestTensor> right = {random.floats(make_shape({2, 3})), random.floats(make_shape({3, 5}))};
  CHECK(!OpRunner("matmul", "{\"compute\":\"s8\"}", right, 1, Isa::kPortable, 1)(right, &out).ok());
  return check_result();
}
