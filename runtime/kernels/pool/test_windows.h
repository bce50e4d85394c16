// Random windows and shapes for the tests of pool and qpool.
#ifndef NETSUKE_KERNELS_POOL_TEST_WINDOWS_H_
#define NETSUKE_KERNELS_POOL_TEST_WINDOWS_H_

#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/pool/geometry.h"

namespace netsuke {

struct PoolCase {
  PoolWindow window;
  std::vector<int64_t> x;
};

inline PoolCase random_pool_case(TestRandom& random, bool dilated) {
  PoolCase test;
  for (;;) {
    PoolWindow& window = test.window;
    for (int i = 0; i < 2; ++i) {
      window.kernel[i] = random.range(1, 5);
      window.strides[i] = random.range(1, 4);
      window.dilations[i] = dilated ? random.range(1, 3) : 1;
    }
    for (int i = 0; i < 4; ++i) window.pads[i] = random.range(0, (window.kernel[i % 2] - 1) * window.dilations[i % 2]);
    window.ceil = random.range(0, 1) == 1;
    window.count_include_pad = !dilated && random.range(0, 1) == 1;
    const int64_t channels[] = {1, 3, 8, 15, 16, 17, 24, 31, 32, 33, 64, 72, 100, 130};
    test.x = {random.range(1, 2), random.range(1, 14), random.range(1, 14), channels[random.range(0, 13)]};
    PoolShape shape;
    Shape out;
    if (pool_shape(window, test_shape(test.x), &shape, &out).ok()) return test;
  }
}

inline TestAttrs window_attrs(const PoolWindow& w, bool dilated, bool counted) {
  TestAttrs attrs;
  attrs.set("kernel", std::vector<int64_t>{w.kernel[0], w.kernel[1]}).set("strides", std::vector<int64_t>{w.strides[0], w.strides[1]});
  attrs.set("pads", std::vector<int64_t>(w.pads, w.pads + 4)).set("ceil", w.ceil ? 1 : 0);
  if (dilated) attrs.set("dilations", std::vector<int64_t>{w.dilations[0], w.dilations[1]});
  if (counted) attrs.set("count_include_pad", w.count_include_pad ? 1 : 0);
  return attrs;
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_POOL_TEST_WINDOWS_H_
