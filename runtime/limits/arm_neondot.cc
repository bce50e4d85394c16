// AArch64 with the dot product extension: UDOT.
#include <arm_neon.h>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kChains = 12;

uint64_t int8(int64_t count) {
  uint32x4_t acc[kChains];
  const uint8x16_t a = vdupq_n_u8(3), b = vdupq_n_u8(5);
  for (auto& v : acc) v = vdupq_n_u32(0);
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = vdotq_u32(v, a, b);
  }
  uint32x4_t sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = vaddq_u32(sum, acc[j]);
  return vaddvq_u32(sum);
}

}  // namespace

Loops neondot_loops() {
  Loops loops = neon_loops();
  loops.int8 = {int8, 16 * kChains};
  return loops;
}

}  // namespace limits
}  // namespace netsuke
