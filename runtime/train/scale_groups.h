// ShiftQuant's channel groups (nn/qtensor.py, shift_exponents): e = min(floor(log2(R / r)), groups - 1), R the largest range. Exponents and
// mantissas, no logarithms.
#ifndef NETSUKE_TRAIN_SCALE_GROUPS_H_
#define NETSUKE_TRAIN_SCALE_GROUPS_H_
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace netsuke {
namespace train {

constexpr float kSmallestScale = 0x1p-126f;

// Exponents of the channels, and the largest range; false where a range is NaN or Inf.
inline bool scale_groups(const float* ranges, int64_t columns, int32_t groups, uint8_t* exponents, float* largest) {
  *largest = 0;
  for (int64_t c = 0; c < columns; ++c) {
    if (!std::isfinite(ranges[c])) return false;
    *largest = std::max(*largest, ranges[c]);
  }
  int top_exponent = 0, exponent = 0;
  const float top_mantissa = std::frexp(*largest, &top_exponent);
  for (int64_t c = 0; c < columns; ++c) {
    const float mantissa = std::frexp(ranges[c], &exponent);
    const int octaves = ranges[c] > 0 ? top_exponent - exponent - (mantissa > top_mantissa ? 1 : 0) : groups - 1;
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
