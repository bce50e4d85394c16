// bfloat16 in pairs: two neighbouring channels in one 32-bit word, the even one in the low half, an odd last channel beside a
// zero. Subnormal bfloat16 become zero, as the instruction that multiplies them treats them (numerics.md section 8).
#ifndef NETSUKE_KERNELS_FGEMM_BF16_H_
#define NETSUKE_KERNELS_FGEMM_BF16_H_

#include <cstdint>

#include "kernels/fgemm/fgemm.h"

namespace netsuke {

// rows x channels to rows x ceil(channels / 2) words; returns the smallest exponent field but that of zero, as FgemmKernels::to_bf16.
uint32_t bf16_pairs(const uint16_t* x, int64_t rows, int64_t channels, uint32_t* out);

// fgemm_pack for b in f32, rounded to pairs along k; b is [k, n], or [n, k] where trans_b. Returns the smallest exponent field as
// FgemmKernels::to_bf16. `scratch`: fgemm_pack_bf16_bytes(), for trans_b only.
uint32_t fgemm_pack_bf16(const FgemmKernels& kernels, const float* b, int64_t n, int64_t k, bool trans_b, float* packed, int64_t panel,
                         int64_t panel_end, void* scratch);
size_t fgemm_pack_bf16_bytes(const FgemmKernels& kernels, int64_t k, bool trans_b);

// Sums can only become subnormal when the smallest factors are this small: with exponent fields x and w every product is a multiple of
// 2^(x + w - 268), hence so is every sum, rounded or not.
inline bool bf16_may_flush(uint32_t x_exponent, uint32_t w_exponent) { return x_exponent + w_exponent < 142; }

// The definition, one pair: acc + high halves, then + low halves, each fused and rounded to nearest even, flushed when tiny.
float bf16_multiply_add(uint32_t x, uint32_t w, float acc);
// Whether a tile_bf16 computes exactly that, on numbers chosen to tell apart other orders, roundings and treatments of subnormals.
bool bf16_follows(const FgemmKernels& kernels);

// The kernels for bfloat16 weights: those with VDPBF16PS where the CPU has it and it was found to follow numerics.md, else
// fgemm_kernels(isa).
const FgemmKernels& fgemm_bf16_kernels(Isa isa);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_FGEMM_BF16_H_
