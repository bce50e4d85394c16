#include "kernels/qpool/qpool.h"

namespace netsuke {
namespace {

void avg(const PoolWindow& window, const PoolShape& shape, const uint8_t* image, int64_t row, const QPoolParams& params, uint8_t* y) {
  for (int64_t column = 0; column < shape.out_w; ++column) {
    for (int64_t c = 0; c < shape.c; ++c) {
      int32_t sum = 0;
      int64_t inside = 0, padded = 0;
      for (int64_t i = 0; i < window.kernel[0]; ++i) {
        for (int64_t j = 0; j < window.kernel[1]; ++j) {
          const int64_t iy = row * window.strides[0] - window.pads[0] + i, ix = column * window.strides[1] - window.pads[1] + j;
          if (iy < shape.h + window.pads[2] && ix < shape.w + window.pads[3]) ++padded;
          if (iy < 0 || iy >= shape.h || ix < 0 || ix >= shape.w) continue;
          ++inside;
          sum += image[(iy * shape.w + ix) * shape.c + c] - params.x_zero;
        }
      }
      const float count = static_cast<float>(window.count_include_pad ? padded : inside);
      y[column * shape.c + c] = requantize_one(static_cast<float>(sum) * (params.mult / count), params.codes);
    }
  }
}

void mean(const uint8_t* x, int64_t positions, int64_t stride, int64_t n, const QPoolParams& params, uint8_t* y) {
  for (int64_t c = 0; c < n; ++c) {
    int32_t sum = 0;
    for (int64_t i = 0; i < positions; ++i) sum += x[i * stride + c] - params.x_zero;
    y[c] = requantize_one(static_cast<float>(sum) * (params.mult / static_cast<float>(positions)), params.codes);
  }
}

}  // namespace

const QPoolKernels qpool_reference = {"qavgpool_a8_reference", "qmean_a8_reference", avg, mean};

}  // namespace netsuke
