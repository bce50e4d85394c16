// One table kernel against the plain loop, shared by test.cc and test_simde*.cc.
#ifndef NETSUKE_KERNELS_LUT_TEST_CASES_H_
#define NETSUKE_KERNELS_LUT_TEST_CASES_H_

#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/lut/lut.h"

namespace netsuke {

// All codes in random order at lengths around every block size, out of place and in place.
inline void compare_lut(const LutKernels& kernels) {
  TestRandom random(6);
  for (int64_t n = 0; n < 700; n += n < 70 ? 1 : 37) {
    std::vector<uint8_t> table(256), x(static_cast<size_t>(n)), y(x.size() + 1, 3), expected(x.size() + 1, 3);
    for (uint8_t& v : table) v = random.code();
    for (uint8_t& v : x) v = random.code();
    lut_reference(x.data(), expected.data(), n, table.data());
    kernels.map(x.data(), y.data(), n, table.data());
    CHECK(y == expected);
    kernels.map(x.data(), x.data(), n, table.data());
    expected.pop_back();
    CHECK(x == expected);
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_LUT_TEST_CASES_H_
