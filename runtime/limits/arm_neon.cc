// AArch64 baseline: FMLA, and SMLAL with pairwise widening for integers.
#include <arm_neon.h>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kChains = 12;

uint64_t f32(int64_t count) {
  float32x4_t acc[kChains], a = vdupq_n_f32(1.0f), b = vdupq_n_f32(1e-9f);
  for (auto& v : acc) v = vdupq_n_f32(0);
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = vfmaq_f32(v, a, b);
  }
  float32x4_t sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = vaddq_f32(sum, acc[j]);
  return static_cast<uint64_t>(vaddvq_f32(sum));
}

uint64_t fold(const int32x4_t* acc) {
  int32x4_t sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = vaddq_s32(sum, acc[j]);
  return static_cast<uint64_t>(static_cast<uint32_t>(vaddvq_s32(sum)));
}

uint64_t int16(int64_t count) {
  int32x4_t acc[kChains];
  const int16x4_t a = vdup_n_s16(3), b = vdup_n_s16(5);
  for (auto& v : acc) v = vdupq_n_s32(0);
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = vmlal_s16(v, a, b);
  }
  return fold(acc);
}

uint64_t int8(int64_t count) {
  int32x4_t acc[kChains];
  int8x8_t a = vdup_n_s8(3), b = vdup_n_s8(5);
  for (auto& v : acc) v = vdupq_n_s32(0);
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) {
      asm volatile("" : "+w"(a));  // the product is not to be hoisted
      v = vpadalq_s16(v, vmull_s8(a, b));
    }
  }
  return fold(acc);
}

uint64_t bits(int64_t count) {
  uint8x16_t acc[kChains], a = vdupq_n_u8(3);
  const uint8x16_t b = vdupq_n_u8(5);
  for (auto& v : acc) v = vdupq_n_u8(0);
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) {
      asm volatile("" : "+w"(a));  // the count is not to be hoisted
      v = vaddq_u8(v, vcntq_u8(veorq_u8(a, b)));
    }
  }
  for (int j = 1; j < kChains; ++j) acc[0] = vaddq_u8(acc[0], acc[j]);
  return vaddlvq_u8(acc[0]);
}

uint64_t read(const uint8_t* data, size_t bytes) {
  uint8x16_t acc[8];
  for (auto& v : acc) v = vdupq_n_u8(0);
  for (size_t i = 0; i < bytes; i += 128) {
    for (int j = 0; j < 8; ++j) acc[j] = veorq_u8(acc[j], vld1q_u8(data + i + 16 * j));
  }
  for (int j = 1; j < 8; ++j) acc[0] = veorq_u8(acc[0], acc[j]);
  return vgetq_lane_u64(vreinterpretq_u64_u8(acc[0]), 0);
}

}  // namespace

Loops neon_loops() {
  Loops loops;
  loops.f32 = {f32, 4 * kChains};
  loops.int16 = {int16, 4 * kChains};
  loops.int8 = {int8, 8 * kChains};
  loops.bits = {bits, 128 * kChains};
  loops.read = read;
  return loops;
}

}  // namespace limits
}  // namespace netsuke
