// qavgpool and qmean, section 6 of docs/numerics.md: t = f32(sum (x - x_zero)) * (mult / f32(count)), then requantization. A sum over
// `area` positions is at most 255 * area, so windows and images of up to 2^31 / 255 = 8,421,504 positions are exact in 32 bits.
#ifndef NETSUKE_KERNELS_QPOOL_QPOOL_H_
#define NETSUKE_KERNELS_QPOOL_QPOOL_H_

#include "kernels/base/isa.h"
#include "kernels/pool/geometry.h"

namespace netsuke {

constexpr int64_t kMostPositions = INT32_MAX / 255;

struct QPoolParams {
  int32_t x_zero = 0;
  float mult = 1.0f;
  Codes codes;
};

struct QPoolKernels {
  const char* avg_name;
  const char* mean_name;
  // Output row `row` of one image.
  void (*avg)(const PoolWindow& window, const PoolShape& shape, const uint8_t* image, int64_t row, const QPoolParams& params, uint8_t* y);
  // y[c] of channels [0, n) over `positions` pixels that lie `stride` bytes apart.
  void (*mean)(const uint8_t* x, int64_t positions, int64_t stride, int64_t n, const QPoolParams& params, uint8_t* y);
};

NETSUKE_KERNEL_TABLES(QPoolKernels, qpool_kernels)
extern const QPoolKernels qpool_reference;  // plain loops

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QPOOL_QPOOL_H_
