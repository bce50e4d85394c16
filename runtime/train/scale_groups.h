// ShiftQuant's channel groups (nn/qtensor.py, shift_exponents): e = min(floor(log2(R / r)), groups - 1), R the largest range. Exponents and
// mantissas, no logarithms.
#ifndef NETSUKE_TRAIN_SCALE_GROUPS_H_
#define NETSUKE_TRAIN_SCALE_GROUPS_H_
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace netsuke {
namespace train {

constexpr float kSmallestScale = 0x1p-126f;

// A number above 0 is mantissa 2^exponent; mantissas compare as their 23 bits do. Library calls for 512 channels take as long as a pass over 4x4 pixels.
struct Binary {
  explicit Binary(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (bits >> 23 == 0) {  // below 2^-126
      v *= 0x1p64f, exponent = -64;
      memcpy(&bits, &v, sizeof bits);
    }
    exponent += static_cast<int>(bits >> 23), mantissa = bits & 0x7FFFFFu;
  }
  int exponent = 0;
  uint32_t mantissa;
};

// v 2^-exponent, rounded once.
inline float scaled_down(float v, uint8_t exponent) {
  if (exponent > 126) return std::ldexp(v, -exponent);
  const uint32_t bits = static_cast<uint32_t>(127 - exponent) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return v * power;
}

// Exponents of the channels, and the largest range; false where a range is NaN or Inf.
inline bool scale_groups(const float* ranges, int64_t columns, int32_t groups, uint8_t* exponents, float* largest) {
  *largest = 0;
  for (int64_t c = 0; c < columns; ++c) {
    if (!std::isfinite(ranges[c])) return false;
    *largest = std::max(*largest, ranges[c]);
  }
  const Binary top(*largest);
  for (int64_t c = 0; c < columns; ++c) {
    const Binary range(ranges[c]);
    const int octaves = ranges[c] > 0 ? top.exponent - range.exponent - (range.mantissa > top.mantissa ? 1 : 0) : groups - 1;
    exponents[c] = static_cast<uint8_t>(std::min(std::max(octaves, 0), groups - 1));
  }
  return true;
}

// The scale of the channels with the largest range.
inline float largest_scale(float largest, int32_t top) {
  return static_cast<float>(std::max(static_cast<double>(largest) / top, static_cast<double>(kSmallestScale)));
}

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_SCALE_GROUPS_H_
