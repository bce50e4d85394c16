// One kernel table against the plain loops, shared by test.cc and test_simde.cc.
#ifndef NETSUKE_KERNELS_POOL_TEST_CASES_H_
#define NETSUKE_KERNELS_POOL_TEST_CASES_H_

#include <cmath>
#include <vector>

#include "kernels/pool/pool.h"
#include "kernels/pool/test_windows.h"

namespace netsuke {

template <typename T, typename Row>
bool same_rows(const PoolCase& test, const std::vector<T>& x, const Row& kernel, const Row& reference) {
  PoolShape shape;
  Shape out;
  CHECK_OK(pool_shape(test.window, test_shape(test.x), &shape, &out));
  const size_t size = static_cast<size_t>(shape.out_w * shape.c);
  std::vector<T> y(size + 1, T{7}), expected(size + 1, T{7});
  for (int64_t row = 0; row < shape.out_h; ++row) {
    const T* image = x.data() + (shape.n - 1) * shape.h * shape.w * shape.c;
    kernel(test.window, shape, image, row, y.data());
    reference(test.window, shape, image, row, expected.data());
    if (std::memcmp(y.data(), expected.data(), y.size() * sizeof(T)) != 0) return false;
  }
  return true;
}

inline void compare_pool(const PoolKernels& kernels, int count) {
  TestRandom random(9);
  for (int i = 0; i < count; ++i) {
    PoolCase test = random_pool_case(random, i % 2 == 0);
    const size_t size = static_cast<size_t>(test_shape(test.x).elements());
    std::vector<uint8_t> codes(size);
    std::vector<float> values(size);
    for (uint8_t& v : codes) v = random.code();
    for (float& v : values) v = random.range(0, 60) == 0 ? std::nanf("") : random.uniform(-5.0f, 5.0f);
    CHECK(same_rows(test, codes, kernels.max_u8, pool_reference.max_u8));
    CHECK(same_rows(test, values, kernels.max_f32, pool_reference.max_f32));
    if (i % 2 == 1) CHECK(same_rows(test, values, kernels.avg_f32, pool_reference.avg_f32));
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_POOL_TEST_CASES_H_
