// The AVX-512 epilogue, shared by the x86_avx512vnni*.cc files of this folder. Unnamed namespace: see neon_requant.h.
#ifndef NETSUKE_KERNELS_QGEMM_AVX512_REQUANT_H_
#define NETSUKE_KERNELS_QGEMM_AVX512_REQUANT_H_

#include "kernels/base/avx512.h"

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

NK_INLINE __m512 scale16(const Requant& q, __m512i acc, int64_t channel) {
  const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_loadu_ps(q.mult + channel));
  return _mm512_add_ps(t, _mm512_loadu_ps(q.bias + channel));
}

// Codes of 16 sums, one a lane; residual is used where `with` says so.
NK_INLINE __m512i codes16(const Requant& q, __m512i acc, int64_t channel, __m512i residual, bool with) {
  __m512 t = scale16(q, acc, channel);
  if (with) {
    const __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(residual, _mm512_set1_epi32(q.r_zero)));
    t = _mm512_add_ps(t, _mm512_mul_ps(f, _mm512_set1_ps(q.r_mult)));
  }
  t = _mm512_max_ps(t, _mm512_set1_ps(q.code_lo));
  t = _mm512_min_ps(t, _mm512_set1_ps(q.code_hi));
  return _mm512_add_epi32(_mm512_cvtps_epi32(t), _mm512_set1_epi32(q.zero));
}

NK_INLINE void store_codes16(const Requant& q, __m512i acc, int64_t channel, const uint8_t* residual, uint8_t* out) {
  const bool with = residual != nullptr;
  const __m512i r = with ? _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(residual))) : acc;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(codes16(q, acc, channel, r, with)));
}

NK_INLINE __m512 floats16(const Requant& q, __m512i acc, int64_t channel, __m512 residual, bool with) {
  __m512 t = scale16(q, acc, channel);
  if (with) t = _mm512_add_ps(t, residual);
  if (q.has_flo) t = _mm512_max_ps(t, _mm512_set1_ps(q.flo));
  if (q.has_fhi) t = _mm512_min_ps(t, _mm512_set1_ps(q.fhi));
  return t;
}

// Four vectors of scaled sums to 64 codes: a to d one after the other. Packs put quarters of a, b, c and d into each 128-bit lane, hence the
// last shuffle. All saturate, so zero, lo and hi are applied to 16 and 8 bits (Requant::bounded).
struct CodePack {
  __m512i zero, lo, hi, order;
};
alignas(64) constexpr int32_t kCodeOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

NK_INLINE CodePack code_pack(const Requant& q) {
  return {_mm512_set1_epi16(static_cast<int16_t>(q.zero)), _mm512_set1_epi8(static_cast<char>(q.lo)),
          _mm512_set1_epi8(static_cast<char>(q.hi)), _mm512_loadu_si512(kCodeOrder)};
}

NK_INLINE __m512i codes64(const CodePack& p, const __m512 (&t)[4]) {
  const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(t[0]), _mm512_cvtps_epi32(t[1]));
  const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(t[2]), _mm512_cvtps_epi32(t[3]));
  const __m512i codes = _mm512_packus_epi16(_mm512_adds_epi16(ab, p.zero), _mm512_adds_epi16(cd, p.zero));
  return _mm512_permutexvar_epi32(p.order, _mm512_min_epu8(_mm512_max_epu8(codes, p.lo), p.hi));
}

// All rows of a tile over the whole panel: under 7 instructions a vector of sums, 12 with a residual. Requant's fields are read once: a store
// of codes may alias them.
template <int kVectors, int kRows, bool kResidual>
NK_INLINE void store_codes(const Tile& t, const __m512i (&acc)[kRows][kVectors]) {
  constexpr int kSums = kRows * kVectors;
  const Requant& q = *t.requant;
  const CodePack pack = code_pack(q);
  __m512 mult[kVectors], bias[kVectors];
  NK_UNROLL(4)
  for (int v = 0; v < kVectors; ++v) {
    mult[v] = _mm512_loadu_ps(q.mult + t.channel + 16 * v);
    bias[v] = _mm512_loadu_ps(q.bias + t.channel + 16 * v);
  }
  const __m512i r_zero = _mm512_set1_epi32(q.r_zero);
  const __m512 r_mult = _mm512_set1_ps(q.r_mult);
  uint8_t* out = static_cast<uint8_t*>(t.out);
  const uint8_t* residual = static_cast<const uint8_t*>(t.residual);
  const int64_t stride = t.out_stride;
  NK_UNROLL(16)
  for (int i = 0; i < kSums; i += 4) {
    __m512 scaled[4];
    NK_UNROLL(4)
    for (int j = 0; j < 4; ++j) {
      const int at = i + j < kSums ? i + j : kSums - 1, row = at / kVectors, v = at % kVectors;
      scaled[j] = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[row][v]), mult[v]), bias[v]);
      if (kResidual) {
        const __m512i r = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(residual + row * stride + 16 * v)));
        scaled[j] = _mm512_add_ps(scaled[j], _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(r, r_zero)), r_mult));
      }
    }
    const __m512i codes = codes64(pack, scaled);
    if (kVectors == 2) {
      uint8_t* to = out + i / 2 * stride;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(codes));
      if (i + 2 < kSums) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + stride), _mm512_extracti64x4_epi64(codes, 1));
      continue;
    }
    const auto quarter = [&](int j, __m128i part) __attribute__((always_inline)) {
      if (i + j < kSums) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (i + j) / kVectors * stride + (i + j) % kVectors * 16), part);
      }
    };
    quarter(0, _mm512_castsi512_si128(codes));
    quarter(1, _mm512_extracti32x4_epi32(codes, 1));
    quarter(2, _mm512_extracti32x4_epi32(codes, 2));
    quarter(3, _mm512_extracti32x4_epi32(codes, 3));
  }
}

// True when store_codes applies. Everything else goes through finish_sums, which is not inlined: its loops inside the tile would make the
// compiler spill accumulators in the main loop.
NK_INLINE bool is_packed(const Tile& t, int width) { return t.requant != nullptr && t.requant->bounded && t.columns == width; }

// Section 5 for the eight 64-bit lanes of p, e in [1, 62]: (p + half - 1 + odd) >> e with odd the lowest bit of p >> e.
NK_INLINE __m512i shift_rne8(__m512i p, __m512i e) {
  const __m512i one = _mm512_set1_epi64(1);
  const __m512i odd = _mm512_and_si512(_mm512_srav_epi64(p, e), one);
  const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(e, one));
  return _mm512_srav_epi64(_mm512_add_epi64(_mm512_add_epi64(p, _mm512_sub_epi64(half, one)), odd), e);
}

// Clamped codes of the even 32-bit lanes of acc.
NK_INLINE __m512i dyadic8(const Requant& q, __m512i acc, __m512i m, __m512i e, __m512i residual, bool with_residual) {
  __m512i v = shift_rne8(_mm512_mul_epi32(acc, m), e);
  if (with_residual) {
    const __m512i r = _mm512_mul_epi32(_mm512_sub_epi32(residual, _mm512_set1_epi32(q.r_zero)), _mm512_set1_epi32(q.r_m));
    v = _mm512_add_epi64(v, shift_rne8(r, _mm512_set1_epi64(q.r_e)));
  }
  v = _mm512_add_epi64(v, _mm512_set1_epi64(q.zero));
  return _mm512_min_epi64(_mm512_max_epi64(v, _mm512_set1_epi64(q.lo)), _mm512_set1_epi64(q.hi));
}

NK_INLINE __m512i dyadic16(const Requant& q, __m512i acc, int64_t channel, __m512i r, bool with) {
  const __m512i m = _mm512_loadu_si512(q.m + channel), e = _mm512_loadu_si512(q.e + channel);
  const __m512i even = dyadic8(q, acc, m, _mm512_and_si512(e, _mm512_set1_epi64(0xffffffff)), r, with);
  const __m512i odd = dyadic8(q, _mm512_srli_epi64(acc, 32), _mm512_srli_epi64(m, 32), _mm512_srli_epi64(e, 32),
                              _mm512_srli_epi64(r, 32), with);
  return _mm512_or_si512(even, _mm512_slli_epi64(odd, 32));
}

// Rows of sums (stride kWidth, a multiple of 16) to any output. Masks take the ends of rows: GCC 12 makes rep movs of copies of a few bytes,
// half of the time of a layer with 24 channels.
template <int kWidth>
__attribute__((noinline)) void finish_sums(const Tile& t, const int32_t* sums) {
  if (t.requant == nullptr) return requantize_tile(t, sums, kWidth);
  const Requant q = *t.requant;  // a copy: what is stored may alias it
  const int64_t columns = t.columns, channel = t.channel, stride = t.out_stride, rows = t.rows;
  for (int64_t row = 0; row < rows; ++row, sums += kWidth) {
    for (int64_t v = 0; v < columns; v += 16) {
      const __m512i acc = _mm512_loadu_si512(sums + v);
      const __mmask16 inside = static_cast<__mmask16>(columns - v >= 16 ? 0xffff : (1u << (columns - v)) - 1);
      const int64_t at = row * stride + v;
      if (q.out_f32) {
        const bool with = q.residual == Residual::kF32;
        const __m512 r = with ? _mm512_maskz_loadu_ps(inside, static_cast<const float*>(t.residual) + at) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(static_cast<float*>(t.out) + at, inside, floats16(q, acc, channel + v, r, with));
        continue;
      }
      const bool with = q.residual == Residual::kU8;
      const __m128i bytes = with ? _mm_maskz_loadu_epi8(inside, static_cast<const uint8_t*>(t.residual) + at) : _mm_setzero_si128();
      const __m512i r = _mm512_cvtepu8_epi32(bytes);
      const __m512i code = q.dyadic ? dyadic16(q, acc, channel + v, r, with) : codes16(q, acc, channel + v, r, with);
      _mm_mask_storeu_epi8(static_cast<uint8_t*>(t.out) + at, inside, _mm512_cvtepi32_epi8(code));
    }
  }
}

// 0, 1, ... n - 1 as a type: std::make_index_sequence without the standard library (its inline functions must not be compiled here).
template <int... kNumbers>
struct Numbers {};
template <int n, int... kNumbers>
struct Count : Count<n - 1, n - 1, kNumbers...> {};
template <int... kNumbers>
struct Count<0, kNumbers...> {
  using Type = Numbers<kNumbers...>;
};

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_AVX512_REQUANT_H_
