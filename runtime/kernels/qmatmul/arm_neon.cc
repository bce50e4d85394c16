// qmatmul on AArch64 NEON: 16-bit values, one k a unit, tiles of 4 x 16 (16 of 32 registers hold sums; smlal takes 4 products).
#include "kernels/base/lanes.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

constexpr int kRows = 4, kVectors = 1, kUnitBytes = 2, kPanelBytes = 32;
constexpr bool kTerms = false;

struct BUnit { int16x8_t low, high; };

NETSUKE_LANE BUnit load_b(const uint8_t* p) {
  const int16_t* values = reinterpret_cast<const int16_t*>(p);
  return {vld1q_s16(values), vld1q_s16(values + 8)};
}

NETSUKE_LANE I16 dot(I16 acc, const uint8_t* p, BUnit b) {
  const int16x8_t a = vld1q_dup_s16(reinterpret_cast<const int16_t*>(p));
  I16 r;
  r.v[0] = vmlal_s16(acc.v[0], vget_low_s16(b.low), vget_low_s16(a));
  r.v[1] = vmlal_high_s16(acc.v[1], b.low, a);
  r.v[2] = vmlal_s16(acc.v[2], vget_low_s16(b.high), vget_low_s16(a));
  r.v[3] = vmlal_high_s16(acc.v[3], b.high, a);
  return r;
}

NETSUKE_LANE void widen(uint8x16_t codes, int16x8_t zero, int16_t* y) {
  vst1q_s16(y, vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes))), zero));
  vst1q_s16(y + 8, vsubq_s16(vreinterpretq_s16_u16(vmovl_high_u8(codes)), zero));
}

void pack_a(const uint8_t* a, int64_t k, int64_t k_padded, const QMatmulParams& params, uint8_t* packed, int32_t* row_term) {
  const int16x8_t zero = vdupq_n_s16(static_cast<int16_t>(params.a_zero));
  int16_t* y = reinterpret_cast<int16_t*>(packed);
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) widen(vld1q_u8(a + i), zero, y + i);
  for (; i < k; ++i) y[i] = static_cast<int16_t>(a[i] - params.a_zero);
}

void pack_b(const uint8_t* b, int64_t stride, bool transposed, int64_t cols, int64_t k, int64_t k_padded, const QMatmulParams& params,
            uint8_t* packed, int32_t* col_terms) {
  const int16x8_t zero = vdupq_n_s16(static_cast<int16_t>(params.b_zero));
  const int64_t k_step = transposed ? 1 : stride, n_step = transposed ? stride : 1;
  int16_t* y = reinterpret_cast<int16_t*>(packed);
  for (int64_t i = 0; i < k; ++i, y += 16) {
    if (cols == 16 && !transposed) {
      widen(vld1q_u8(b + i * stride), zero, y);
      continue;
    }
    for (int64_t n = 0; n < 16; ++n) {
      y[n] = n < cols ? static_cast<int16_t>(b[i * k_step + n * n_step] - params.b_zero) : static_cast<int16_t>(0);
    }
  }
}

}  // namespace
}  // namespace netsuke

#include "kernels/qmatmul/tile.inc"

namespace netsuke {
const QMatmulKernels qmatmul_kernels_neon = {"qmatmul_a8a8_arm_neon_4x16", kRows, 16 * kVectors, 1, 2, pack_a, pack_b, run_tile};
}  // namespace netsuke
