// qmatmul with UDOT: 8-bit codes as they are, four k a unit, tiles of 6 x 16.
//   sum (a - za)(b - zb) = sum a b  -  za sum b  +  (K za zb - zb sum a)          modulo 2^32
#include "kernels/base/lanes.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

constexpr int kRows = 6, kVectors = 1, kUnitBytes = 4, kPanelBytes = 64;
constexpr bool kTerms = true;

struct BUnit { uint8x16_t v[4]; };

NETSUKE_LANE BUnit load_b(const uint8_t* p) {
  BUnit b;
  for (int i = 0; i < 4; ++i) b.v[i] = vld1q_u8(p + 16 * i);
  return b;
}

NETSUKE_LANE I16 dot(I16 acc, const uint8_t* p, const BUnit& b) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  const uint8x16_t a = vreinterpretq_u8_u32(vdupq_n_u32(four));
  I16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vreinterpretq_s32_u32(vdotq_u32(vreinterpretq_u32_s32(acc.v[i]), b.v[i], a));
  return r;
}

void pack_a(const uint8_t* a, int64_t k, int64_t k_padded, const QMatmulParams& params, uint8_t* packed, int32_t* row_term) {
  std::memcpy(packed, a, static_cast<size_t>(k));
  std::memset(packed + k, 0, static_cast<size_t>(k_padded - k));
  int64_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += a[i];
  *row_term = static_cast<int32_t>(static_cast<uint32_t>(params.b_zero * (k * params.a_zero - sum)));
}

void pack_b(const uint8_t* b, int64_t stride, bool transposed, int64_t cols, int64_t k, int64_t k_padded, const QMatmulParams& params,
            uint8_t* packed, int32_t* col_terms) {
  const int64_t k_step = transposed ? 1 : stride, n_step = transposed ? stride : 1;
  const uint8x16_t ones = vdupq_n_u8(1);
  uint32x4_t sums[4] = {};
  for (int64_t i = 0; i < k_padded; i += 4, packed += 64) {
    if (!transposed && cols == 16 && i + 4 <= k) {
      const uint8_t* row = b + i * stride;
      vst4q_u8(packed, uint8x16x4_t{{vld1q_u8(row), vld1q_u8(row + stride), vld1q_u8(row + 2 * stride), vld1q_u8(row + 3 * stride)}});
    } else {
      for (int64_t n = 0; n < 16; ++n) {
        for (int64_t j = i; j < i + 4; ++j) packed[4 * n + j - i] = j < k && n < cols ? b[j * k_step + n * n_step] : 0;
      }
    }
    for (int j = 0; j < 4; ++j) sums[j] = vdotq_u32(sums[j], vld1q_u8(packed + 16 * j), ones);
  }
  for (int j = 0; j < 4; ++j) vst1q_s32(col_terms + 4 * j, vmulq_n_s32(vreinterpretq_s32_u32(sums[j]), -params.a_zero));
}

}  // namespace
}  // namespace netsuke

#include "kernels/qmatmul/tile.inc"

namespace netsuke {
const QMatmulKernels qmatmul_kernels_neondot = {"qmatmul_a8a8_arm_neondot_6x16", kRows, 16 * kVectors, 4, 1, pack_a, pack_b, run_tile};
}  // namespace netsuke
