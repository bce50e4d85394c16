// Lanes on AVX-512: one 512-bit register.
#ifndef NETSUKE_KERNELS_BASE_LANES_AVX512_H_
#define NETSUKE_KERNELS_BASE_LANES_AVX512_H_

#include "kernels/base/avx512.h"

namespace netsuke {
namespace {

struct F16 { __m512 v; };
struct I16 { __m512i v; };
struct B16 { __m128i v; };
struct B64 { __m512i v; };

NETSUKE_LANE F16 load(const float* x) { return {_mm512_loadu_ps(x)}; }
NETSUKE_LANE void store(float* y, F16 v) { _mm512_storeu_ps(y, v.v); }
NETSUKE_LANE F16 splat(float x) { return {_mm512_set1_ps(x)}; }
NETSUKE_LANE I16 splat_i(int32_t x) { return {_mm512_set1_epi32(x)}; }
NETSUKE_LANE F16 add(F16 x, F16 y) { return {_mm512_add_ps(x.v, y.v)}; }
NETSUKE_LANE F16 sub(F16 x, F16 y) { return {_mm512_sub_ps(x.v, y.v)}; }
NETSUKE_LANE F16 mul(F16 x, F16 y) { return {_mm512_mul_ps(x.v, y.v)}; }
NETSUKE_LANE F16 div(F16 x, F16 y) { return {_mm512_div_ps(x.v, y.v)}; }
NETSUKE_LANE F16 fma(F16 x, F16 y, F16 z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
NETSUKE_LANE I16 add(I16 x, I16 y) { return {_mm512_add_epi32(x.v, y.v)}; }
NETSUKE_LANE I16 sub(I16 x, I16 y) { return {_mm512_sub_epi32(x.v, y.v)}; }

// maxps returns its second operand when either is NaN, which is the specification's v > lo ? v : lo; minps likewise.
NETSUKE_LANE F16 clamp(F16 v, F16 lo, F16 hi) { return {_mm512_min_ps(_mm512_max_ps(v.v, lo.v), hi.v)}; }
// maxps keeps acc (second operand) when x is NaN, so a NaN in x is blended in; a NaN in acc stays.
NETSUKE_LANE F16 pool_max(F16 acc, F16 x) {
  return {_mm512_mask_mov_ps(_mm512_max_ps(x.v, acc.v), _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), x.v)};
}

NETSUKE_LANE I16 load_i32(const int32_t* x) { return {_mm512_loadu_si512(x)}; }
NETSUKE_LANE void store_i32(int32_t* y, I16 v) { _mm512_storeu_si512(y, v.v); }
NETSUKE_LANE F16 to_f32(I16 x) { return {_mm512_cvtepi32_ps(x.v)}; }
NETSUKE_LANE I16 round_int(F16 x) { return {_mm512_cvtps_epi32(x.v)}; }

NETSUKE_LANE I16 load_u8(const uint8_t* x) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)))};
}
NETSUKE_LANE void store_u8(uint8_t* y, I16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm512_cvtepi32_epi8(x.v));
}

#define NETSUKE_LANE_MASKS
NETSUKE_LANE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
NETSUKE_LANE I16 load_u8_part(const uint8_t* x, int64_t n) { return {_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), x))}; }
NETSUKE_LANE F16 load_part(const float* x, int64_t n) { return {_mm512_maskz_loadu_ps(first_lanes(n), x)}; }
NETSUKE_LANE void store_u8_part(uint8_t* y, I16 v, int64_t n) { _mm_mask_storeu_epi8(y, first_lanes(n), _mm512_cvtepi32_epi8(v.v)); }
NETSUKE_LANE void store_part(float* y, F16 v, int64_t n) { _mm512_mask_storeu_ps(y, first_lanes(n), v.v); }

NETSUKE_LANE B16 load_b16(const uint8_t* x) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))}; }
NETSUKE_LANE void store_b16(uint8_t* y, B16 v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(y), v.v); }
NETSUKE_LANE B16 max_b16(B16 x, B16 y) { return {_mm_max_epu8(x.v, y.v)}; }
NETSUKE_LANE B64 load_b64(const uint8_t* x) { return {_mm512_loadu_si512(x)}; }
NETSUKE_LANE void store_b64(uint8_t* y, B64 v) { _mm512_storeu_si512(y, v.v); }
NETSUKE_LANE B64 max_b64(B64 x, B64 y) { return {_mm512_max_epu8(x.v, y.v)}; }

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_LANES_AVX512_H_
