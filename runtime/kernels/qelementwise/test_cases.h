// One kernel table against the plain loops, shared by test.cc and test_simde.cc.
#ifndef NETSUKE_KERNELS_QELEMENTWISE_TEST_CASES_H_
#define NETSUKE_KERNELS_QELEMENTWISE_TEST_CASES_H_

#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/qelementwise/qelementwise.h"

namespace netsuke {

inline QBinaryParams random_qbinary(TestRandom& random) {
  QBinaryParams params;
  params.a_zero = static_cast<int32_t>(random.range(0, 255));
  params.b_zero = static_cast<int32_t>(random.range(0, 255));
  // Powers of two now and then: sums then fall on exact halves.
  params.a_mult = random.range(0, 1) ? 0.5f : random.uniform(-2.0f, 2.0f);
  params.b_mult = random.range(0, 1) ? 0.25f : random.uniform(0.001f, 2.0f);
  params.fused = random.range(0, 1) == 1;
  params.offset = random.uniform(-300.0f, 300.0f);
  params.mult = random.range(0, 1) ? 0.0625f : random.uniform(1e-4f, 0.1f);
  params.codes.zero = static_cast<int32_t>(random.range(0, 255));
  params.codes.lo = static_cast<int32_t>(random.range(0, 255));
  params.codes.hi = static_cast<int32_t>(random.range(params.codes.lo, 255));
  return params;
}

// All pairs of codes, and every length to 70.
inline void compare_qbinary(const QBinaryKernels& kernels) {
  TestRandom random(2);
  for (int round = 0; round < 16; ++round) {
    const QBinaryParams params = random_qbinary(random);
    std::vector<uint8_t> a(65536), b(65536), sum(65536), product(65536);
    for (size_t i = 0; i < 65536; ++i) {
      a[i] = static_cast<uint8_t>(i);
      b[i] = static_cast<uint8_t>(i >> 8);
    }
    const QBinaryRow add = params.fused ? kernels.add_fused : kernels.add;
    add(a.data(), b.data(), sum.data(), 65536, params);
    kernels.mul(a.data(), b.data(), product.data(), 65536, params);
    int wrong = 0;
    for (size_t i = 0; i < 65536; ++i) wrong += sum[i] != qadd_one(a[i], b[i], params) || product[i] != qmul_one(a[i], b[i], params);
    CHECK(wrong == 0);
  }
  for (int64_t n = 0; n < 70; ++n) {
    const QBinaryParams params = random_qbinary(random);
    std::vector<uint8_t> a(static_cast<size_t>(n)), b(a.size()), y(a.size() + 1, 9), z(a.size() + 1, 9), expected_y = y, expected_z = z;
    for (uint8_t& v : a) v = random.code();
    for (uint8_t& v : b) v = random.code();
    for (size_t i = 0; i < a.size(); ++i) {
      expected_y[i] = qadd_one(a[i], b[i], params);
      expected_z[i] = qmul_one(a[i], b[i], params);
    }
    (params.fused ? kernels.add_fused : kernels.add)(a.data(), b.data(), y.data(), n, params);
    kernels.mul(a.data(), b.data(), z.data(), n, params);
    CHECK(y == expected_y && z == expected_z);
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QELEMENTWISE_TEST_CASES_H_
