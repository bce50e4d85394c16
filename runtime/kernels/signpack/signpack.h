// sign_pack: the signs of numbers or codes, packed along the last axis (docs/numerics.md section 10).
#ifndef NETSUKE_KERNELS_SIGNPACK_SIGNPACK_H_
#define NETSUKE_KERNELS_SIGNPACK_SIGNPACK_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

struct SignPackKernels {
  const char* name;
  // rows x channels to rows x ceil(channels / 64) words: bit = (x >= threshold) xor flip. threshold and flip (a word for each 64 channels)
  // are readable up to the next multiple of 64.
  void (*f32)(const float* x, int64_t rows, int64_t channels, const float* threshold, const uint64_t* flip, uint64_t* y);
  void (*u8)(const uint8_t* x, int64_t rows, int64_t channels, const int32_t* threshold, const uint64_t* flip, uint64_t* y);
};

NETSUKE_KERNEL_TABLES(SignPackKernels, sign_pack_kernels)

// Plain loops, the definition that the tables are compared with.
void sign_pack_reference(const float* x, int64_t rows, int64_t channels, const float* threshold, const uint64_t* flip, uint64_t* y);
void sign_pack_reference(const uint8_t* x, int64_t rows, int64_t channels, const int32_t* threshold, const uint64_t* flip, uint64_t* y);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_SIGNPACK_SIGNPACK_H_
