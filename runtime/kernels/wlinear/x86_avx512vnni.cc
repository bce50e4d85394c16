// wlinear on AVX-512 VNNI: vpdpbusd takes the codes u = w + 2^(bits-1) unsigned and x signed, without saturation, into 32 bits.
#include "kernels/base/avx512.h"

#define NETSUKE_LANES 16
#ifndef NETSUKE_TABLE
#define NETSUKE_TABLE avx512vnni
#endif
#include "kernels/wlinear/generic.inc"

namespace netsuke {
namespace {

constexpr int kBytes = 64, kManyRows = 8, kManyCols = 2, kOneCols = 2;

typedef __m512i Bytes;
typedef __m512i Total;
typedef __m512i Sums;
typedef __m512 Floats;

NK_INLINE Bytes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
NK_INLINE Bytes splat_quad(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

template <int kBits>
NK_INLINE Bytes unfold(const uint8_t* block, int q, int v) {
  const uint8_t* at = block + kBytes * v;
  if (kBits == 8) return load_codes(at + kQuadBytes * q);
  if (kBits == 4) return _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q / 2)), 4 * (q % 2)), _mm512_set1_epi32(0x0f0f0f0f));
  if (kBits == 2) return _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q / 4)), 2 * (q % 4)), _mm512_set1_epi32(0x03030303));
  if (q < 6) return _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q / 2)), 3 * (q % 2)), _mm512_set1_epi32(0x07070707));
  const Bytes low = _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q - 6)), 6), _mm512_set1_epi32(0x03030303));
  const Bytes third = _mm512_and_si512(_mm512_srli_epi32(load_codes(at + 2 * kQuadBytes), q - 2), _mm512_set1_epi32(0x04040404));
  return _mm512_or_si512(low, third);
}

NK_INLINE Total no_total() { return _mm512_setzero_si512(); }
NK_INLINE Sums start(Total total) { return total; }
template <int kBits>
NK_INLINE void add_quad(Sums& sums, Bytes w, Bytes x) {
  sums = _mm512_dpbusd_epi32(sums, w, x);
}
template <int kBits>
NK_INLINE Total fold(Sums sums, Total) {
  return sums;
}

NK_INLINE Total splat_total(int32_t v) { return _mm512_set1_epi32(v); }
NK_INLINE Total load_total(const int32_t* p) { return _mm512_loadu_si512(p); }
NK_INLINE Total times(Total v, int32_t factor) { return _mm512_mullo_epi32(v, _mm512_set1_epi32(factor)); }
NK_INLINE Floats no_floats() { return _mm512_setzero_ps(); }
NK_INLINE Floats scale_total(Floats acc, Total total, Total off, float x_scale, const float* scale) {
  const __m512 step = _mm512_mul_ps(_mm512_set1_ps(x_scale), _mm512_loadu_ps(scale));
  return _mm512_add_ps(acc, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(total, off)), step));
}
NK_INLINE void store_floats(float* p, Floats v) { _mm512_storeu_ps(p, v); }

}  // namespace
}  // namespace netsuke

#include "kernels/wlinear/dot.inc"

namespace netsuke {
extern const WlinearKernels NK_TABLE(wlinear_kernels);
const WlinearKernels NK_TABLE(wlinear_kernels) = {"x86_avx512vnni", 128, s8_panel, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
