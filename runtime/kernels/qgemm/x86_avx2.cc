// AVX2 tiles over kS16x2: x - x_zero and w as s16, vpmaddwd + vpaddd, exact for every code and every weight (-128 included).
//
// Why not vpmaddubsw: it multiplies 32 pairs but saturates at 255 * (127 + 127). Register-resident loops on one Zen 3 core at
// 3.2 GHz (limit of the two multiplier pipes: 103 GMAC/s for all of them):
//   vpmaddubsw + vpmaddwd + vpaddd     101 GMAC/s, not exact
//   vpmaddwd + vpaddd (this file)       83 GMAC/s, exact
//   vpsignb + the first                 82 GMAC/s, exact only for weights >= -127
#include <immintrin.h>

#include <cstring>

#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {
namespace {

#define NK_INLINE static inline __attribute__((always_inline))

// Sections 4 of docs/numerics.md for 8 channels. vmaxps(t, lo) is t > lo ? t : lo, vminps likewise: the specification's clamp.
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

NK_INLINE void finish_row16(const Tile& t, int row, __m256i a0, __m256i a1) {
  const Requant& q = *t.requant;
  const int64_t at = row * t.out_stride;
  const bool whole = t.columns == 16;
  const size_t columns = static_cast<size_t>(t.columns);
  if (q.out_f32) {
    alignas(32) float part[16], r_part[16];
    const float* r = q.residual == Residual::kF32 ? static_cast<const float*>(t.residual) + at : nullptr;
    float* out = static_cast<float*>(t.out) + at;
    if (!whole && r != nullptr) {
      memcpy(r_part, r, columns * 4);
      r = r_part;
    }
    float* to = whole ? out : part;
    store_floats8(q, a0, t.channel, r, to);
    store_floats8(q, a1, t.channel + 8, r == nullptr ? nullptr : r + 8, to + 8);
    if (!whole) memcpy(out, part, columns * 4);
    return;
  }
  alignas(16) uint8_t part[16], r_part[16];
  const uint8_t* r = q.residual == Residual::kU8 ? static_cast<const uint8_t*>(t.residual) + at : nullptr;
  uint8_t* out = static_cast<uint8_t*>(t.out) + at;
  if (!whole && r != nullptr) {
    memcpy(r_part, r, columns);
    r = r_part;
  }
  store_codes16(q, a0, a1, t.channel, r, whole ? out : part);
  if (!whole) memcpy(out, part, columns);
}

template <int kRows>
void tile_s16x16(const Tile& t) {
  __m256i acc[kRows][2];
  const __m256i i0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.init));
  const __m256i i1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.init + 8));
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = i0;
    acc[r][1] = i1;
  }
  const int16_t* b = static_cast<const int16_t*>(t.b);
  for (int64_t run = 0; run < t.runs; ++run) {
    const int16_t* a[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const int16_t*>(t.a[r]) + t.run_offset[run];
    for (int64_t k = 0; k < t.groups; ++k, b += 32) {
      const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(b));
      const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(b + 16));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        memcpy(&pair, a[r] + 2 * k, 4);
        const __m256i x = _mm256_set1_epi32(pair);
        acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, w0));
        acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, w1));
      }
    }
  }
  if (t.requant != nullptr && !t.requant->dyadic) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) finish_row16(t, r, acc[r][0], acc[r][1]);
    return;
  }
  alignas(32) int32_t sums[kRows][16];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums[r]), acc[r][0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums[r] + 8), acc[r][1]);
  }
  requantize_tile(t, &sums[0][0], 16);
}

void widen(const uint8_t* src, int64_t count, int32_t zero, int16_t* dst) {
  const __m256i z = _mm256_set1_epi16(static_cast<int16_t>(zero));
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i), _mm256_sub_epi16(v, z));
  }
  for (; i < count; ++i) dst[i] = static_cast<int16_t>(src[i] - zero);
}

const TileFn kTiles16[] = {tile_s16x16<1>, tile_s16x16<2>, tile_s16x16<3>, tile_s16x16<4>, tile_s16x16<5>, tile_s16x16<6>};

#define NETSUKE_QGEMM_x86_avx2
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, kTiles##width},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};

}  // namespace

extern const Kernels kernels_x86_avx2;
const Kernels kernels_x86_avx2 = {kSets, 1, widen};

}  // namespace qgemm
}  // namespace netsuke
