// Depthwise convolution on AVX2. Two taps at a time, interleaved as bytes and then widened against zero, so that vpmaddwd adds
// their two products: exact for every code and weight. Per 32 channels and two taps: 6 unpacks, 4 vpmaddwd, 4 vpaddd.
//
// Widening with vpmovzxbw instead costs twice the unpacks: on Zen 3 it is two operations, as it crosses the 128-bit halves
// (measured 14 against 24 GMAC/s).
#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kChunk = 32;
constexpr int kTapGroup = 2;
using PackedTap = int16_t;

NK_INLINE __m256i load(const void* p);

// As instructions, in this order: of intrinsics GCC 12 computes the products of all taps first and spills them.
NK_INLINE void add_product(__m256i* acc, __m256i x, const __m256i& w) {
  __m256i p;
  __asm__ volatile("vpmaddwd %2, %1, %0" : "=x"(p) : "x"(x), "m"(w));
  __asm__ volatile("vpaddd %1, %0, %0" : "+x"(*acc) : "x"(p));
}

// kPixels neighbours share the weights. taps: the chunk's first channel under each tap.
template <int kPixels, int kTaps>
NK_INLINE void accumulate(const uint8_t* const* taps, int64_t count, int64_t offset, int64_t stride, const __m256i* w,
                          __m256i (&acc)[kPixels][4]) {
  const __m256i zero = _mm256_setzero_si256();
  const int64_t n = kTaps > 0 ? kTaps : count;
  NK_UNROLL(13)
  for (int64_t tap = 0; tap < n; tap += 2, w += 4) {
    const uint8_t* a = taps[tap] + offset;
    const uint8_t* b = taps[tap + 1 < n ? tap + 1 : tap] + offset;  // the odd tap's partner has weight 0
    NK_UNROLL(4)
    for (int p = 0; p < kPixels; ++p) {
      const __m256i x = load(a + p * stride), y = tap + 1 < n ? load(b + p * stride) : zero;
      const __m256i lo = _mm256_unpacklo_epi8(x, y), hi = _mm256_unpackhi_epi8(x, y);
      add_product(&acc[p][0], _mm256_unpacklo_epi8(lo, zero), w[0]);
      add_product(&acc[p][1], _mm256_unpackhi_epi8(lo, zero), w[1]);
      add_product(&acc[p][2], _mm256_unpacklo_epi8(hi, zero), w[2]);
      add_product(&acc[p][3], _mm256_unpackhi_epi8(hi, zero), w[3]);
    }
  }
}

#include "kernels/qgemm/depthwise32.inc"

}  // namespace

void depthwise_x86_avx2(const DepthwiseRow& row);
int64_t depthwise_bytes_x86_avx2(int64_t taps);
void depthwise_pack_x86_avx2(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);

void depthwise_x86_avx2(const DepthwiseRow& row) { run_any(row); }
int64_t depthwise_bytes_x86_avx2(int64_t taps) { return weight_bytes(taps) + kTail; }
void depthwise_pack_x86_avx2(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst) {
  pack_chunk(w, taps, init, q, channel, dst);
}

}  // namespace qgemm
}  // namespace netsuke
