// wlinear on AVX2. vpmaddubsw multiplies unsigned codes by signed ones into 16 bits: with u < 16 and |x| <= 127 a pair is at most
// 3,810, so the eight quads of a block stay below 30,480 and are widened once a block. At 8 bits |w| <= 128 goes in unsigned and x
// takes its sign: a pair is at most 32,512 and is widened at once. The codes of 8 bits are w + 128 in memory, the flip makes them w.
#include <immintrin.h>

#define NETSUKE_LANES 8
#define NETSUKE_TABLE avx2
#include "kernels/wlinear/generic.inc"

namespace netsuke {
namespace {

constexpr int kBytes = 32, kManyRows = 4, kManyCols = 2, kOneCols = 4;

typedef __m256i Bytes;
typedef __m256i Total;
typedef __m256i Sums;  // 16-bit sums of one block below 8 bits, 32-bit sums at 8
typedef __m256 Floats;

NK_INLINE Bytes load_codes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
NK_INLINE Bytes splat_quad(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}

template <int kBits>
NK_INLINE Bytes unfold(const uint8_t* block, int q, int v) {
  const uint8_t* at = block + kBytes * v;
  if (kBits == 8) return _mm256_xor_si256(load_codes(at + kQuadBytes * q), _mm256_set1_epi8(-128));
  if (kBits == 4) return _mm256_and_si256(_mm256_srli_epi16(load_codes(at + kQuadBytes * (q / 2)), 4 * (q % 2)), _mm256_set1_epi8(15));
  if (kBits == 2) return _mm256_and_si256(_mm256_srli_epi16(load_codes(at + kQuadBytes * (q / 4)), 2 * (q % 4)), _mm256_set1_epi8(3));
  if (q < 6) return _mm256_and_si256(_mm256_srli_epi16(load_codes(at + kQuadBytes * (q / 2)), 3 * (q % 2)), _mm256_set1_epi8(7));
  const Bytes low = _mm256_and_si256(_mm256_srli_epi16(load_codes(at + kQuadBytes * (q - 6)), 6), _mm256_set1_epi8(3));
  const Bytes third = _mm256_and_si256(_mm256_srli_epi16(load_codes(at + 2 * kQuadBytes), q - 2), _mm256_set1_epi8(4));
  return _mm256_or_si256(low, third);
}

NK_INLINE Total no_total() { return _mm256_setzero_si256(); }
NK_INLINE Sums start(Total) { return _mm256_setzero_si256(); }
template <int kBits>
NK_INLINE void add_quad(Sums& sums, Bytes w, Bytes x) {
  if (kBits == 8) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  } else {
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x));
  }
  NK_KEEP(sums);  // GCC 12 would do all products of a block first and the sums last, and spill
}
template <int kBits>
NK_INLINE Total fold(Sums sums, Total total) {
  return _mm256_add_epi32(total, kBits == 8 ? sums : _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}

// One row of 2-bit codes, at most two blocks: here unfolding is most of the work. Quads 1 and 3 of a byte stay four times their value and
// have sums of their own, at most 2 * 4 * 2 * 127 * 12 = 24,384: a shift for two quads, and two for the sums.
#define NETSUKE_ONE_ROW_2BIT
template <int kCols>
NK_INLINE void add_blocks_2bit(const uint8_t* block, int64_t blocks, int v0, const int8_t* x, Total* totals) {
  __m256i plain[kCols] = {}, fourfold[kCols] = {};
  for (int64_t b = 0; b < blocks; ++b, block += wlinear_block_bytes(2), x += kWBlock) {
#pragma GCC unroll 4
    for (int half = 0; half < 4; ++half) {  // two quads of k each
      const __m256i x0 = splat_quad(x + 8 * half), x1 = splat_quad(x + 8 * half + 4);
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) {
        const __m256i run = load_codes(block + kQuadBytes * (half / 2) + kBytes * (v0 + c)), w = half % 2 == 0 ? run : _mm256_srli_epi16(run, 4);
        plain[c] = _mm256_add_epi16(plain[c], _mm256_maddubs_epi16(_mm256_and_si256(w, _mm256_set1_epi8(3)), x0));
        fourfold[c] = _mm256_add_epi16(fourfold[c], _mm256_maddubs_epi16(_mm256_and_si256(w, _mm256_set1_epi8(12)), x1));
        NK_KEEP(plain[c]);
        NK_KEEP(fourfold[c]);
      }
    }
  }
  for (int c = 0; c < kCols; ++c) {
    const __m256i sums = _mm256_add_epi16(plain[c], _mm256_srai_epi16(fourfold[c], 2));
    totals[c] = _mm256_add_epi32(totals[c], _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
  }
}

NK_INLINE Total splat_total(int32_t v) { return _mm256_set1_epi32(v); }
NK_INLINE Total load_total(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
NK_INLINE Total times(Total v, int32_t factor) { return _mm256_mullo_epi32(v, _mm256_set1_epi32(factor)); }
NK_INLINE Floats no_floats() { return _mm256_setzero_ps(); }
NK_INLINE Floats scale_total(Floats acc, Total total, Total off, float x_scale, const float* scale) {
  const __m256 step = _mm256_mul_ps(_mm256_set1_ps(x_scale), _mm256_loadu_ps(scale));
  return _mm256_add_ps(acc, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(total, off)), step));
}
NK_INLINE void store_floats(float* p, Floats v) { _mm256_storeu_ps(p, v); }

}  // namespace
}  // namespace netsuke

#include "kernels/wlinear/dot.inc"

namespace netsuke {
const WlinearKernels wlinear_kernels_avx2 = {"x86_avx2", 0, s8_panel, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
