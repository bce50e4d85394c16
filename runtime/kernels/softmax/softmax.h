// Rows of softmax: y = exp(x - max) / sum, or x - max - log(sum).
#ifndef NETSUKE_KERNELS_SOFTMAX_SOFTMAX_H_
#define NETSUKE_KERNELS_SOFTMAX_SOFTMAX_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

struct SoftmaxKernels {
  void (*rows)(const float* x, float* y, int64_t rows, int64_t n, bool log);  // y may be x
  // Quantized (numerics.md section 2); y: `together` rows for sums in between, for a single row it may be x.
  void (*rows_u8)(const float* x, float* y, uint8_t* codes, int64_t rows, int64_t n, bool log, float scale, int32_t zero);
  int together;  // rows_u8
  const char* name;
};
NETSUKE_KERNEL_TABLES(SoftmaxKernels, softmax_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_SOFTMAX_SOFTMAX_H_
