// The comparison of one kernel table with the plain loops, shared by test.cc and test_simde.cc.
#ifndef NETSUKE_KERNELS_QUANTIZE_TEST_CASES_H_
#define NETSUKE_KERNELS_QUANTIZE_TEST_CASES_H_

#include <cstring>
#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/quantize/quantize.h"

namespace netsuke {

// Random bit patterns (NaN, infinities, denormals), halves of the scale (rounding ties) and ordinary numbers, at every length to 70.
inline void compare_quantize(const QuantizeKernels& kernels) {
  TestRandom random(1);
  for (int64_t n = 0; n < 70; ++n) {
    const float scale = n % 3 == 0 ? 0.25f : random.uniform(1e-3f, 2.0f);
    Codes codes{static_cast<int32_t>(random.range(0, 255)), static_cast<int32_t>(random.range(0, 255)), 0};
    codes.hi = static_cast<int32_t>(random.range(codes.lo, 255));
    std::vector<float> x(static_cast<size_t>(n)), z(x.size() + 1, -1.0f), z_expected(x.size() + 1, -1.0f);
    for (float& v : x) {
      const uint32_t pattern = static_cast<uint32_t>(random.next());
      const int64_t kind = random.range(0, 2);
      if (kind == 0) std::memcpy(&v, &pattern, 4);
      if (kind == 1) v = scale * 0.5f * static_cast<float>(random.range(-520, 520));
      if (kind == 2) v = random.uniform(-100.0f, 100.0f);
    }
    std::vector<uint8_t> y(x.size() + 1, 77), expected(x.size() + 1, 77);
    kernels.quantize(x.data(), y.data(), n, scale, codes);
    quantize_reference(x.data(), expected.data(), n, scale, codes);
    CHECK(y == expected);
    kernels.dequantize(y.data(), z.data(), n, scale, codes.zero);
    dequantize_reference(y.data(), z_expected.data(), n, scale, codes.zero);
    CHECK(std::memcmp(z.data(), z_expected.data(), z.size() * sizeof(float)) == 0);
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QUANTIZE_TEST_CASES_H_
