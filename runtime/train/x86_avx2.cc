// AVX2. A multiplier pipe of Zen 3 gives 32 products of vpmaddubsw against 16 of vpmaddwd a cycle; adding its 16-bit results before
// widening costs one vpaddw instead of vpmaddwd + vpaddd. With 6-bit operands 8 groups fit (2 * 62 * 31 * 8 = 30752), so the widening is
// paid once in 8. The int32 sums live in L1; 12 of 16 registers hold 16-bit sums. One core at 3.2 GHz, operands in L1: 157 GMAC/s with
// 4-bit operands, 117 with 6-bit, 83 for kS16 (f32 FMA: 51). Eight groups unrolled instead of the loop: 87, GCC 12 spills.
#include <immintrin.h>

#include <cstring>

#include "train/kernels.h"

#define NT_INLINE inline __attribute__((always_inline))
#define NT_UNROLL _Pragma("GCC unroll 16")

namespace netsuke {
namespace train {
namespace {

NT_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
NT_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
NT_INLINE __m256i broadcast(const uint8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// Without this GCC holds the sums in "registers" it has not, and copies all of them at every round.
NT_INLINE void in_memory(__m256i* sums) { asm volatile("" : : "r"(sums) : "memory"); }

template <int R>
NT_INLINE void start(const Tile& t, __m256i* sums) {
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    const int32_t* acc = static_cast<const int32_t*>(t.acc) + r * t.acc_stride;
    sums[2 * r] = t.first ? _mm256_setzero_si256() : load(acc);
    sums[2 * r + 1] = t.first ? _mm256_setzero_si256() : load(acc + 8);
  }
}

template <int R>
NT_INLINE void finish_tile(const Tile& t, const __m256i* sums) {
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    int32_t* acc = static_cast<int32_t*>(t.acc) + r * t.acc_stride;
    store(acc, sums[2 * r]);
    store(acc + 8, sums[2 * r + 1]);
  }
}

template <int R>
NT_INLINE void shift_sums(__m256i* sums, int shift) {
  const __m128i count = _mm_cvtsi32_si128(shift);
  NT_UNROLL
  for (int i = 0; i < 2 * R; ++i) sums[i] = _mm256_sll_epi32(sums[i], count);
}

template <int R>
NT_INLINE void widen(__m256i* sums, __m256i acc[R][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    NT_UNROLL
    for (int v = 0; v < 2; ++v) {
      sums[2 * r + v] = _mm256_add_epi32(sums[2 * r + v], _mm256_madd_epi16(acc[r][v], ones));
      acc[r][v] = _mm256_setzero_si256();
    }
  }
}

template <int R>
void tile_u8_rows(const Tile& t) {
  alignas(32) __m256i sums[2 * R];
  start<R>(t, sums);
  in_memory(sums);
  __m256i acc[R][2];
  NT_UNROLL
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
  const uint8_t* b = t.b;
  int64_t left = t.flush;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) {
      widen<R>(sums, acc);
      left = t.flush;
      shift_sums<R>(sums, t.run_shift[q]);
    }
    const uint8_t* a[R];
    NT_UNROLL
    for (int r = 0; r < R; ++r) a[r] = t.a[r] + t.run_offset[q];
    for (int64_t k = 0, groups = t.run_groups[q]; k < groups;) {
      const int64_t n = groups - k < left ? groups - k : left;
      for (int64_t j = 0; j < n; ++j, b += kGroupBytes) {
        const __m256i w0 = load(b), w1 = load(b + 32);
        NT_UNROLL
        for (int r = 0; r < R; ++r) {
          const __m256i x = broadcast(a[r] + 4 * (k + j));
          acc[r][0] = _mm256_add_epi16(acc[r][0], _mm256_maddubs_epi16(x, w0));
          acc[r][1] = _mm256_add_epi16(acc[r][1], _mm256_maddubs_epi16(x, w1));
        }
      }
      k += n;
      left -= n;
      if (left == 0) {
        widen<R>(sums, acc);
        in_memory(sums);
        left = t.flush;
      }
    }
  }
  widen<R>(sums, acc);
  finish_tile<R>(t, sums);
}

template <int R>
NT_INLINE void add_real(__m256i* total, __m256i acc[R][2]) {
  NT_UNROLL
  for (int i = 0; i < 2 * R; ++i) {
    const __m256 sum = _mm256_add_ps(_mm256_castsi256_ps(total[i]), _mm256_cvtepi32_ps(acc[i / 2][i % 2]));
    total[i] = _mm256_castps_si256(sum);
    acc[i / 2][i % 2] = _mm256_setzero_si256();
  }
}

template <int R, bool kChain>
void tile_s16_rows(const Tile& t) {
  alignas(32) __m256i sums[2 * R];
  start<R>(t, sums);
  if (kChain) in_memory(sums);
  __m256i acc[R][2];
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    acc[r][0] = kChain ? _mm256_setzero_si256() : sums[2 * r];
    acc[r][1] = kChain ? _mm256_setzero_si256() : sums[2 * r + 1];
  }
  const uint8_t* b = t.b;
  int64_t left = kChain ? t.flush : INT64_MAX;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) shift_sums<R>(&acc[0][0], t.run_shift[q]);
    const uint8_t* a[R];
    NT_UNROLL
    for (int r = 0; r < R; ++r) a[r] = t.a[r] + t.run_offset[q];
    int64_t at = 0;
    for (int64_t k = 0, groups = t.run_groups[q]; k < groups;) {
      const int64_t n = groups - k < left ? groups - k : left;
      for (int64_t j = 0; j < n; ++j, b += kGroupBytes, at += t.a_step) {
        const __m256i w0 = load(b), w1 = load(b + 32);
        NT_UNROLL
        for (int r = 0; r < R; ++r) {
          const __m256i x = broadcast(a[r] + at);
          acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, w0));
          acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, w1));
        }
      }
      k += n;
      if (kChain && (left -= n) == 0) {
        add_real<R>(sums, acc);
        left = t.flush;
      }
    }
  }
  if (kChain) {
    add_real<R>(sums, acc);
    finish_tile<R>(t, sums);
  } else {
    finish_tile<R>(t, &acc[0][0]);
  }
}

void tile_u8(const Tile& t) {
  static constexpr void (*kRows[])(const Tile&) = {tile_u8_rows<1>, tile_u8_rows<2>, tile_u8_rows<3>,
                                                   tile_u8_rows<4>, tile_u8_rows<5>, tile_u8_rows<6>};
  kRows[t.rows - 1](t);
}

void tile_s16(const Tile& t) {
  static constexpr void (*kRows[])(const Tile&) = {tile_s16_rows<1, false>, tile_s16_rows<2, false>, tile_s16_rows<3, false>,
                                                   tile_s16_rows<4, false>, tile_s16_rows<5, false>, tile_s16_rows<6, false>};
  static constexpr void (*kChained[])(const Tile&) = {tile_s16_rows<1, true>, tile_s16_rows<2, true>, tile_s16_rows<3, true>,
                                                      tile_s16_rows<4, true>, tile_s16_rows<5, true>, tile_s16_rows<6, true>};
  (t.flush > 0 ? kChained : kRows)[t.rows - 1](t);
}

void finish(const Finish& f) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int v = 0; v < 2 && 8 * v < f.columns; ++v) {
    const __m256i corr = load(f.corr + 8 * v);
    const __m256 mult = _mm256_loadu_ps(f.mult + 8 * v);
    const __m256 bias = f.bias != nullptr ? _mm256_loadu_ps(f.bias + 8 * v) : _mm256_setzero_ps();
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(f.columns - 8 * v), lanes);
    for (int r = 0; r < f.rows; ++r) {
      __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(load(f.acc + r * f.acc_stride + 8 * v), corr)), mult);
      if (f.bias != nullptr) y = _mm256_add_ps(y, bias);
      if (f.add) y = _mm256_add_ps(_mm256_maskload_ps(f.out[r] + 8 * v, mask), y);
      if (f.columns >= 8 * v + 8) {
        _mm256_storeu_ps(f.out[r] + 8 * v, y);
      } else {
        _mm256_maskstore_ps(f.out[r] + 8 * v, mask, y);
      }
    }
  }
}

void streamed() {}  // halves of a line apart would leave buffers half full: nothing is

#include "train/scales.inc"
#include "train/quantize_avx2.inc"
#include "train/quantize.inc"

void absmax(const float* x, int64_t rows, int64_t columns, uint32_t* top) {
  const __m256i number = _mm256_set1_epi32(0x7FFFFFFF);
  for (int64_t r = 0; r < rows; ++r, x += columns) {  // one row after the other: several at a time read a cold x at 10 GB/s instead of 15
    int64_t c = 0;
    for (; c + 8 <= columns; c += 8) store(top + c, _mm256_max_epu32(load(top + c), _mm256_and_si256(load(x + c), number)));
    for (; c < columns; ++c) {
      uint32_t bits;
      memcpy(&bits, x + c, 4);
      bits &= 0x7FFFFFFFu;
      top[c] = top[c] > bits ? top[c] : bits;
    }
  }
}

void transpose16(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride) {
  __m128i v[16], u[16];
  NT_UNROLL
  for (int i = 0; i < 16; ++i) v[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i * src_stride));
  // Four rounds of pairing row i with row i + 8 put bit by bit of the row number behind the column number.
  for (int round = 0; round < 4; ++round) {
    NT_UNROLL
    for (int i = 0; i < 8; ++i) {
      u[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]);
      u[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
    }
    NT_UNROLL
    for (int i = 0; i < 16; ++i) v[i] = u[i];
  }
  NT_UNROLL
  for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i * dst_stride), v[i]);
}

void interleave4(const uint8_t* const src[4], uint8_t zero, uint8_t* dst) {
  const __m128i z = _mm_set1_epi8(static_cast<char>(zero));
  __m128i v[4];
  NT_UNROLL
  for (int i = 0; i < 4; ++i) v[i] = _mm_sub_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src[i])), z);
  const __m128i a = _mm_unpacklo_epi8(v[0], v[1]), b = _mm_unpackhi_epi8(v[0], v[1]);
  const __m128i c = _mm_unpacklo_epi8(v[2], v[3]), d = _mm_unpackhi_epi8(v[2], v[3]);
  __m128i* out = reinterpret_cast<__m128i*>(dst);
  _mm_storeu_si128(out, _mm_unpacklo_epi16(a, c));
  _mm_storeu_si128(out + 1, _mm_unpackhi_epi16(a, c));
  _mm_storeu_si128(out + 2, _mm_unpacklo_epi16(b, d));
  _mm_storeu_si128(out + 3, _mm_unpackhi_epi16(b, d));
}

#define NT_WINOGRAD_INLINE NT_INLINE
#define NT_WINOGRAD_UNROLL NT_UNROLL
#include "train/winograd.inc"
#include "train/norm_avx2.inc"
#include "train/norm.inc"
#define NT_STREAM_BYTES 32
#define NT_STREAM(to, v) _mm256_stream_ps(to, (__m256)(v))
#define NT_STREAMED() _mm_sfence()  // such stores are seen by other threads in any order until then
#include "train/batch_norm.inc"

}  // namespace

const Table train_kernels_avx2 = {"x86_avx2", 6, 1, 6, false, false, tile_u8, tile_s16, finish, streamed, quantize, absmax, transpose16, interleave4,
                                  kNorm, kBatchNorm, kWinograd, kWinogradTwo};

}  // namespace train
}  // namespace netsuke
