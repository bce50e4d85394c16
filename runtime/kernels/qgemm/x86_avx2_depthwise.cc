// Depthwise convolution on AVX2. Two taps at a time, interleaved as bytes and then widened against zero, so that vpmaddwd adds
// their two products: exact for every code and weight. Per 32 channels and two taps: 6 unpacks, 4 vpmaddwd, 4 vpaddd.
//
// Widening with vpmovzxbw instead costs twice the unpacks: on Zen 3 it is two operations, as it crosses the 128-bit halves.
// Unpacking stays within halves: accumulator j holds channels 4j..4j+3 and 16+4j..16+4j+3. The requantization vectors are packed in
// that order, and vpackssdw + vpackuswb restore the natural one.
#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kChunk = 32;
constexpr int kTail = 3 * kChunk * 4;  // init, mult, bias behind the weights

NK_INLINE int channel_of(int j, int i) { return 4 * j + (i < 4 ? i : 12 + i); }

NK_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// kPixels neighbours share the weights. taps: the chunk's first channel under each tap.
template <int kPixels, int kTaps>
NK_INLINE void accumulate(const uint8_t* const* taps, int64_t count, int64_t offset, int64_t stride, const __m256i* w,
                          __m256i (&acc)[kPixels][4]) {
  const __m256i zero = _mm256_setzero_si256();
  const int64_t n = kTaps > 0 ? kTaps : count;
#pragma GCC unroll 13
  for (int64_t tap = 0; tap < n; tap += 2, w += 4) {
    const uint8_t* a = taps[tap] + offset;
    const uint8_t* b = taps[tap + 1 < n ? tap + 1 : tap] + offset;  // the odd tap's partner has weight 0
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
      const __m256i x = load(a + p * stride), y = tap + 1 < n ? load(b + p * stride) : zero;
      const __m256i lo = _mm256_unpacklo_epi8(x, y), hi = _mm256_unpackhi_epi8(x, y);
      acc[p][0] = _mm256_add_epi32(acc[p][0], _mm256_madd_epi16(_mm256_unpacklo_epi8(lo, zero), w[0]));
      acc[p][1] = _mm256_add_epi32(acc[p][1], _mm256_madd_epi16(_mm256_unpackhi_epi8(lo, zero), w[1]));
      acc[p][2] = _mm256_add_epi32(acc[p][2], _mm256_madd_epi16(_mm256_unpacklo_epi8(hi, zero), w[2]));
      acc[p][3] = _mm256_add_epi32(acc[p][3], _mm256_madd_epi16(_mm256_unpackhi_epi8(hi, zero), w[3]));
    }
  }
}

// The common epilogue, codes without residual, in the accumulators' own channel order.
NK_INLINE void store_codes32(const Requant& q, const __m256i (&acc)[4], const uint8_t* tail, uint8_t* out) {
  const float* mult = reinterpret_cast<const float*>(tail + kChunk * 4);
  const __m256 lo = _mm256_set1_ps(q.code_lo), hi = _mm256_set1_ps(q.code_hi);
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(q.zero));
  __m256i code[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[j]), _mm256_load_ps(mult + 8 * j));
    t = _mm256_add_ps(t, _mm256_load_ps(mult + kChunk + 8 * j));
    code[j] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(t, lo), hi));
  }
  const __m256i s0 = _mm256_add_epi16(_mm256_packs_epi32(code[0], code[1]), zero);
  const __m256i s1 = _mm256_add_epi16(_mm256_packs_epi32(code[2], code[3]), zero);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_packus_epi16(s0, s1));
}

// Every other epilogue, through the natural channel order. at: element of the chunk's first output.
NK_INLINE void store_any(const DepthwiseRow& row, const __m256i (&acc)[4], int64_t channel, int64_t at) {
  alignas(32) int32_t sums[kChunk];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm_store_si128(reinterpret_cast<__m128i*>(sums + 4 * j), _mm256_castsi256_si128(acc[j]));
    _mm_store_si128(reinterpret_cast<__m128i*>(sums + 16 + 4 * j), _mm256_extracti128_si256(acc[j], 1));
  }
  const int64_t element = row.requant->out_f32 ? 4 : 1;
  Tile t = {};
  t.rows = 1;
  t.requant = row.requant;
  t.columns = 16;
  for (int half = 0; half < 2; ++half) {
    t.channel = channel + 16 * half;
    t.out = static_cast<uint8_t*>(row.out) + (at + 16 * half) * element;
    t.residual = row.residual == nullptr ? nullptr : static_cast<const uint8_t*>(row.residual) + (at + 16 * half) * element;
    if (row.requant->dyadic) {
      requantize_tile(t, sums + 16 * half, kChunk);
    } else {
      finish_row16(t, 0, load(sums + 16 * half), load(sums + 16 * half + 8));
    }
  }
}

template <int kPixels, int kTaps>
NK_INLINE void pixels(const DepthwiseRow& row, const uint8_t* const* taps, const uint8_t* packed, const uint8_t* tail, int64_t c,
                      int64_t first, bool plain) {
  __m256i acc[kPixels][4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) acc[p][j] = load(tail + 32 * j);
  }
  accumulate<kPixels, kTaps>(taps, row.taps_count, c + first * row.pixel_stride, row.pixel_stride, reinterpret_cast<const __m256i*>(packed), acc);
#pragma GCC unroll 4
  for (int p = 0; p < kPixels; ++p) {
    const int64_t at = (first + p) * row.channels + c;
    if (plain) {
      store_codes32(*row.requant, acc[p], tail, static_cast<uint8_t*>(row.out) + at);
    } else {
      store_any(row, acc[p], c, at);
    }
  }
}

template <int kTaps>
void run(const DepthwiseRow& row) {
  const bool plain = !row.requant->out_f32 && !row.requant->dyadic && row.residual == nullptr;
  const int64_t weights = (row.taps_count + 1) / 2 * 4 * 32;
  for (int64_t chunk = row.chunk0; chunk < row.chunk1; ++chunk) {
    const int64_t c = chunk * kChunk < row.channels - kChunk ? chunk * kChunk : row.channels - kChunk;
    const uint8_t* packed = row.packed + chunk * row.packed_stride;
    int64_t p = 0;
    for (; p + 2 <= row.pixels; p += 2) pixels<2, kTaps>(row, row.taps, packed, packed + weights, c, p, plain);
    if (p < row.pixels) pixels<1, kTaps>(row, row.taps, packed, packed + weights, c, p, plain);
  }
}

}  // namespace

void depthwise_x86_avx2(const DepthwiseRow& row);
int64_t depthwise_bytes_x86_avx2(int64_t taps);
void depthwise_pack_x86_avx2(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);

void depthwise_x86_avx2(const DepthwiseRow& row) {
  if (row.taps_count == 9) return run<9>(row);
  if (row.taps_count == 25) return run<25>(row);
  run<0>(row);
}

int64_t depthwise_bytes_x86_avx2(int64_t taps) { return (taps + 1) / 2 * 4 * 32 + kTail; }

void depthwise_pack_x86_avx2(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst) {
  int16_t* d = reinterpret_cast<int16_t*>(dst);
  for (int64_t tap = 0; tap < taps; tap += 2) {
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 8; ++i, d += 2) {
        const int c = channel_of(j, i);
        d[0] = w[c * taps + tap];
        d[1] = tap + 1 < taps ? w[c * taps + tap + 1] : static_cast<int16_t>(0);
      }
    }
  }
  int32_t* starts = reinterpret_cast<int32_t*>(d);
  float* mult = reinterpret_cast<float*>(starts + kChunk);
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < 8; ++i) {
      const int c = channel_of(j, i);
      starts[8 * j + i] = init[c];
      mult[8 * j + i] = q.dyadic ? 0.0f : q.mult[channel + c];
      mult[kChunk + 8 * j + i] = q.dyadic ? 0.0f : q.bias[channel + c];
    }
  }
}

}  // namespace qgemm
}  // namespace netsuke
