// bfloat16 in pairs: two neighbouring channels in one 32-bit word, the even one in the low half, an odd last channel beside a
// zero. Subnormal bfloat16 become zero, as the instruction that multiplies them treats them (numerics.md section 8).
#ifndef NETSUKE_KERNELS_FGEMM_BF16_H_
#define NETSUKE_KERNELS_FGEMM_BF16_H_

#include <cstdint>

#include "kernels/fgemm/fgemm.h"

namespace netsuke {

// rows x channels to rows x ceil(channels / 2) words.
void bf16_pairs(const uint16_t* x, int64_t rows, int64_t channels, uint32_t* out);
void f32_to_bf16_pairs(const float* x, int64_t rows, int64_t channels, uint32_t* out);  // rounds to nearest even

// The kernels for bfloat16 weights: those with VDPBF16PS where the CPU has it and it was found to follow numerics.md, else
// fgemm_kernels(isa).
const FgemmKernels& fgemm_bf16_kernels(Isa isa);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_FGEMM_BF16_H_
