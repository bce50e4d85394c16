// The AVX2 epilogue, shared by the x86_avx2*.cc files of this folder. Unnamed namespace: see neon_requant.h.
#ifndef NETSUKE_KERNELS_QGEMM_AVX2_REQUANT_H_
#define NETSUKE_KERNELS_QGEMM_AVX2_REQUANT_H_

#if !defined(NETSUKE_SIMDE)
#include <immintrin.h>
#endif

#include <cstring>

#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {
namespace {

#ifndef NK_INLINE
#define NK_INLINE static inline __attribute__((always_inline))
#endif
#ifndef NK_UNROLL
#ifdef NETSUKE_SIMDE
#define NK_UNROLL(n)  // emulated registers unrolled take minutes to compile
#else
#define NK_UNROLL(n) NK_PRAGMA(GCC unroll n)
#define NK_PRAGMA(text) _Pragma(#text)
#endif
#endif

// Section 4 of docs/numerics.md for 8 channels. vmaxps(t, lo) is t > lo ? t : lo, vminps likewise: the specification's clamp.
NK_INLINE __m256 scale8(const Requant& q, __m256i acc, int64_t channel) {
  const __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_loadu_ps(q.mult + channel));
  return _mm256_add_ps(t, _mm256_loadu_ps(q.bias + channel));
}

NK_INLINE __m256i codes8(const Requant& q, __m256i acc, int64_t channel, const uint8_t* residual) {
  __m256 t = scale8(q, acc, channel);
  if (residual != nullptr) {
    const __m256i r = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(residual)));
    const __m256 f = _mm256_cvtepi32_ps(_mm256_sub_epi32(r, _mm256_set1_epi32(q.r_zero)));
    t = _mm256_add_ps(t, _mm256_mul_ps(f, _mm256_set1_ps(q.r_mult)));
  }
  t = _mm256_max_ps(t, _mm256_set1_ps(q.code_lo));
  t = _mm256_min_ps(t, _mm256_set1_ps(q.code_hi));
  return _mm256_cvtps_epi32(t);
}

NK_INLINE void store_codes16(const Requant& q, __m256i a0, __m256i a1, int64_t channel, const uint8_t* residual, uint8_t* out) {
  const __m256i c0 = codes8(q, a0, channel, residual);
  const __m256i c1 = codes8(q, a1, channel + 8, residual == nullptr ? nullptr : residual + 8);
  __m256i s = _mm256_permute4x64_epi64(_mm256_packs_epi32(c0, c1), 0xd8);
  s = _mm256_add_epi16(s, _mm256_set1_epi16(static_cast<int16_t>(q.zero)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
}

NK_INLINE void store_floats8(const Requant& q, __m256i acc, int64_t channel, const float* residual, float* out) {
  __m256 t = scale8(q, acc, channel);
  if (residual != nullptr) t = _mm256_add_ps(t, _mm256_loadu_ps(residual));
  if (q.has_flo) t = _mm256_max_ps(t, _mm256_set1_ps(q.flo));
  if (q.has_fhi) t = _mm256_min_ps(t, _mm256_set1_ps(q.fhi));
  _mm256_storeu_ps(out, t);
}

// True when store_row16 applies: codes over the whole panel. Everything else goes through finish_sums16, which is not inlined: a
// call (memcpy of a partial row) inside the tile makes the compiler spill accumulators in the main loop.
NK_INLINE bool is_plain16(const Tile& t) {
  return t.requant != nullptr && !t.requant->dyadic && !t.requant->out_f32 && t.columns == 16;
}

NK_INLINE void store_row16(const Tile& t, int64_t row, __m256i a0, __m256i a1) {
  const int64_t at = row * t.out_stride;
  const uint8_t* r = t.requant->residual == Residual::kU8 ? static_cast<const uint8_t*>(t.residual) + at : nullptr;
  store_codes16(*t.requant, a0, a1, t.channel, r, static_cast<uint8_t*>(t.out) + at);
}

// All rows of a plain tile. Rows are packed in pairs: one permutation and no separate extraction for 32 codes. kShort: no residual, lo = 0
// and zero = 0, what a layer with ReLU has; then vpackuswb does the lower clamp (also of a NaN and of sums below -2^31, which
// vcvtps2dq makes INT_MIN) and nothing is added. A third fewer instructions, 10 % of a layer with 16 input channels.
template <bool kShort>
NK_INLINE __m256i codes8_of(const Requant& q, __m256i acc, __m256 mult, __m256 bias, const uint8_t* residual) {
  __m256 t = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), mult), bias);
  const __m256 hi = _mm256_set1_ps(q.code_hi);
  // vminps returns its second operand when one is a NaN: this way round the NaN stays for vcvtps2dq.
  if (kShort) return _mm256_cvtps_epi32(_mm256_min_ps(hi, t));
  if (residual != nullptr) {
    const __m256i r = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(residual)));
    const __m256 f = _mm256_cvtepi32_ps(_mm256_sub_epi32(r, _mm256_set1_epi32(q.r_zero)));
    t = _mm256_add_ps(t, _mm256_mul_ps(f, _mm256_set1_ps(q.r_mult)));
  }
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(t, _mm256_set1_ps(q.code_lo)), hi));
}

template <bool kShort, int kRows>
NK_INLINE void store_rows16(const Tile& t, const __m256i (&acc)[kRows][2]) {
  const Requant& q = *t.requant;
  const __m256 m0 = _mm256_loadu_ps(q.mult + t.channel), m1 = _mm256_loadu_ps(q.mult + t.channel + 8);
  const __m256 b0 = _mm256_loadu_ps(q.bias + t.channel), b1 = _mm256_loadu_ps(q.bias + t.channel + 8);
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(q.zero));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  uint8_t* out = static_cast<uint8_t*>(t.out);
  const uint8_t* residual = kShort || q.residual != Residual::kU8 ? nullptr : static_cast<const uint8_t*>(t.residual);
  NK_UNROLL(8)
  for (int r = 0; r < kRows; r += 2) {
    const int next = r + 1 < kRows ? r + 1 : r;
    const uint8_t* r0 = residual == nullptr ? nullptr : residual + r * t.out_stride;
    const uint8_t* r1 = residual == nullptr ? nullptr : residual + next * t.out_stride;
    __m256i s0 = _mm256_packs_epi32(codes8_of<kShort>(q, acc[r][0], m0, b0, r0), codes8_of<kShort>(q, acc[r][1], m1, b1, r0 == nullptr ? r0 : r0 + 8));
    __m256i s1 = s0;
    if (next != r) {
      s1 = _mm256_packs_epi32(codes8_of<kShort>(q, acc[next][0], m0, b0, r1), codes8_of<kShort>(q, acc[next][1], m1, b1, r1 == nullptr ? r1 : r1 + 8));
    }
    if (!kShort) {
      s0 = _mm256_add_epi16(s0, zero);
      s1 = _mm256_add_epi16(s1, zero);
    }
    const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(s0, s1), order);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * t.out_stride), _mm256_castsi256_si128(codes));
    if (next != r) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + next * t.out_stride), _mm256_extracti128_si256(codes, 1));
  }
}

NK_INLINE bool is_short(const Requant& q) { return q.residual == Residual::kNone && q.lo == 0 && q.zero == 0; }

// Rows of 16 sums to any output.
__attribute__((noinline)) void finish_sums16(const Tile& t, const int32_t* sums) {
  if (t.requant == nullptr || t.requant->dyadic) return requantize_tile(t, sums, 16);
  const Requant& q = *t.requant;
  const size_t columns = static_cast<size_t>(t.columns);
  alignas(32) uint8_t codes[16], r_codes[16] = {};
  alignas(32) float floats[16], r_floats[16] = {};
  for (int row = 0; row < t.rows; ++row) {
    const int64_t at = row * t.out_stride;
    const __m256i a0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + row * 16));
    const __m256i a1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + row * 16 + 8));
    if (q.residual == Residual::kU8) memcpy(r_codes, static_cast<const uint8_t*>(t.residual) + at, columns);
    if (q.residual == Residual::kF32) memcpy(r_floats, static_cast<const float*>(t.residual) + at, columns * 4);
    if (q.out_f32) {
      const float* r = q.residual == Residual::kF32 ? r_floats : nullptr;
      store_floats8(q, a0, t.channel, r, floats);
      store_floats8(q, a1, t.channel + 8, r == nullptr ? nullptr : r + 8, floats + 8);
      memcpy(static_cast<float*>(t.out) + at, floats, columns * 4);
    } else {
      store_codes16(q, a0, a1, t.channel, q.residual == Residual::kU8 ? r_codes : nullptr, codes);
      memcpy(static_cast<uint8_t*>(t.out) + at, codes, columns);
    }
  }
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_AVX2_REQUANT_H_
