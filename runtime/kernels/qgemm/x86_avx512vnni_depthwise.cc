// Depthwise convolution with VNNI on 256-bit registers (AVX-512 VL): 12 instructions for four taps of 32 channels. 512-bit registers
// would run at the same rate per byte on Zen 4, which executes them in halves, and would waste half of the 32, 96 and 144
// channels that MobileNets have.
#include "kernels/base/avx512.h"

#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kChunk = 32;
constexpr int kTapGroup = 4;

NK_INLINE __m256i load(const void* p);

// kPixels neighbours share the weights. taps: the chunk's first channel under each tap. Four taps at a time, interleaved as bytes,
// are what vpdpbusd sums for one channel.
template <int kPixels, int kTaps>
NK_INLINE void accumulate(const uint8_t* const* taps, int64_t count, int64_t offset, int64_t stride, const __m256i* w,
                          __m256i (&acc)[kPixels][4]) {
  const __m256i zero = _mm256_setzero_si256();
  const int64_t n = kTaps > 0 ? kTaps : count;
  NK_UNROLL(7)
  for (int64_t tap = 0; tap < n; tap += 4, w += 4) {
    NK_UNROLL(4)
    for (int p = 0; p < kPixels; ++p) {
      const int64_t at = offset + p * stride;
      const __m256i x0 = load(taps[tap] + at);
      const __m256i x1 = tap + 1 < n ? load(taps[tap + 1] + at) : zero;
      const __m256i x2 = tap + 2 < n ? load(taps[tap + 2] + at) : zero;
      const __m256i x3 = tap + 3 < n ? load(taps[tap + 3] + at) : zero;
      const __m256i lo01 = _mm256_unpacklo_epi8(x0, x1), hi01 = _mm256_unpackhi_epi8(x0, x1);
      const __m256i lo23 = _mm256_unpacklo_epi8(x2, x3), hi23 = _mm256_unpackhi_epi8(x2, x3);
      acc[p][0] = _mm256_dpbusd_epi32(acc[p][0], _mm256_unpacklo_epi16(lo01, lo23), w[0]);
      acc[p][1] = _mm256_dpbusd_epi32(acc[p][1], _mm256_unpackhi_epi16(lo01, lo23), w[1]);
      acc[p][2] = _mm256_dpbusd_epi32(acc[p][2], _mm256_unpacklo_epi16(hi01, hi23), w[2]);
      acc[p][3] = _mm256_dpbusd_epi32(acc[p][3], _mm256_unpackhi_epi16(hi01, hi23), w[3]);
    }
  }
}

NK_INLINE int channel_of(int j, int i);

// [four taps][j][channel][4]
void pack_taps(const int8_t* w, int64_t taps, uint8_t* dst) {
  int8_t* d = reinterpret_cast<int8_t*>(dst);
  for (int64_t tap = 0; tap < taps; tap += kTapGroup) {
    for (int lane = 0; lane < kChunk; ++lane) {
      const int c = channel_of(lane / 8, lane % 8);
      for (int i = 0; i < kTapGroup; ++i) *d++ = tap + i < taps ? w[c * taps + tap + i] : int8_t{0};
    }
  }
}

#include "kernels/qgemm/depthwise32.inc"

}  // namespace

void depthwise_x86_avx512vnni(const DepthwiseRow& row);
int64_t depthwise_bytes_x86_avx512vnni(int64_t taps);
void depthwise_pack_x86_avx512vnni(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);

void depthwise_x86_avx512vnni(const DepthwiseRow& row) { run_any(row); }
int64_t depthwise_bytes_x86_avx512vnni(int64_t taps) { return weight_bytes(taps) + kTail; }
void depthwise_pack_x86_avx512vnni(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst) {
  pack_chunk(w, taps, init, q, channel, dst);
}

}  // namespace qgemm
}  // namespace netsuke
