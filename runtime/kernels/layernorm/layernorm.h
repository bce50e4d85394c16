// Rows of layernorm: y = (x - mean) / sqrt(variance + eps) * gamma + beta.
#ifndef NETSUKE_KERNELS_LAYERNORM_LAYERNORM_H_
#define NETSUKE_KERNELS_LAYERNORM_LAYERNORM_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

struct LayernormKernels {
  void (*row)(const float* x, const float* gamma, const float* beta, float* y, int64_t n, float eps);  // gamma, beta may be null; y may be x
  const char* name;
};
NETSUKE_KERNEL_TABLES(LayernormKernels, layernorm_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_LAYERNORM_LAYERNORM_H_
