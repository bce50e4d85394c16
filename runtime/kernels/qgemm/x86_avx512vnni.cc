// AVX-512 VNNI tiles over kU8x4: vpdpbusd takes u8 codes and s8 weights as they are and adds four products into int32 without an
// intermediate that could saturate, so it is exact as it stands. 12 rows x 32 channels: 24 accumulators + 2 weights + 1 broadcast
// of 32 registers, 14 loads for 24 vpdpbusd.
#include "kernels/base/avx512.h"

#include <cstring>

#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {
namespace {

#define NK_INLINE static inline __attribute__((always_inline))

constexpr int kWidth = 32;

NK_INLINE __m512 scale16(const Requant& q, __m512i acc, int64_t channel) {
  const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_loadu_ps(q.mult + channel));
  return _mm512_add_ps(t, _mm512_loadu_ps(q.bias + channel));
}

NK_INLINE void store_codes16(const Requant& q, __m512i acc, int64_t channel, const uint8_t* residual, uint8_t* out) {
  __m512 t = scale16(q, acc, channel);
  if (residual != nullptr) {
    const __m512i r = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(residual)));
    const __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(r, _mm512_set1_epi32(q.r_zero)));
    t = _mm512_add_ps(t, _mm512_mul_ps(f, _mm512_set1_ps(q.r_mult)));
  }
  t = _mm512_max_ps(t, _mm512_set1_ps(q.code_lo));
  t = _mm512_min_ps(t, _mm512_set1_ps(q.code_hi));
  const __m512i code = _mm512_add_epi32(_mm512_cvtps_epi32(t), _mm512_set1_epi32(q.zero));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(code));
}

NK_INLINE void store_floats16(const Requant& q, __m512i acc, int64_t channel, const float* residual, float* out) {
  __m512 t = scale16(q, acc, channel);
  if (residual != nullptr) t = _mm512_add_ps(t, _mm512_loadu_ps(residual));
  if (q.has_flo) t = _mm512_max_ps(t, _mm512_set1_ps(q.flo));
  if (q.has_fhi) t = _mm512_min_ps(t, _mm512_set1_ps(q.fhi));
  _mm512_storeu_ps(out, t);
}

NK_INLINE void finish_row(const Tile& t, int row, __m512i a0, __m512i a1) {
  const Requant& q = *t.requant;
  const int64_t at = row * t.out_stride;
  const bool whole = t.columns == kWidth;
  const size_t columns = static_cast<size_t>(t.columns);
  if (q.out_f32) {
    alignas(64) float part[kWidth], r_part[kWidth];
    const float* r = q.residual == Residual::kF32 ? static_cast<const float*>(t.residual) + at : nullptr;
    float* out = static_cast<float*>(t.out) + at;
    if (!whole && r != nullptr) {
      memcpy(r_part, r, columns * 4);
      r = r_part;
    }
    float* to = whole ? out : part;
    store_floats16(q, a0, t.channel, r, to);
    store_floats16(q, a1, t.channel + 16, r == nullptr ? nullptr : r + 16, to + 16);
    if (!whole) memcpy(out, part, columns * 4);
    return;
  }
  alignas(32) uint8_t part[kWidth], r_part[kWidth];
  const uint8_t* r = q.residual == Residual::kU8 ? static_cast<const uint8_t*>(t.residual) + at : nullptr;
  uint8_t* out = static_cast<uint8_t*>(t.out) + at;
  if (!whole && r != nullptr) {
    memcpy(r_part, r, columns);
    r = r_part;
  }
  uint8_t* to = whole ? out : part;
  store_codes16(q, a0, t.channel, r, to);
  store_codes16(q, a1, t.channel + 16, r == nullptr ? nullptr : r + 16, to + 16);
  if (!whole) memcpy(out, part, columns);
}

template <int kRows>
void tile_u8x32(const Tile& t) {
  __m512i acc[kRows][2];
  const __m512i i0 = _mm512_loadu_si512(t.init), i1 = _mm512_loadu_si512(t.init + 16);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = i0;
    acc[r][1] = i1;
  }
  const int8_t* b = static_cast<const int8_t*>(t.b);
  for (int64_t run = 0; run < t.runs; ++run) {
    const uint8_t* a[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const uint8_t*>(t.a[r]) + t.run_offset[run];
    for (int64_t k = 0; k < t.groups; ++k, b += 128) {
      const __m512i w0 = _mm512_loadu_si512(b), w1 = _mm512_loadu_si512(b + 64);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        memcpy(&four, a[r] + 4 * k, 4);
        const __m512i x = _mm512_set1_epi32(four);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], x, w0);
        acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], x, w1);
      }
    }
  }
  if (t.requant != nullptr && !t.requant->dyadic) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) finish_row(t, r, acc[r][0], acc[r][1]);
    return;
  }
  alignas(64) int32_t sums[kRows][kWidth];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_si512(sums[r], acc[r][0]);
    _mm512_storeu_si512(sums[r] + 16, acc[r][1]);
  }
  requantize_tile(t, &sums[0][0], kWidth);
}

const TileFn kTiles32[] = {tile_u8x32<1>, tile_u8x32<2>, tile_u8x32<3>, tile_u8x32<4>,  tile_u8x32<5>,  tile_u8x32<6>,
                           tile_u8x32<7>, tile_u8x32<8>, tile_u8x32<9>, tile_u8x32<10>, tile_u8x32<11>, tile_u8x32<12>};

#define NETSUKE_QGEMM_x86_avx512vnni
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, kTiles##width},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};

}  // namespace

#ifdef NETSUKE_SIMDE
extern const Kernels kernels_simde;
const Kernels kernels_simde = {kSets, 1, nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
#else
extern const Kernels kernels_x86_avx512vnni;
const Kernels kernels_x86_avx512vnni = {kSets, 1, nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
#endif

}  // namespace qgemm
}  // namespace netsuke
