// Comparisons of lanes.h' registers as bits, lane i to bit i: what makes signs from sums and numbers. Include after lanes.h.
#ifndef NETSUKE_KERNELS_BASE_LANES_BITS_H_
#define NETSUKE_KERNELS_BASE_LANES_BITS_H_

#include "kernels/base/lanes.h"

namespace netsuke {
namespace {

//   ge_mask(a, b)       a >= b, false where one is NaN
//   above_zero_or(t, u) t > 0 ? t : u
#if defined(NETSUKE_PORTABLE_LANES) || (!defined(NETSUKE_SIMDE) && !defined(__AVX2__) && !defined(__aarch64__))
NETSUKE_LANE uint32_t ge_mask(I16 a, I16 b) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(a.v[i / 4][i % 4] >= b.v[i / 4][i % 4]) << i;
  return mask;
}
NETSUKE_LANE uint32_t ge_mask(F16 a, F16 b) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(a.v[i / 4][i % 4] >= b.v[i / 4][i % 4]) << i;
  return mask;
}
NETSUKE_LANE F16 above_zero_or(F16 t, F16 u) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = t.v[i] > 0 ? t.v[i] : u.v[i];
  return r;
}
#elif defined(NETSUKE_SIMDE) || defined(__AVX512F__)
NETSUKE_LANE uint32_t ge_mask(I16 a, I16 b) { return static_cast<uint16_t>(~_mm512_cmpgt_epi32_mask(b.v, a.v)); }
NETSUKE_LANE uint32_t ge_mask(F16 a, F16 b) { return static_cast<uint16_t>(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)); }
NETSUKE_LANE F16 above_zero_or(F16 t, F16 u) {
  return {_mm512_mask_mov_ps(u.v, _mm512_cmp_ps_mask(t.v, _mm512_setzero_ps(), _CMP_GT_OQ), t.v)};
}
#elif defined(__AVX2__)
NETSUKE_LANE uint32_t lane_bits(__m256 a, __m256 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(a)) | static_cast<uint32_t>(_mm256_movemask_ps(b)) << 8;
}
NETSUKE_LANE uint32_t ge_mask(I16 a, I16 b) {
  return 0xffffu & ~lane_bits(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.a, a.a)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.b, a.b)));
}
NETSUKE_LANE uint32_t ge_mask(F16 a, F16 b) {
  return lane_bits(_mm256_cmp_ps(a.a, b.a, _CMP_GE_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_GE_OQ));
}
NETSUKE_LANE F16 above_zero_or(F16 t, F16 u) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(u.a, t.a, _mm256_cmp_ps(t.a, zero, _CMP_GT_OQ)), _mm256_blendv_ps(u.b, t.b, _mm256_cmp_ps(t.b, zero, _CMP_GT_OQ))};
}
#else
NETSUKE_LANE uint32_t lane_bits(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  const uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b)), high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
  const uint8x16_t bytes = vcombine_u8(vmovn_u16(low), vmovn_u16(high));
  const uint8x16_t weight = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vandq_u8(bytes, weight);
  return static_cast<uint32_t>(vaddv_u8(vget_low_u8(bits))) | static_cast<uint32_t>(vaddv_u8(vget_high_u8(bits))) << 8;
}
NETSUKE_LANE uint32_t ge_mask(I16 a, I16 b) {
  return lane_bits(vcgeq_s32(a.v[0], b.v[0]), vcgeq_s32(a.v[1], b.v[1]), vcgeq_s32(a.v[2], b.v[2]), vcgeq_s32(a.v[3], b.v[3]));
}
NETSUKE_LANE uint32_t ge_mask(F16 a, F16 b) {
  return lane_bits(vcgeq_f32(a.v[0], b.v[0]), vcgeq_f32(a.v[1], b.v[1]), vcgeq_f32(a.v[2], b.v[2]), vcgeq_f32(a.v[3], b.v[3]));
}
NETSUKE_LANE F16 above_zero_or(F16 t, F16 u) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vbslq_f32(vcgtzq_f32(t.v[i]), t.v[i], u.v[i]);
  return r;
}
#endif

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_LANES_BITS_H_
