// The NEON epilogue, shared by arm_neon.cc and arm_neondot.cc. Everything is in an unnamed namespace: two files compiled for
// different CPUs must not share an inline function.
#ifndef NETSUKE_KERNELS_QGEMM_NEON_REQUANT_H_
#define NETSUKE_KERNELS_QGEMM_NEON_REQUANT_H_

#include <arm_neon.h>

#include <cstring>

#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {
namespace {

#define NK_INLINE static inline __attribute__((always_inline))

// v > lo ? v : lo, also for NaN: FMAX would return the NaN.
NK_INLINE float32x4_t at_least(float32x4_t v, float32x4_t lo) { return vbslq_f32(vcgtq_f32(v, lo), v, lo); }
NK_INLINE float32x4_t at_most(float32x4_t v, float32x4_t hi) { return vbslq_f32(vcltq_f32(v, hi), v, hi); }

NK_INLINE float32x4_t scale4(const Requant& q, int32x4_t acc, int64_t channel) {
  return vaddq_f32(vmulq_f32(vcvtq_f32_s32(acc), vld1q_f32(q.mult + channel)), vld1q_f32(q.bias + channel));
}

NK_INLINE int32x4_t codes4(const Requant& q, int32x4_t acc, int64_t channel, const int32x4_t* residual) {
  float32x4_t t = scale4(q, acc, channel);
  if (residual != nullptr) {
    const float32x4_t r = vcvtq_f32_s32(vsubq_s32(*residual, vdupq_n_s32(q.r_zero)));
    t = vaddq_f32(t, vmulq_f32(r, vdupq_n_f32(q.r_mult)));
  }
  t = at_most(at_least(t, vdupq_n_f32(q.code_lo)), vdupq_n_f32(q.code_hi));
  return vaddq_s32(vcvtnq_s32_f32(t), vdupq_n_s32(q.zero));
}

NK_INLINE void store_codes8(const Requant& q, int32x4_t a0, int32x4_t a1, int64_t channel, const uint8_t* residual, uint8_t* out) {
  int32x4_t r0, r1;
  if (residual != nullptr) {
    const uint16x8_t r = vmovl_u8(vld1_u8(residual));
    r0 = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(r)));
    r1 = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(r)));
  }
  const int32x4_t c0 = codes4(q, a0, channel, residual == nullptr ? nullptr : &r0);
  const int32x4_t c1 = codes4(q, a1, channel + 4, residual == nullptr ? nullptr : &r1);
  vst1_u8(out, vqmovun_s16(vcombine_s16(vqmovn_s32(c0), vqmovn_s32(c1))));
}

NK_INLINE void store_floats4(const Requant& q, int32x4_t acc, int64_t channel, const float* residual, float* out) {
  float32x4_t t = scale4(q, acc, channel);
  if (residual != nullptr) t = vaddq_f32(t, vld1q_f32(residual));
  if (q.has_flo) t = at_least(t, vdupq_n_f32(q.flo));
  if (q.has_fhi) t = at_most(t, vdupq_n_f32(q.fhi));
  vst1q_f32(out, t);
}

// Eight channels of one row.
NK_INLINE void finish_row8(const Tile& t, int row, int32x4_t a0, int32x4_t a1) {
  const Requant& q = *t.requant;
  const int64_t at = row * t.out_stride;
  const bool whole = t.columns == 8;
  const size_t columns = static_cast<size_t>(t.columns);
  if (q.out_f32) {
    float part[8], r_part[8] = {};
    const float* r = q.residual == Residual::kF32 ? static_cast<const float*>(t.residual) + at : nullptr;
    float* out = static_cast<float*>(t.out) + at;
    if (!whole && r != nullptr) {
      memcpy(r_part, r, columns * 4);
      r = r_part;
    }
    float* to = whole ? out : part;
    store_floats4(q, a0, t.channel, r, to);
    store_floats4(q, a1, t.channel + 4, r == nullptr ? nullptr : r + 4, to + 4);
    if (!whole) memcpy(out, part, columns * 4);
    return;
  }
  uint8_t part[8], r_part[8] = {};
  const uint8_t* r = q.residual == Residual::kU8 ? static_cast<const uint8_t*>(t.residual) + at : nullptr;
  uint8_t* out = static_cast<uint8_t*>(t.out) + at;
  if (!whole && r != nullptr) {
    memcpy(r_part, r, columns);
    r = r_part;
  }
  store_codes8(q, a0, a1, t.channel, r, whole ? out : part);
  if (!whole) memcpy(out, part, columns);
}

template <int kRows>
NK_INLINE void finish8(const Tile& t, int32x4_t (&acc)[kRows][2]) {
  if (t.requant == nullptr && t.columns == 8) {  // raw sums, inside Winograd
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      vst1q_s32(static_cast<int32_t*>(t.out) + r * t.out_stride, acc[r][0]);
      vst1q_s32(static_cast<int32_t*>(t.out) + r * t.out_stride + 4, acc[r][1]);
    }
    return;
  }
  if (t.requant != nullptr && !t.requant->dyadic) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) finish_row8(t, r, acc[r][0], acc[r][1]);
    return;
  }
  int32_t sums[kRows][8];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    vst1q_s32(sums[r], acc[r][0]);
    vst1q_s32(sums[r] + 4, acc[r][1]);
  }
  requantize_tile(t, &sums[0][0], 8);
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_NEON_REQUANT_H_
