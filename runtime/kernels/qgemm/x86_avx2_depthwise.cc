// Depthwise convolution on AVX2. A weight is split, w = 16 h + l with -8 <= l <= 7 and -8 <= h <= 8, and vpmaddubsw sums h and l over
// two interleaved taps each: 255 * 8 * 16 taps = 32,640, so the sums of 16 taps stay in 16 bits, exactly, whatever the codes.
// Only then are they widened, by one vpmaddwd that also joins them, 16 * h + 1 * l. Per 32 channels and two taps: 2 unpacks, 4
// vpmaddubsw, 4 vpaddw; once per 16 taps 4 unpacks, 4 vpmaddwd, 4 vpaddd.
//
// Widening every code against zero for vpmaddwd takes 14 instructions for two taps instead of 10.
#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kChunk = 32;
constexpr int kTapGroup = 2;
constexpr int kLongest = 16;  // taps whose parts are summed in 16 bits

NK_INLINE __m256i load(const void* p);

// As instructions, in this order: of intrinsics GCC 12 computes the products of all taps first and spills them.
NK_INLINE void multiply(__m256i* sum, __m256i x, const __m256i& w, bool first) {
  if (first) {
    __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(*sum) : "x"(x), "m"(w));
    return;
  }
  __m256i p;
  __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(p) : "x"(x), "m"(w));
  __asm__ volatile("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(p));
}

// kPixels neighbours share the weights. taps: the chunk's first channel under each tap.
template <int kPixels, int kTaps>
NK_INLINE void accumulate(const uint8_t* const* taps, int64_t count, int64_t offset, int64_t stride, const __m256i* w,
                          __m256i (&acc)[kPixels][4]) {
  const __m256i zero = _mm256_setzero_si256(), join = _mm256_set1_epi32(16 << 16 | 1);
  const int64_t n = kTaps > 0 ? kTaps : count;
  __asm__("" : "+r"(w));  // else the address of every weight is kept on the stack and loaded again for every two pixels: 4 to 8 %
  NK_UNROLL(2)
  for (int64_t start = 0; start < n; start += kLongest) {
    const int64_t end = n - start < kLongest ? n : start + kLongest;
    __m256i sum[kPixels][4] = {};  // l and h of channels 0-7 and 16-23, l and h of the others
    NK_UNROLL(8)
    for (int64_t tap = start; tap < end; tap += 2, w += 4) {
      const uint8_t* a = taps[tap] + offset;
      const uint8_t* b = taps[tap + 1 < n ? tap + 1 : tap] + offset;  // the odd tap's partner has weight 0
      NK_UNROLL(4)
      for (int p = 0; p < kPixels; ++p) {
        const __m256i x = load(a + p * stride), y = tap + 1 < n ? load(b + p * stride) : zero;
        const __m256i lo = _mm256_unpacklo_epi8(x, y), hi = _mm256_unpackhi_epi8(x, y);
        multiply(&sum[p][0], lo, w[0], tap == start);
        multiply(&sum[p][1], lo, w[1], tap == start);
        multiply(&sum[p][2], hi, w[2], tap == start);
        multiply(&sum[p][3], hi, w[3], tap == start);
      }
    }
    NK_UNROLL(4)
    for (int p = 0; p < kPixels; ++p) {
      acc[p][0] = _mm256_add_epi32(acc[p][0], _mm256_madd_epi16(_mm256_unpacklo_epi16(sum[p][0], sum[p][1]), join));
      acc[p][1] = _mm256_add_epi32(acc[p][1], _mm256_madd_epi16(_mm256_unpackhi_epi16(sum[p][0], sum[p][1]), join));
      acc[p][2] = _mm256_add_epi32(acc[p][2], _mm256_madd_epi16(_mm256_unpacklo_epi16(sum[p][2], sum[p][3]), join));
      acc[p][3] = _mm256_add_epi32(acc[p][3], _mm256_madd_epi16(_mm256_unpackhi_epi16(sum[p][2], sum[p][3]), join));
    }
  }
}

// [two taps][half][l, h][16 channels][2]
void pack_taps(const int8_t* w, int64_t taps, uint8_t* dst) {
  int8_t* d = reinterpret_cast<int8_t*>(dst);
  for (int64_t tap = 0; tap < taps; tap += kTapGroup) {
    for (int half = 0; half < 2; ++half) {
      for (int part = 0; part < 2; ++part) {
        for (int lane = 0; lane < 16; ++lane) {
          const int c = 8 * half + (lane < 8 ? lane : 8 + lane);
          for (int i = 0; i < kTapGroup; ++i) {
            const int v = tap + i < taps ? w[c * taps + tap + i] : 0, low = ((v + 8) & 15) - 8;
            *d++ = static_cast<int8_t>(part == 0 ? low : (v - low) / 16);
          }
        }
      }
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
