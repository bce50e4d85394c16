// AVX2 tiles over kU8x4 for layers whose codes are narrow: vpmaddubsw multiplies 32 pairs at once, and sums of `chain` of its results stay in
// 16 bits because the layer proves 2 * chain * hi * max|w| <= 32767 (gemm.cc: narrow_chain). Every partial sum is bounded by the same
// sum of magnitudes, so neither vpmaddubsw saturates nor vpaddw wraps, in any order. After `chain` groups the 16-bit sums are added in pairs
// to 32-bit ones, which live in L1.
//
// Of a group of 4 codes, 6 x 16 outputs take 12 vpmaddubsw and 12 vpaddw, where two groups of kS16x2 take 24 vpmaddwd and 24 vpaddd: twice the
// products an instruction, less 12 times (vpmaddwd, vpaddd, load, store) a chain. Codes are read where they are: no widening. Measured on one
// Zen 3 core (3x3, 64 to 512 channels; exact 8-bit tiles 77 GMAC/s): 4 x 4 bits (chain 64) 148 to 155, 4 x 8 bits (chain 9) 133 to 140.
#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

// One group of 4 codes of every row.
template <int kRows>
NK_INLINE void add_group(const uint8_t* const (&a)[kRows], int64_t k, const __m256i* b, __m256i (&acc)[kRows][2]) {
  const __m256i w0 = _mm256_load_si256(b), w1 = _mm256_load_si256(b + 1);
  NK_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    int32_t four;
    memcpy(&four, a[r] + 4 * k, 4);
    const __m256i x = _mm256_set1_epi32(four);
    const __m256i p0 = _mm256_maddubs_epi16(x, w0), p1 = _mm256_maddubs_epi16(x, w1);
    // As instructions: of _mm256_add_epi16 GCC 12 makes sums in memory, and half the speed. volatile keeps it from gathering the loads of all
    // rows first.
    __asm__ volatile("vpaddw %1, %0, %0" : "+x"(acc[r][0]) : "x"(p0));
    __asm__ volatile("vpaddw %1, %0, %0" : "+x"(acc[r][1]) : "x"(p1));
  }
}

template <int kRows>
void tile_u8x16(const Tile& t) {
  alignas(32) __m256i sums[kRows][2];
  const __m256i i0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.init));
  const __m256i i1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.init + 8));
  NK_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    sums[r][0] = i0;
    sums[r][1] = i1;
  }
  __asm__ volatile("" : : "r"(&sums[0][0]) : "memory");  // they live in memory: all registers are for 16-bit sums
  const __m256i* b = static_cast<const __m256i*>(t.b);
  for (int64_t run = 0; run < t.runs; ++run) {
    const uint8_t* a[kRows];
    NK_UNROLL(8)
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const uint8_t*>(t.a[r]) + t.run_offset[run];
    for (int64_t k = 0; k < t.groups;) {
      const int64_t end = t.groups - k < t.chain ? t.groups : k + t.chain;
      __m256i acc[kRows][2];
      NK_UNROLL(8)
      for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
      do {
        add_group(a, k, b, acc);
        b += 2;
      } while (++k < end);
      const __m256i ones = _mm256_set1_epi16(1);
      NK_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(acc[r][0], ones));
        sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(acc[r][1], ones));
      }
    }
  }
  if (is_plain16(t)) return store_rows(t, sums);
  alignas(32) int32_t rows[kRows][16];
  NK_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(rows[r]), sums[r][0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(rows[r] + 8), sums[r][1]);
  }
  finish_sums16(t, &rows[0][0]);
}

const TileFn kNarrow16[] = {tile_u8x16<1>, tile_u8x16<2>, tile_u8x16<3>, tile_u8x16<4>, tile_u8x16<5>, tile_u8x16<6>};

}  // namespace

extern const TileSet narrow_set_x86_avx2;
const TileSet narrow_set_x86_avx2 = {"x86_avx2", Layout::kU8x4, 6, 16, kNarrow16, nullptr};

}  // namespace qgemm
}  // namespace netsuke
