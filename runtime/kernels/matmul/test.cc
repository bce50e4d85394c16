// matmul against a plain fma chain, bit for bit, with broadcast batches, transposed and constant b.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

namespace {

using namespace netsuke;

void check_case(const Shape& a, const Shape& b, bool trans, float alpha, uint64_t seed) {
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
      float acc = 0;
      for (int64_t j = 0; j < k; ++j) {
        const int64_t bi = trans ? e % n * k + j : j * n + e % n;
        acc = std::fma(in[0].data<float>()[at[0] * m * k + e / n * k + j], in[1].data<float>()[at[1] * k * n + bi], acc);
      }
      expected.data<float>()[i * m * n + e] = acc * alpha;
    }
  }
  char attrs[80];
  std::snprintf(attrs, sizeof(attrs), "{\"trans_b\":%d,\"alpha\":%.9g}", trans ? 1 : 0, static_cast<double>(alpha));
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

}  // namespace

int main() {
  check_case(make_shape({5, 7}), make_shape({7, 9}), false, 1, 1);
  check_case(make_shape({2, 3, 50, 32}), make_shape({2, 3, 50, 32}), true, 0.125f, 2);   // attention scores
  check_case(make_shape({2, 3, 50, 50}), make_shape({2, 3, 50, 32}), false, 1, 3);       // attention values
  check_case(make_shape({4, 1, 6, 20}), make_shape({3, 20, 33}), false, 1, 4);           // both batches broadcast
  check_case(make_shape({3, 2, 11, 16}), make_shape({16, 40}), false, 2, 5);             // one b: merged rows
  check_case(make_shape({9, 300}), make_shape({4, 300, 5}), false, 1, 6);                // one a
  check_case(make_shape({130, 500}), make_shape({500, 70}), false, 1, 7);                // large: cut up
  check_case(make_shape({0, 3, 4}), make_shape({0, 4, 5}), false, 1, 8);
  check_case(make_shape({3, 0}), make_shape({0, 2}), false, 1, 9);
  TestRandom random(1);
  const std::vector<TestTensor> wrong = {random.floats(make_shape({2, 3})), random.floats(make_shape({4, 5}))};
  std::vector<TestTensor> out;
  CHECK(!OpRunner("matmul", "{}", wrong, 1, Isa::kPortable, 1)(wrong, &out).ok());
  return check_result();
}
