// Lanes on AArch64 NEON: four 128-bit registers.
#ifndef NETSUKE_KERNELS_BASE_LANES_NEON_H_
#define NETSUKE_KERNELS_BASE_LANES_NEON_H_

#include <arm_neon.h>

namespace netsuke {
namespace {

struct F16 { float32x4_t v[4]; };
struct I16 { int32x4_t v[4]; };
struct B16 { uint8x16_t v; };
struct B64 { uint8x16_t v[4]; };

#define NETSUKE_LANES_4(type, expression)              \
  type r;                                              \
  for (int i = 0; i < 4; ++i) r.v[i] = (expression);   \
  return r

NETSUKE_LANE F16 load(const float* x) { NETSUKE_LANES_4(F16, vld1q_f32(x + 4 * i)); }
NETSUKE_LANE void store(float* y, F16 v) {
  for (int i = 0; i < 4; ++i) vst1q_f32(y + 4 * i, v.v[i]);
}
NETSUKE_LANE F16 splat(float x) { NETSUKE_LANES_4(F16, vdupq_n_f32(x)); }
NETSUKE_LANE I16 splat_i(int32_t x) { NETSUKE_LANES_4(I16, vdupq_n_s32(x)); }
NETSUKE_LANE F16 add(F16 a, F16 b) { NETSUKE_LANES_4(F16, vaddq_f32(a.v[i], b.v[i])); }
NETSUKE_LANE F16 sub(F16 a, F16 b) { NETSUKE_LANES_4(F16, vsubq_f32(a.v[i], b.v[i])); }
NETSUKE_LANE F16 mul(F16 a, F16 b) { NETSUKE_LANES_4(F16, vmulq_f32(a.v[i], b.v[i])); }
NETSUKE_LANE F16 div(F16 a, F16 b) { NETSUKE_LANES_4(F16, vdivq_f32(a.v[i], b.v[i])); }
NETSUKE_LANE F16 fma(F16 a, F16 b, F16 c) { NETSUKE_LANES_4(F16, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
NETSUKE_LANE I16 add(I16 a, I16 b) { NETSUKE_LANES_4(I16, vaddq_s32(a.v[i], b.v[i])); }
NETSUKE_LANE I16 sub(I16 a, I16 b) { NETSUKE_LANES_4(I16, vsubq_s32(a.v[i], b.v[i])); }

// fmax would return a NaN; compare and select follows the specification: v > lo ? v : lo.
NETSUKE_LANE F16 clamp(F16 v, F16 lo, F16 hi) {
  F16 r;
  for (int i = 0; i < 4; ++i) {
    const float32x4_t t = vbslq_f32(vcgtq_f32(v.v[i], lo.v[i]), v.v[i], lo.v[i]);
    r.v[i] = vbslq_f32(vcltq_f32(t, hi.v[i]), t, hi.v[i]);
  }
  return r;
}
// x > acc or x is NaN takes x; a NaN in acc stays.
NETSUKE_LANE F16 pool_max(F16 acc, F16 x) {
  F16 r;
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t take = vornq_u32(vcgtq_f32(x.v[i], acc.v[i]), vceqq_f32(x.v[i], x.v[i]));
    r.v[i] = vbslq_f32(take, x.v[i], acc.v[i]);
  }
  return r;
}

NETSUKE_LANE I16 load_i32(const int32_t* x) { NETSUKE_LANES_4(I16, vld1q_s32(x + 4 * i)); }
NETSUKE_LANE void store_i32(int32_t* y, I16 v) {
  for (int i = 0; i < 4; ++i) vst1q_s32(y + 4 * i, v.v[i]);
}
NETSUKE_LANE F16 to_f32(I16 a) { NETSUKE_LANES_4(F16, vcvtq_f32_s32(a.v[i])); }
NETSUKE_LANE I16 round_int(F16 a) { NETSUKE_LANES_4(I16, vcvtnq_s32_f32(a.v[i])); }

NETSUKE_LANE I16 load_u8(const uint8_t* x) {
  const uint8x16_t bytes = vld1q_u8(x);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  I16 r;
  r.v[0] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low)));
  r.v[1] = vreinterpretq_s32_u32(vmovl_high_u16(low));
  r.v[2] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high)));
  r.v[3] = vreinterpretq_s32_u32(vmovl_high_u16(high));
  return r;
}
NETSUKE_LANE void store_u8(uint8_t* y, I16 a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_u8(y, vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high))));
}

NETSUKE_LANE B16 load_b16(const uint8_t* x) { return {vld1q_u8(x)}; }
NETSUKE_LANE void store_b16(uint8_t* y, B16 v) { vst1q_u8(y, v.v); }
NETSUKE_LANE B16 max_b16(B16 a, B16 b) { return {vmaxq_u8(a.v, b.v)}; }
NETSUKE_LANE B64 load_b64(const uint8_t* x) { NETSUKE_LANES_4(B64, vld1q_u8(x + 16 * i)); }
NETSUKE_LANE void store_b64(uint8_t* y, B64 v) {
  for (int i = 0; i < 4; ++i) vst1q_u8(y + 16 * i, v.v[i]);
}
NETSUKE_LANE B64 max_b64(B64 a, B64 b) { NETSUKE_LANES_4(B64, vmaxq_u8(a.v[i], b.v[i])); }
#undef NETSUKE_LANES_4

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_LANES_NEON_H_
