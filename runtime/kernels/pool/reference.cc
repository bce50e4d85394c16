#include <cmath>
#include <limits>

#include "kernels/pool/pool.h"

namespace netsuke {
namespace {

// visit(y, x) for every position of the window that lies inside the input, row by row.
template <typename Visit>
void for_window(const PoolWindow& window, const PoolShape& shape, int64_t row, int64_t column, const Visit& visit) {
  for (int64_t i = 0; i < window.kernel[0]; ++i) {
    for (int64_t j = 0; j < window.kernel[1]; ++j) {
      const int64_t y = row * window.strides[0] - window.pads[0] + i * window.dilations[0];
      const int64_t x = column * window.strides[1] - window.pads[1] + j * window.dilations[1];
      if (y >= 0 && y < shape.h && x >= 0 && x < shape.w) visit(y, x);
    }
  }
}

template <typename T>
void max_row(const PoolWindow& window, const PoolShape& shape, const T* image, int64_t row, T* y, T least) {
  for (int64_t column = 0; column < shape.out_w; ++column) {
    for (int64_t c = 0; c < shape.c; ++c) {
      T best = least;
      for_window(window, shape, row, column, [&](int64_t iy, int64_t ix) {
        const T v = image[(iy * shape.w + ix) * shape.c + c];
        if (v > best || v != v) best = v;
      });
      y[column * shape.c + c] = best;
    }
  }
}

void max_u8(const PoolWindow& window, const PoolShape& shape, const uint8_t* image, int64_t row, uint8_t* y) {
  max_row<uint8_t>(window, shape, image, row, y, 0);
}

void max_f32(const PoolWindow& window, const PoolShape& shape, const float* image, int64_t row, float* y) {
  max_row<float>(window, shape, image, row, y, -std::numeric_limits<float>::infinity());
}

void avg_f32(const PoolWindow& window, const PoolShape& shape, const float* image, int64_t row, float* y) {
  for (int64_t column = 0; column < shape.out_w; ++column) {
    const int64_t start_y = row * window.strides[0] - window.pads[0], start_x = column * window.strides[1] - window.pads[1];
    int64_t count = 0;
    if (window.count_include_pad) {
      count = std::min(window.kernel[0], shape.h + window.pads[2] - start_y) * std::min(window.kernel[1], shape.w + window.pads[3] - start_x);
    } else {
      for_window(window, shape, row, column, [&](int64_t, int64_t) { ++count; });
    }
    for (int64_t c = 0; c < shape.c; ++c) {
      float sum = 0.0f;
      for_window(window, shape, row, column, [&](int64_t iy, int64_t ix) { sum += image[(iy * shape.w + ix) * shape.c + c]; });
      y[column * shape.c + c] = sum / static_cast<float>(count);
    }
  }
}

}  // namespace

const PoolKernels pool_reference = {"maxpool_reference", "avgpool_reference", max_u8, max_f32, avg_f32};

}  // namespace netsuke
