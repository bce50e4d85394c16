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

// All rows of a plain tile. Rows are packed in pairs: one permutation and no separate extraction for 32 codes. Every instruction counts: with 16
// input channels the products of a tile of 96 outputs take 48 cycles, and its 12 vectors of sums must become codes meanwhile.
//   kShort   no residual, lo = 0 and zero = 0, what a layer with ReLU has; then vpackuswb does the lower clamp (also of a NaN and of sums
//            below -2^31, which vcvtps2dq makes INT_MIN) and nothing is added.
//   kFree    Requant::packs_clamp: packing with saturation does both clamps.
NK_INLINE __m256 scaled(__m256i acc, const float* mult, const float* bias) {
  return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_loadu_ps(mult)), _mm256_loadu_ps(bias));
}

// The same with multipliers and biases as operands in memory, for tiles: in registers they would push six of the tile's sums to the stack.
NK_INLINE __m256 scaled_by_memory(__m256i acc, const float* mult, const float* bias) {
#if defined(NETSUKE_SIMDE)
  return scaled(acc, mult, bias);
#else
  __m256 t = _mm256_cvtepi32_ps(acc);
  __asm__("vmulps %1, %0, %0" : "+x"(t) : "m"(*reinterpret_cast<const __m256_u*>(mult)));
  __asm__("vaddps %1, %0, %0" : "+x"(t) : "m"(*reinterpret_cast<const __m256_u*>(bias)));
  return t;
#endif
}

template <bool kShort, bool kFree>
NK_INLINE __m256i codes8_of(const Requant& q, __m256 t, const uint8_t* residual) {
  if (!kShort && residual != nullptr) {
    const __m256i r = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(residual)));
    const __m256 f = _mm256_cvtepi32_ps(_mm256_sub_epi32(r, _mm256_set1_epi32(q.r_zero)));
    t = _mm256_add_ps(t, _mm256_mul_ps(f, _mm256_set1_ps(q.r_mult)));
  }
  if (kFree) return _mm256_cvtps_epi32(t);
  const __m256 hi = _mm256_set1_ps(q.code_hi);
  // vminps returns its second operand when one is a NaN: this way round the NaN stays for vcvtps2dq.
  if (kShort) return _mm256_cvtps_epi32(_mm256_min_ps(hi, t));
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(t, _mm256_set1_ps(q.code_lo)), hi));
}

// Codes as 16-bit words, the zero point included.
template <bool kShort, bool kFree>
NK_INLINE __m256i words_of(const Requant& q, __m256i c0, __m256i c1) {
  const __m256i s = _mm256_packs_epi32(c0, c1);
  if (kShort) return s;
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(q.zero));
  return kFree ? _mm256_adds_epi16(s, zero) : _mm256_add_epi16(s, zero);
}

template <bool kShort, bool kFree>
NK_INLINE __m256i words16_of(const Tile& t, const __m256i (&acc)[2], const uint8_t* residual) {
  const float* mult = t.requant->mult + t.channel;
  const float* bias = t.requant->bias + t.channel;
  const uint8_t* next = residual == nullptr ? nullptr : residual + 8;
  return words_of<kShort, kFree>(*t.requant, codes8_of<kShort, kFree>(*t.requant, scaled_by_memory(acc[0], mult, bias), residual),
                                 codes8_of<kShort, kFree>(*t.requant, scaled_by_memory(acc[1], mult + 8, bias + 8), next));
}

template <bool kShort, bool kFree, int kRows>
NK_INLINE void finish_rows(const Tile& t, const __m256i (&acc)[kRows][2]) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  uint8_t* out = static_cast<uint8_t*>(t.out);
  const uint8_t* residual = kShort || t.requant->residual != Residual::kU8 ? nullptr : static_cast<const uint8_t*>(t.residual);
  NK_UNROLL(8)
  for (int r = 0; r < kRows; r += 2) {
    const int next = r + 1 < kRows ? r + 1 : r;
    const uint8_t* r0 = residual == nullptr ? nullptr : residual + r * t.out_stride;
    const uint8_t* r1 = residual == nullptr ? nullptr : residual + next * t.out_stride;
    const __m256i s0 = words16_of<kShort, kFree>(t, acc[r], r0);
    const __m256i s1 = next == r ? s0 : words16_of<kShort, kFree>(t, acc[next], r1);
    const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(s0, s1), order);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * t.out_stride), _mm256_castsi256_si128(codes));
    if (next != r) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + next * t.out_stride), _mm256_extracti128_si256(codes, 1));
  }
}

// Half a panel: 8 codes a row. Rows are packed in pairs likewise.
NK_INLINE bool is_plain8(const Tile& t) {
  return t.requant != nullptr && !t.requant->dyadic && !t.requant->out_f32 && t.columns == 8;
}

template <bool kShort, bool kFree, int kRows>
NK_INLINE void finish_rows(const Tile& t, const __m256i (&acc)[kRows][1]) {
  const Requant& q = *t.requant;
  const float* mult = q.mult + t.channel;
  const float* bias = q.bias + t.channel;
  uint8_t* out = static_cast<uint8_t*>(t.out);
  const uint8_t* residual = kShort || q.residual != Residual::kU8 ? nullptr : static_cast<const uint8_t*>(t.residual);
  NK_UNROLL(8)
  for (int r = 0; r < kRows; r += 2) {
    const int next = r + 1 < kRows ? r + 1 : r;
    const uint8_t* r0 = residual == nullptr ? nullptr : residual + r * t.out_stride;
    const uint8_t* r1 = residual == nullptr ? nullptr : residual + next * t.out_stride;
    const __m256i c0 = codes8_of<kShort, kFree>(q, scaled_by_memory(acc[r][0], mult, bias), r0);
    const __m256i c1 = next == r ? c0 : codes8_of<kShort, kFree>(q, scaled_by_memory(acc[next][0], mult, bias), r1);
    const __m256i s = words_of<kShort, kFree>(q, c0, c1);  // by halves: row r, row next
    const __m256i codes = _mm256_packus_epi16(s, s);
    const __m128i low = _mm256_castsi256_si128(codes), all = _mm_unpacklo_epi32(low, _mm256_extracti128_si256(codes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + r * t.out_stride), all);
    if (next != r) _mm_storel_epi64(reinterpret_cast<__m128i*>(out + next * t.out_stride), _mm_unpackhi_epi64(all, all));
  }
}

NK_INLINE bool is_short(const Requant& q) { return q.residual == Residual::kNone && q.lo == 0 && q.zero == 0; }

// A plain tile of 16 or 8 columns, by the shortest way.
template <int kRows, int kHalves>
NK_INLINE void store_rows(const Tile& t, const __m256i (&acc)[kRows][kHalves]) {
  const Requant& q = *t.requant;
  if (q.packs_clamp) return is_short(q) ? finish_rows<true, true>(t, acc) : finish_rows<false, true>(t, acc);
  is_short(q) ? finish_rows<true, false>(t, acc) : finish_rows<false, false>(t, acc);
}

// Into L2, where the next panel has room beside the rows of a task.
NK_INLINE void prefetch(uintptr_t address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1); }

// The next of a call's tiles. Elements of out and residual: codes, floats or raw sums.
NK_INLINE void next_tile(Tile* t, int rows) {
  const int64_t step = rows * t->out_stride * (t->requant == nullptr || t->requant->out_f32 ? 4 : 1);
  t->a += rows;
  t->out = static_cast<uint8_t*>(t->out) + step;
  if (t->residual != nullptr) t->residual = static_cast<const uint8_t*>(t->residual) + step;
}

// Section 5 for the four 64-bit lanes of p, e in [1, 62]. AVX2 has no arithmetic 64-bit shift: p + 2^62 is not negative (|p| < 2^62), is
// shifted logically and loses 2^62 >> e again. shift_rne(p, e) = (p + half - 1 + odd) >> e with odd the lowest bit of p >> e.
NK_INLINE __m256i shift_rne4(__m256i p, __m256i e) {
  const __m256i one = _mm256_set1_epi64x(1), offset = _mm256_set1_epi64x(int64_t{1} << 62), back = _mm256_srlv_epi64(offset, e);
  const __m256i up = _mm256_add_epi64(p, offset);
  const __m256i odd = _mm256_and_si256(_mm256_sub_epi64(_mm256_srlv_epi64(up, e), back), one);
  const __m256i half = _mm256_sllv_epi64(one, _mm256_sub_epi64(e, one));
  const __m256i sum = _mm256_add_epi64(_mm256_add_epi64(up, _mm256_sub_epi64(half, one)), odd);
  return _mm256_sub_epi64(_mm256_srlv_epi64(sum, e), back);
}

// Clamped codes of the even 32-bit lanes of acc, in the low halves of the 64-bit lanes.
NK_INLINE __m256i dyadic4(const Requant& q, __m256i acc, __m256i m, __m256i e, __m256i residual, bool with_residual) {
  __m256i v = shift_rne4(_mm256_mul_epi32(acc, m), e);
  if (with_residual) {
    const __m256i r = _mm256_mul_epi32(_mm256_sub_epi32(residual, _mm256_set1_epi32(q.r_zero)), _mm256_set1_epi32(q.r_m));
    v = _mm256_add_epi64(v, shift_rne4(r, _mm256_set1_epi64x(q.r_e)));
  }
  v = _mm256_add_epi64(v, _mm256_set1_epi64x(q.zero));
  const __m256i lo = _mm256_set1_epi64x(q.lo), hi = _mm256_set1_epi64x(q.hi);
  v = _mm256_blendv_epi8(v, lo, _mm256_cmpgt_epi64(lo, v));
  return _mm256_blendv_epi8(v, hi, _mm256_cmpgt_epi64(v, hi));
}

NK_INLINE __m256i dyadic8(const Requant& q, __m256i acc, int64_t channel, const uint8_t* residual) {
  const __m256i low = _mm256_set1_epi64x(0xffffffff);
  const __m256i m = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q.m + channel));
  const __m256i e = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q.e + channel));
  const bool with = residual != nullptr;
  const __m256i r = with ? _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(residual))) : acc;
  const __m256i even = dyadic4(q, acc, m, _mm256_and_si256(e, low), r, with);
  const __m256i odd = dyadic4(q, _mm256_srli_epi64(acc, 32), _mm256_srli_epi64(m, 32), _mm256_srli_epi64(e, 32),
                              _mm256_srli_epi64(r, 32), with);
  return _mm256_or_si256(even, _mm256_slli_epi64(odd, 32));
}

NK_INLINE void store_dyadic16(const Requant& q, __m256i a0, __m256i a1, int64_t channel, const uint8_t* residual, uint8_t* out) {
  const __m256i c0 = dyadic8(q, a0, channel, residual), c1 = dyadic8(q, a1, channel + 8, residual == nullptr ? nullptr : residual + 8);
  const __m256i s = _mm256_permute4x64_epi64(_mm256_packs_epi32(c0, c1), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
}

// Rows of 16 sums to any output.
__attribute__((noinline)) void finish_sums16(const Tile& t, const int32_t* sums) {
  if (t.requant == nullptr) return requantize_tile(t, sums, 16);
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
      const uint8_t* r = q.residual == Residual::kU8 ? r_codes : nullptr;
      q.dyadic ? store_dyadic16(q, a0, a1, t.channel, r, codes) : store_codes16(q, a0, a1, t.channel, r, codes);
      memcpy(static_cast<uint8_t*>(t.out) + at, codes, columns);
    }
  }
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_AVX2_REQUANT_H_
