// tbl looks 16 codes up in 64 bytes and gives 0 beyond; tbx leaves the lane alone beyond. Four steps of 64 make 256.
#include <arm_neon.h>

#include "kernels/lut/lut.h"

namespace netsuke {
namespace {

void map(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) {
  uint8x16x4_t part[4];
  for (int j = 0; j < 4; ++j) part[j] = vld1q_u8_x4(table + 64 * j);
  const uint8x16_t step = vdupq_n_u8(64);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    uint8x16_t codes = vld1q_u8(x + i);
    uint8x16_t values = vqtbl4q_u8(part[0], codes);
    for (int j = 1; j < 4; ++j) {
      codes = vsubq_u8(codes, step);
      values = vqtbx4q_u8(values, part[j], codes);
    }
    vst1q_u8(y + i, values);
  }
  for (; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace

const LutKernels lut_kernels_neon = {"lut_a8_arm_neon", map};

}  // namespace netsuke
