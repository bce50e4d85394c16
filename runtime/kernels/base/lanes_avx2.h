// Lanes on AVX2: two 256-bit registers.
#ifndef NETSUKE_KERNELS_BASE_LANES_AVX2_H_
#define NETSUKE_KERNELS_BASE_LANES_AVX2_H_

#include <immintrin.h>

namespace netsuke {
namespace {

struct F16 { __m256 a, b; };
struct I16 { __m256i a, b; };
struct B16 { __m128i v; };
struct B64 { __m256i a, b; };

NETSUKE_LANE F16 load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
NETSUKE_LANE void store(float* y, F16 v) {
  _mm256_storeu_ps(y, v.a);
  _mm256_storeu_ps(y + 8, v.b);
}
NETSUKE_LANE F16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
NETSUKE_LANE I16 splat_i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
NETSUKE_LANE F16 add(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
NETSUKE_LANE F16 sub(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
NETSUKE_LANE F16 mul(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
NETSUKE_LANE F16 div(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
NETSUKE_LANE F16 fma(F16 x, F16 y, F16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
NETSUKE_LANE I16 add(I16 x, I16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
NETSUKE_LANE I16 sub(I16 x, I16 y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }

// maxps returns its second operand when either is NaN, which is the specification's v > lo ? v : lo; minps likewise.
NETSUKE_LANE F16 clamp(F16 v, F16 lo, F16 hi) {
  return {_mm256_min_ps(_mm256_max_ps(v.a, lo.a), hi.a), _mm256_min_ps(_mm256_max_ps(v.b, lo.b), hi.b)};
}
// maxps keeps acc (second operand) when x is NaN, so a NaN in x is blended in; a NaN in acc stays.
NETSUKE_LANE F16 pool_max(F16 acc, F16 x) {
  return {_mm256_blendv_ps(_mm256_max_ps(x.a, acc.a), x.a, _mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q)),
          _mm256_blendv_ps(_mm256_max_ps(x.b, acc.b), x.b, _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q))};
}

NETSUKE_LANE I16 load_i32(const int32_t* x) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 8))};
}
NETSUKE_LANE void store_i32(int32_t* y, I16 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), v.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + 8), v.b);
}
NETSUKE_LANE F16 to_f32(I16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
NETSUKE_LANE I16 round_int(F16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }

NETSUKE_LANE I16 load_u8(const uint8_t* x) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x + 8)))};
}
NETSUKE_LANE void store_u8(uint8_t* y, I16 x) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), bytes);
}

NETSUKE_LANE B16 load_b16(const uint8_t* x) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))}; }
NETSUKE_LANE void store_b16(uint8_t* y, B16 v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(y), v.v); }
NETSUKE_LANE B16 max_b16(B16 x, B16 y) { return {_mm_max_epu8(x.v, y.v)}; }
NETSUKE_LANE B64 load_b64(const uint8_t* x) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 32))};
}
NETSUKE_LANE void store_b64(uint8_t* y, B64 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), v.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + 32), v.b);
}
NETSUKE_LANE B64 max_b64(B64 x, B64 y) { return {_mm256_max_epu8(x.a, y.a), _mm256_max_epu8(x.b, y.b)}; }

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_LANES_AVX2_H_
