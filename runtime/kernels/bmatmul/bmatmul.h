// bmatmul: batched products of packed signs (or packed 0/1) with packed signs or numbers (docs/numerics.md section 10).
#ifndef NETSUKE_KERNELS_BMATMUL_BMATMUL_H_
#define NETSUKE_KERNELS_BMATMUL_BMATMUL_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

struct BMatmulKernels {
  const char* name;
  // One row a of `words` words with n rows of b: acc[j] = a . b[j] over `channels` terms; zero_one: the terms of a are 0 and 1.
  void (*counts)(const uint64_t* a, const uint64_t* b, int64_t n, int64_t words, int64_t channels, bool zero_one, int32_t* acc);
  // acc[j] = sum over k in order of b[k][j], added where bit k is set, else subtracted (zero_one: left out).
  void (*sums)(const uint64_t* a, const float* b, int64_t k, int64_t n, bool zero_one, float* acc);
};

NETSUKE_KERNEL_TABLES(BMatmulKernels, bmatmul_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BMATMUL_BMATMUL_H_
