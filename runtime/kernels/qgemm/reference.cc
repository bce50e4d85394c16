// The whole operator in plain loops, straight from docs/numerics.md: what every kernel is compared with.
#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {
namespace {

// Modulo 2^32, as section 3 allows: the final sum fits.
uint32_t accumulate(const Geometry& g, const Extent& e, const uint8_t* image, const int8_t* w, int64_t first, int64_t oy, int64_t ox) {
  uint32_t acc = 0;
  const int64_t channels = g.in_per_group();
  for (int64_t ky = 0; ky < g.kh; ++ky) {
    const int64_t y = oy * g.stride_h - g.pad_top + ky * g.dil_h;
    if (y < 0 || y >= e.h) continue;
    for (int64_t kx = 0; kx < g.kw; ++kx) {
      const int64_t x = ox * g.stride_w - g.pad_left + kx * g.dil_w;
      if (x < 0 || x >= e.w) continue;
      const uint8_t* pixel = image + (y * e.w + x) * g.in_channels + first;
      const int8_t* tap = w + (ky * g.kw + kx) * channels;
      for (int64_t c = 0; c < channels; ++c) acc += static_cast<uint32_t>((pixel[c] - g.x_zero) * tap[c]);
    }
  }
  return acc;
}

}  // namespace

void reference(const Geometry& g, const Weights& weights, const Requant& q, const Extent& e, const uint8_t* x, const void* residual,
               void* out) {
  const int64_t taps = g.kh * g.kw * g.in_per_group();
  for (int64_t m = 0; m < e.n * e.oh * e.ow; ++m) {
    const uint8_t* image = x + m / (e.oh * e.ow) * e.h * e.w * g.in_channels;
    for (int64_t o = 0; o < g.out_channels; ++o) {
      const int64_t first = o / g.out_per_group() * g.in_per_group(), at = m * g.out_channels + o;
      uint32_t acc = accumulate(g, e, image, weights.w + o * taps, first, m / e.ow % e.oh, m % e.ow);
      if (weights.acc_bias != nullptr) acc += static_cast<uint32_t>(weights.acc_bias[o]);
      if (q.out_f32) {
        const float r = q.residual == Residual::kF32 ? static_cast<const float*>(residual)[at] : 0.0f;
        static_cast<float*>(out)[at] = requantize_f32(q, static_cast<int32_t>(acc), o, r);
      } else {
        const uint8_t r = q.residual == Residual::kU8 ? static_cast<const uint8_t*>(residual)[at] : 0;
        static_cast<uint8_t*>(out)[at] = requantize_u8(q, static_cast<int32_t>(acc), o, r);
      }
    }
  }
}

}  // namespace qgemm
}  // namespace netsuke
