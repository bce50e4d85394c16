#include "kernels/signpack/signpack.h"

namespace netsuke {
namespace {

template <typename X, typename T>
void pack(const X* x, int64_t rows, int64_t channels, const T* threshold, const uint64_t* flip, uint64_t* y) {
  const int64_t words = (channels + 63) / 64;
  for (int64_t i = 0; i < rows * words; ++i) y[i] = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < channels; ++c) {
      const bool sign = static_cast<T>(x[row * channels + c]) >= threshold[c];
      const uint64_t bit = (sign ? 1 : 0) ^ (flip[c / 64] >> (c % 64) & 1);
      y[row * words + c / 64] |= bit << (c % 64);
    }
  }
}

}  // namespace

void sign_pack_reference(const float* x, int64_t rows, int64_t channels, const float* threshold, const uint64_t* flip, uint64_t* y) {
  pack(x, rows, channels, threshold, flip, y);
}
void sign_pack_reference(const uint8_t* x, int64_t rows, int64_t channels, const int32_t* threshold, const uint64_t* flip, uint64_t* y) {
  pack(x, rows, channels, threshold, flip, y);
}

}  // namespace netsuke
