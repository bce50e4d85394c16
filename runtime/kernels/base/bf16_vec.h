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
typedef uint16_t vs __attribute__((vector_size(2 * NETSUKE_LANES)));

// Neighbouring elements of v, in the high halves of their lanes, as pairs.
NK_INLINE vh pairs_of(vi v) {
  const vq both = (vq)v;
  return __builtin_convertvector(((both >> 32) & 0xffff0000u) | ((both & 0xffff0000u) >> 16), vh);
}

// In the high half of each lane; subnormal results become zero.
NK_INLINE vi round_to_bf16(vf v) {
  const vi kept = nearest_bf16(v);
  return (kept & 0x7f800000) == 0 ? kept & static_cast<int32_t>(0x80000000u) : kept;
}

NK_INLINE vi widened(vs halves) {
#if defined(__AVX512F__) && NETSUKE_LANES == 16
  return (vi)_mm512_cvtepu16_epi32((__m256i)halves);  // of the conversion below GCC 12 makes two halves and joins them
#else
  return __builtin_convertvector(halves, vi);
#endif
}
NK_INLINE vf load_bf16(const uint16_t* p) {
  vs halves;
  memcpy(&halves, p, sizeof(halves));
  return from_bits(widened(halves) << 16);
}
NK_INLINE vf load_bf16_part(const uint16_t* p, int64_t n) {
  uint16_t halves[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) halves[i] = p[i];
  return load_bf16(halves);
}
// round_to_bf16, one behind the other.
NK_INLINE vs bf16_of(vf v) {
#if defined(NETSUKE_BF16_INSTRUCTION) && !defined(NETSUKE_SIMDE)
  // The instruction takes subnormal floats for zeros, also those that round up to the smallest normal bfloat16: half a unit more, and
  // these are normal floats just above it; what stays subnormal becomes zero either way.
  const __mmask16 subnormal = _mm512_testn_epi32_mask((__m512i)v, _mm512_set1_epi32(0x7f800000));
  const __m512i b = _mm512_mask_add_epi32((__m512i)v, subnormal, (__m512i)v, _mm512_set1_epi32(0x8000));
  return (vs)_mm512_cvtneps_pbh((__m512)b);
#else
  return __builtin_convertvector((vu)round_to_bf16(v) >> 16, vs);
#endif
}
NK_INLINE void store_bf16(uint16_t* p, vf v) {
  const vs halves = bf16_of(v);
  memcpy(p, &halves, sizeof(halves));
}
NK_INLINE void store_bf16_part(uint16_t* p, vf v, int64_t n) {
  const vs last = bf16_of(v);
  uint16_t halves[kLanes];
  memcpy(halves, &last, sizeof(halves));
  for (int64_t i = 0; i < n; ++i) p[i] = halves[i];
}

// fma with flushing. Where the result is at most 2^-126 it is computed again 2^64 times larger, where no rounding is cut short by the
// smallest exponent: tiny is what stays below 2^-126 after rounding to 24 bits.
NK_INLINE vf fma_flush(vf x, vf w, vf acc) {
  const vf y = fma(x, w, acc), large = fma(x * 0x1p64f, w, acc * 0x1p64f);
  const vf zero = from_bits(sign_bit(y));
  return select((absolute(y) > 0x1p-126f) | (y != y), y, select(absolute(large) < 0x1p-62f, zero, y));
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
