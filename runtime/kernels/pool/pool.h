// maxpool on codes and on floats, avgpool on floats; channel last.
//
//   maxpool  the maximum over the window's positions inside the input. A NaN in the window gives NaN. A window of which
//            dilation leaves no position inside gives code 0, or -inf.
//   avgpool  sum / f32(count): the positions are added in the order (row, column) to one f32 that starts at 0
#ifndef NETSUKE_KERNELS_POOL_POOL_H_
#define NETSUKE_KERNELS_POOL_POOL_H_

#include "kernels/base/isa.h"
#include "kernels/pool/geometry.h"

namespace netsuke {

// Each computes output row `row` of one image.
struct PoolKernels {
  const char* max_name;
  const char* avg_name;
  void (*max_u8)(const PoolWindow& window, const PoolShape& shape, const uint8_t* image, int64_t row, uint8_t* y);
  void (*max_f32)(const PoolWindow& window, const PoolShape& shape, const float* image, int64_t row, float* y);
  void (*avg_f32)(const PoolWindow& window, const PoolShape& shape, const float* image, int64_t row, float* y);
};

NETSUKE_KERNEL_TABLES(PoolKernels, pool_kernels)
extern const PoolKernels pool_reference;  // plain loops

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_POOL_POOL_H_
