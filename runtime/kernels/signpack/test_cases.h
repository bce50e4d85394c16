// The comparison of one kernel table with the plain loops, shared by test.cc and test_simde.cc.
#ifndef NETSUKE_KERNELS_SIGNPACK_TEST_CASES_H_
#define NETSUKE_KERNELS_SIGNPACK_TEST_CASES_H_

#include <limits>
#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/signpack/signpack.h"

namespace netsuke {

// Values equal to their threshold, NaN and infinities; every number of channels around one and two words.
inline void compare_sign_pack(const SignPackKernels& kernels) {
  TestRandom random(1);
  for (int64_t channels = 1; channels < 150; ++channels) {
    const int64_t rows = random.range(0, 4), words = (channels + 63) / 64;
    const size_t size = static_cast<size_t>(rows * channels), padded = static_cast<size_t>(words * 64);
    std::vector<float> x(size), t(padded);
    std::vector<uint8_t> q(size);
    std::vector<int32_t> u(padded);
    std::vector<uint64_t> flip(static_cast<size_t>(words)), got(static_cast<size_t>(rows * words) + 1, 5), want = got;
    for (float& v : t) v = random.range(0, 9) == 0 ? std::numeric_limits<float>::infinity() : random.uniform(-1.0f, 1.0f);
    for (int32_t& v : u) v = static_cast<int32_t>(random.range(-1, 257));
    for (uint64_t& v : flip) v = random.next() << 32 ^ random.next();
    for (size_t i = 0; i < size; ++i) {
      const int64_t kind = random.range(0, 4);
      x[i] = kind == 0 ? t[i % static_cast<size_t>(channels)] : kind == 1 ? std::numeric_limits<float>::quiet_NaN() : random.uniform(-1.0f, 1.0f);
      q[i] = random.code();
    }
    kernels.f32(x.data(), rows, channels, t.data(), flip.data(), got.data());
    sign_pack_reference(x.data(), rows, channels, t.data(), flip.data(), want.data());
    CHECK(got == want);
    kernels.u8(q.data(), rows, channels, u.data(), flip.data(), got.data());
    sign_pack_reference(q.data(), rows, channels, u.data(), flip.data(), want.data());
    CHECK(got == want);
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_SIGNPACK_TEST_CASES_H_
