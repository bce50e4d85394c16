// Sections 4 and 5 of docs/numerics.md, one element at a time. Compiled without contraction (runtime/CMakeLists.txt): every
// product and sum below is one IEEE operation.
#include <cmath>

#include "kernels/base/codes.h"
#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {
namespace {

float scaled(const Requant& q, int32_t acc, int64_t channel) {
  const float t = static_cast<float>(acc) * q.mult[channel];
  return t + q.bias[channel];
}

}  // namespace

uint8_t requantize_u8(const Requant& q, int32_t acc, int64_t channel, uint8_t residual) {
  if (q.dyadic) {
    int64_t v = shift_rne(static_cast<int64_t>(acc) * q.m[channel], q.e[channel]);
    if (q.residual == Residual::kU8) v += shift_rne(static_cast<int64_t>(residual - q.r_zero) * q.r_m, q.r_e);
    v += q.zero;
    return static_cast<uint8_t>(v < q.lo ? q.lo : v > q.hi ? q.hi : v);
  }
  float t = scaled(q, acc, channel);
  if (q.residual == Residual::kU8) t = t + static_cast<float>(residual - q.r_zero) * q.r_mult;
  t = t > q.code_lo ? t : q.code_lo;
  t = t < q.code_hi ? t : q.code_hi;
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyintf(t)) + q.zero);
}

float requantize_f32(const Requant& q, int32_t acc, int64_t channel, float residual) {
  float t = scaled(q, acc, channel);
  if (q.residual == Residual::kF32) t = t + residual;
  if (q.has_flo) t = t > q.flo ? t : q.flo;
  if (q.has_fhi) t = t < q.fhi ? t : q.fhi;
  return t;
}

void requantize_tile(const Tile& tile, const int32_t* acc, int64_t acc_stride) {
  for (int r = 0; r < tile.rows; ++r) {
    const int32_t* row = acc + r * acc_stride;
    const int64_t at = r * tile.out_stride;
    if (tile.requant == nullptr) {
      int32_t* out = static_cast<int32_t*>(tile.out) + at;
      for (int c = 0; c < tile.columns; ++c) out[c] = row[c];
      continue;
    }
    const Requant& q = *tile.requant;
    if (q.out_f32) {
      float* out = static_cast<float*>(tile.out) + at;
      const float* residual = q.residual == Residual::kF32 ? static_cast<const float*>(tile.residual) + at : nullptr;
      for (int c = 0; c < tile.columns; ++c) out[c] = requantize_f32(q, row[c], tile.channel + c, residual ? residual[c] : 0.0f);
    } else {
      uint8_t* out = static_cast<uint8_t*>(tile.out) + at;
      const uint8_t* residual = q.residual == Residual::kU8 ? static_cast<const uint8_t*>(tile.residual) + at : nullptr;
      for (int c = 0; c < tile.columns; ++c) out[c] = requantize_u8(q, row[c], tile.channel + c, residual ? residual[c] : 0);
    }
  }
}

}  // namespace qgemm
}  // namespace netsuke
