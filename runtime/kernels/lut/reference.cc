#include "kernels/lut/lut.h"

namespace netsuke {
namespace {

template <typename T>
void map_all(const uint8_t* x, T* y, int64_t n, const T* table) {
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

template <typename T>
void map_channels(const uint8_t* x, T* y, int64_t rows, int64_t channels, const T* tables) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < channels; ++c) y[row * channels + c] = tables[256 * c + x[row * channels + c]];
  }
}

}  // namespace

void lut_reference(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) { map_all(x, y, n, table); }
void lut_f32(const uint8_t* x, float* y, int64_t n, const float* table) { map_all(x, y, n, table); }
void lut_channels(const uint8_t* x, uint8_t* y, int64_t rows, int64_t channels, const uint8_t* tables) {
  map_channels(x, y, rows, channels, tables);
}
void lut_channels_f32(const uint8_t* x, float* y, int64_t rows, int64_t channels, const float* tables) {
  map_channels(x, y, rows, channels, tables);
}

}  // namespace netsuke
