// One kernel table against the plain loops, shared by test.cc and test_simde.cc.
#ifndef NETSUKE_KERNELS_QPOOL_TEST_CASES_H_
#define NETSUKE_KERNELS_QPOOL_TEST_CASES_H_

#include <vector>

#include "kernels/pool/test_windows.h"
#include "kernels/qpool/qpool.h"

namespace netsuke {

inline QPoolParams random_qpool(TestRandom& random) {
  QPoolParams params;
  params.x_zero = static_cast<int32_t>(random.range(0, 255));
  params.mult = random.range(0, 1) ? 0.5f : random.uniform(0.1f, 3.0f);
  params.codes.zero = static_cast<int32_t>(random.range(0, 255));
  params.codes.lo = static_cast<int32_t>(random.range(0, 100));
  params.codes.hi = static_cast<int32_t>(random.range(params.codes.lo, 255));
  return params;
}

inline void compare_qpool(const QPoolKernels& kernels, int count) {
  TestRandom random(12);
  for (int i = 0; i < count; ++i) {
    const PoolCase test = random_pool_case(random, false);
    const QPoolParams params = random_qpool(random);
    PoolShape shape;
    Shape out;
    CHECK_OK(pool_shape(test.window, test_shape(test.x), &shape, &out));
    std::vector<uint8_t> x(static_cast<size_t>(shape.h * shape.w * shape.c));
    for (uint8_t& v : x) v = random.code();
    std::vector<uint8_t> y(static_cast<size_t>(shape.out_w * shape.c) + 1, 5), expected = y;
    for (int64_t row = 0; row < shape.out_h; ++row) {
      kernels.avg(test.window, shape, x.data(), row, params, y.data());
      qpool_reference.avg(test.window, shape, x.data(), row, params, expected.data());
      CHECK(y == expected);
    }
    y.assign(static_cast<size_t>(shape.c) + 1, 5);
    expected = y;
    kernels.mean(x.data(), shape.h * shape.w, shape.c, shape.c, params, y.data());
    qpool_reference.mean(x.data(), shape.h * shape.w, shape.c, shape.c, params, expected.data());
    CHECK(y == expected);
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QPOOL_TEST_CASES_H_
