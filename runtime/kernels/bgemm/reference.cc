#include "kernels/bgemm/reference.h"

#include <cmath>

namespace netsuke {
namespace bgemm {
namespace {

int sign_at(const uint64_t* words, int64_t c) { return (words[c / 64] >> (c % 64) & 1) != 0 ? 1 : -1; }

int32_t sum_of(const Geometry& g, bool zero_one, int pad_value, const uint64_t* w, const Extent& e, const uint64_t* x, int64_t image, int64_t oy, int64_t ox,
               int64_t o) {
  const int64_t each = g.in_per_group(), group = o / g.out_per_group();
  int32_t sum = 0;
  for (int64_t ky = 0; ky < g.kh; ++ky) {
    for (int64_t kx = 0; kx < g.kw; ++kx) {
      const int64_t y = oy * g.stride_h - g.pad_top + ky * g.dil_h, p = ox * g.stride_w - g.pad_left + kx * g.dil_w;
      const bool inside = y >= 0 && y < e.h && p >= 0 && p < e.w;
      const uint64_t* tap = w + ((o * g.kh + ky) * g.kw + kx) * words_of(each);
      const uint64_t* pixel = inside ? x + ((image * e.h + y) * e.w + p) * words_of(g.in_channels) : nullptr;
      for (int64_t c = 0; c < each; ++c) {
        const int sign = inside ? sign_at(pixel, group * each + c) : zero_one ? -1 : pad_value;
        sum += (zero_one ? (sign + 1) / 2 : sign) * sign_at(tap, c);
      }
    }
  }
  return sum;
}

float real_of(const Finish& f, int32_t acc, int64_t o, float residual) {
  float t = static_cast<float>(acc) * f.mult[o];
  if (f.bias != nullptr) t = t + f.bias[o];
  if (f.residual != 0) t = t + residual;
  if (f.slope != nullptr) t = t > 0 ? t : t * f.slope[o];
  if (f.shift != nullptr) t = t + f.shift[o];
  return t;
}

int32_t code_of(const Finish& f, float t) {
  const float lo = static_cast<float>(f.lo - f.zero), hi = static_cast<float>(f.hi - f.zero);
  t = t > lo ? t : lo;
  t = t < hi ? t : hi;
  return static_cast<int32_t>(std::nearbyintf(t)) + f.zero;
}

}  // namespace

void reference(const Geometry& g, int pad_value, const uint64_t* w, const uint8_t* flip, const Finish& f, const Extent& e, const uint64_t* x,
               const void* residual, void* out, uint64_t* bits) {
  uint64_t* packed = f.out_bits ? static_cast<uint64_t*>(out) : bits;
  const int64_t words = words_of(g.out_channels), pixels = e.n * e.oh * e.ow;
  for (int64_t i = 0; packed != nullptr && i < pixels * words; ++i) packed[i] = 0;
  for (int64_t m = 0; m < pixels; ++m) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      const int32_t acc = sum_of(g, f.zero_one, pad_value, w, e, x, m / (e.oh * e.ow), m / e.ow % e.oh, m % e.ow, o);
      const int64_t at = m * g.out_channels + o;
      bool bit;
      if (f.out_bits) {
        bit = acc >= f.threshold[o];
      } else if (f.out_f32) {
        const float y = real_of(f, acc, o, f.residual != 0 ? static_cast<const float*>(residual)[at] : 0.0f);
        static_cast<float*>(out)[at] = y;
        bit = f.with_bits && y >= f.threshold_f32[o];
      } else {
        const float r = f.residual != 0 ? static_cast<float>(static_cast<const uint8_t*>(residual)[at] - f.r_zero) * f.r_mult : 0.0f;
        const int32_t y = code_of(f, real_of(f, acc, o, r));
        static_cast<uint8_t*>(out)[at] = static_cast<uint8_t>(y);
        bit = f.with_bits && y >= f.threshold[o];
      }
      if (packed != nullptr && bit != (flip != nullptr && flip[o] != 0)) packed[m * words + o / 64] |= uint64_t{1} << (o % 64);
    }
  }
}

}  // namespace bgemm
}  // namespace netsuke
