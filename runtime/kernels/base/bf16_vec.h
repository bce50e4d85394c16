// bfloat16 in vectors, as vec.h is written: rounding, neighbouring elements as pairs (the even one in the low half of a 32-bit word),
// and two multiply-adds a lane, the high halves first (docs/numerics.md section 8). NETSUKE_BF16_INSTRUCTION: with VDPBF16PS, which is
// only used after bf16_follows() (fgemm/bf16.cc); with NETSUKE_SIMDE two fma stand in its place, since SIMDe's form rounds otherwise.
#ifndef NETSUKE_KERNELS_BASE_BF16_VEC_H_
#define NETSUKE_KERNELS_BASE_BF16_VEC_H_

#include "kernels/base/vec.h"

namespace netsuke {
namespace {

constexpr int32_t kHighHalf = static_cast<int32_t>(0xffff0000u);

// In the high half of each lane; a NaN stays one.
NK_INLINE vi nearest_bf16(vf v) {
  const vi b = bits(v), rounded = (b + (0x7fff + ((b >> 16) & 1))) & kHighHalf;
  return v != v ? (b | 0x00400000) & kHighHalf : rounded;
}

typedef uint64_t vq __attribute__((vector_size(4 * NETSUKE_LANES)));
typedef uint32_t vh __attribute__((vector_size(2 * NETSUKE_LANES)));

// Neighbouring elements of v, in the high halves of their lanes, as pairs.
NK_INLINE vh pairs_of(vi v) {
  const vq both = (vq)v;
  return __builtin_convertvector(((both >> 32) & 0xffff0000u) | ((both & 0xffff0000u) >> 16), vh);
}

#if defined(NETSUKE_BF16_INSTRUCTION) && !defined(NETSUKE_SIMDE)
// Two fused multiply-adds in this order, subnormals flushed, whatever MXCSR says.
NK_INLINE vf pair_instruction(vf x, vf w, vf acc) { return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, (__m512bh)w); }
#elif defined(NETSUKE_BF16_INSTRUCTION)
NK_INLINE vf pair_instruction(vf x, vf w, vf acc) {
  acc = fma(from_bits(bits(x) & kHighHalf), from_bits(bits(w) & kHighHalf), acc);
  return fma(from_bits(bits(x) << 16), from_bits(bits(w) << 16), acc);
}
#endif

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_BF16_VEC_H_
