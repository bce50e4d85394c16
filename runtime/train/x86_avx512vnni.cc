// AVX-512 VNNI: a group of B is one register, VPDPBUSD adds four exact products to every int32 sum, so 8-bit operands need no wider
// lanes; 16-bit ones have VPDPWSSD. What only moves bytes is AVX2's, which every CPU with VNNI has.
#include <cstring>

#include "kernels/base/avx512.h"
#include "train/kernels.h"

#ifdef NETSUKE_SIMDE
#define NT_UNROLL  // emulated registers unrolled take minutes to compile
#else
#define NT_UNROLL _Pragma("GCC unroll 16")
#endif
#define NT_INLINE inline __attribute__((always_inline))

namespace netsuke {
namespace train {

#ifndef NETSUKE_TRAIN_TABLE
#define NETSUKE_TRAIN_TABLE train_kernels_avx512vnni
#endif

extern const Table train_kernels_avx2;

namespace {

// One panel loads a broadcast for every product, so loads set the pace (13 for 12 products, 2 a cycle); two panels share them (14 for 24).
template <int R, int V>
void rows_u8(const Tile& t) {
  __m512i acc[R][V];
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    const int32_t* from = static_cast<const int32_t*>(t.acc) + r * t.acc_stride;
    NT_UNROLL
    for (int v = 0; v < V; ++v) acc[r][v] = t.first ? _mm512_setzero_si512() : _mm512_loadu_si512(from + 16 * v);
  }
  const uint8_t* b = t.b;
  const int64_t next = V > 1 ? t.b_next - t.b : 0;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) {
      const __m512i count = _mm512_set1_epi32(t.run_shift[q]);
      NT_UNROLL
      for (int r = 0; r < R; ++r) {
        NT_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = _mm512_sllv_epi32(acc[r][v], count);
      }
    }
    const uint8_t* a[R];
    NT_UNROLL
    for (int r = 0; r < R; ++r) a[r] = t.a[r] + t.run_offset[q];
    for (int64_t g = 0; g < t.run_groups[q]; ++g, b += kGroupBytes) {
      __m512i w[V];
      NT_UNROLL
      for (int v = 0; v < V; ++v) w[v] = _mm512_loadu_si512(b + v * next);
      NT_UNROLL
      for (int r = 0; r < R; ++r) {
        int32_t four;
        memcpy(&four, a[r] + 4 * g, 4);
        const __m512i x = _mm512_set1_epi32(four);
        NT_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbusd_epi32(acc[r][v], x, w[v]);
      }
    }
  }
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    int32_t* to = static_cast<int32_t*>(t.acc) + r * t.acc_stride;
    NT_UNROLL
    for (int v = 0; v < V; ++v) _mm512_storeu_si512(to + 16 * v, acc[r][v]);
  }
}

template <int V>
void tile_of(const Tile& t) {
  static constexpr void (*kRows[])(const Tile&) = {rows_u8<1, V>, rows_u8<2, V>, rows_u8<3, V>, rows_u8<4, V>,  rows_u8<5, V>,  rows_u8<6, V>,
                                                   rows_u8<7, V>, rows_u8<8, V>, rows_u8<9, V>, rows_u8<10, V>, rows_u8<11, V>, rows_u8<12, V>};
  kRows[t.rows - 1](t);
}

void tile_u8(const Tile& t) { t.b_next == nullptr ? tile_of<1>(t) : tile_of<2>(t); }

// The same with VPDPWSSD, two products a lane. With a chain, sums of 12 rows of f32 and of int32 fill 24 registers.
template <int R, int V, bool kChain>
void rows_s16(const Tile& t) {
  __m512i acc[R][V];
  __m512 real[kChain ? R : 1];
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    const int32_t* from = static_cast<const int32_t*>(t.acc) + r * t.acc_stride;
    NT_UNROLL
    for (int v = 0; v < V; ++v) acc[r][v] = kChain || t.first ? _mm512_setzero_si512() : _mm512_loadu_si512(from + 16 * v);
    if (kChain) real[r] = t.first ? _mm512_setzero_ps() : _mm512_loadu_ps(from);
  }
  const auto add = [&] {
    NT_UNROLL
    for (int r = 0; kChain && r < R; ++r) {
      real[r] = _mm512_add_ps(real[r], _mm512_cvtepi32_ps(acc[r][0]));
      acc[r][0] = _mm512_setzero_si512();
    }
  };
  const uint8_t* b = t.b;
  const int64_t next = V > 1 ? t.b_next - t.b : 0;
  int64_t left = kChain ? t.flush : INT64_MAX;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) {
      const __m512i count = _mm512_set1_epi32(t.run_shift[q]);
      NT_UNROLL
      for (int r = 0; r < R; ++r) {
        NT_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = _mm512_sllv_epi32(acc[r][v], count);
      }
    }
    const uint8_t* a[R];
    NT_UNROLL
    for (int r = 0; r < R; ++r) a[r] = t.a[r] + t.run_offset[q];
    int64_t at = 0;
    for (int64_t k = 0, groups = t.run_groups[q]; k < groups;) {
      const int64_t n = groups - k < left ? groups - k : left;
      for (int64_t j = 0; j < n; ++j, b += kGroupBytes, at += t.a_step) {
        __m512i w[V];
        NT_UNROLL
        for (int v = 0; v < V; ++v) w[v] = _mm512_loadu_si512(b + v * next);
        NT_UNROLL
        for (int r = 0; r < R; ++r) {
          int32_t two;
          memcpy(&two, a[r] + at, 4);
          const __m512i x = _mm512_set1_epi32(two);
          NT_UNROLL
          for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpwssd_epi32(acc[r][v], x, w[v]);
        }
      }
      k += n;
      if (kChain && (left -= n) == 0) {
        add();
        left = t.flush;
      }
    }
  }
  if (kChain) add();
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    int32_t* to = static_cast<int32_t*>(t.acc) + r * t.acc_stride;
    NT_UNROLL
    for (int v = 0; v < V; ++v) _mm512_storeu_si512(to + 16 * v, kChain ? _mm512_castps_si512(real[r]) : acc[r][v]);
  }
}

template <int V, bool kChain>
void tile_s16_of(const Tile& t) {
  static constexpr void (*kRows[])(const Tile&) = {rows_s16<1, V, kChain>, rows_s16<2, V, kChain>,  rows_s16<3, V, kChain>,  rows_s16<4, V, kChain>,
                                                   rows_s16<5, V, kChain>, rows_s16<6, V, kChain>,  rows_s16<7, V, kChain>,  rows_s16<8, V, kChain>,
                                                   rows_s16<9, V, kChain>, rows_s16<10, V, kChain>, rows_s16<11, V, kChain>, rows_s16<12, V, kChain>};
  kRows[t.rows - 1](t);
}

void tile_s16(const Tile& t) {
  if (t.flush > 0) {
    tile_s16_of<1, true>(t);
  } else {
    t.b_next == nullptr ? tile_s16_of<1, false>(t) : tile_s16_of<2, false>(t);
  }
}

void finish(const Finish& f) {
  if (f.columns < kWidth) return train_kernels_avx2.finish(f);
  bool stream = f.stream && !f.add;
  for (int r = 0; r < f.rows; ++r) stream = stream && reinterpret_cast<uintptr_t>(f.out[r]) % 64 == 0;
  const __m512i corr = _mm512_loadu_si512(f.corr);
  const __m512 mult = _mm512_loadu_ps(f.mult), bias = f.bias != nullptr ? _mm512_loadu_ps(f.bias) : _mm512_setzero_ps();
  for (int r = 0; r < f.rows; ++r) {
    __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_loadu_si512(f.acc + r * f.acc_stride), corr)), mult);
    if (f.bias != nullptr) y = _mm512_add_ps(y, bias);
    if (f.add) y = _mm512_add_ps(_mm512_loadu_ps(f.out[r]), y);
    if (stream) {
      _mm512_stream_ps(f.out[r], y);
    } else {
      _mm512_storeu_ps(f.out[r], y);
    }
  }
}

void streamed() { _mm_sfence(); }

void transpose16(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride) {
  train_kernels_avx2.transpose16(src, src_stride, dst, dst_stride);
}
void interleave4(const uint8_t* const src[4], uint8_t zero, uint8_t* dst) { train_kernels_avx2.interleave4(src, zero, dst); }

#define NT_WIDE
#include "train/scales.inc"
#include "train/quantize_avx512.inc"
namespace bytes {  // u8 codes; wide ones are AVX2's
#include "train/quantize.inc"
#include "train/quantize_fixed.inc"
}  // namespace bytes
void quantize(const Quantize& q, int64_t begin, int64_t end) {
  if (q.wide) return train_kernels_avx2.quantize(q, begin, end);
  if (!bytes::quantize_without_divisions(q, begin, end)) bytes::quantize(q, begin, end);
}

#include "train/norm_avx512.inc"
#include "train/norm.inc"
#define NT_STREAM_BYTES 64
#define NT_STREAM(to, v) _mm512_stream_ps(to, (__m512)(v))
#define NT_STREAMED() _mm_sfence()
#include "train/batch_norm.inc"
#define NT_WINOGRAD_INLINE NT_INLINE
#define NT_WINOGRAD_UNROLL NT_UNROLL
#define NT_WINOGRAD_WIDE
#include "train/winograd.inc"

// Columns that registers of 64 bytes do not fill are AVX2's.
void count_rows(const uint8_t* codes, int64_t rows, int64_t columns, int64_t* sum, uint8_t* least, uint8_t* most) {
  (columns % 64 == 0 ? kNorm : train_kernels_avx2.norm).count(codes, rows, columns, sum, least, most);
}
void above_rows(const uint8_t* codes, int64_t rows, int64_t columns, const uint8_t* floor, int64_t* above, int64_t* greater, int64_t* equal) {
  (columns % 64 == 0 ? kNorm : train_kernels_avx2.norm).above(codes, rows, columns, floor, above, greater, equal);
}
void distance_rows(const uint8_t* codes, int64_t rows, int64_t columns, uint8_t zero, uint32_t* sum) {
  (columns % 64 == 0 ? kNorm : train_kernels_avx2.norm).distance(codes, rows, columns, zero, sum);
}
void gate_rows(const uint8_t* codes, int64_t rows, int64_t columns, const NormGate& gate, uint8_t zero, uint8_t* gradient) {
  (columns % 64 == 0 ? kNorm : train_kernels_avx2.norm).gate(codes, rows, columns, gate, zero, gradient);
}
void ends_rows(const uint8_t* gradient, const uint8_t* codes, int64_t rows, int64_t columns, const uint8_t* floor, uint8_t* ends) {
  (columns % 64 == 0 ? kNorm : train_kernels_avx2.norm).ends(gradient, codes, rows, columns, floor, ends);
}
const BatchNorm& batch_norm_of(int64_t columns) { return columns % kBnLanes == 0 ? kBatchNorm : train_kernels_avx2.batch_norm; }
void moments_rows(const float* x, int64_t rows, int64_t columns, const float* centre, float* sum, float* squares, float* low, float* high) {
  batch_norm_of(columns).moments(x, rows, columns, centre, sum, squares, low, high);
}
void apply_bn(const float* x, const float* residual, int64_t rows, const BatchNormColumns& n, bool relu, float* y, int32_t* least, int32_t* most) {
  batch_norm_of(n.columns).apply(x, residual, rows, n, relu, y, least, most);
}
void sums_bn(const float* x, const float* dy, const float* y, int64_t rows, const BatchNormColumns& n, Gate gate, float* total, float* dot, float* dz) {
  batch_norm_of(n.columns).sums(x, dy, y, rows, n, gate, total, dot, dz);
}
void gradient_bn(const float* x, const float* dy, int64_t rows, const BatchNormColumns& n, Gate gate, float* dx) {
  batch_norm_of(n.columns).gradient(x, dy, rows, n, gate, dx);
}

}  // namespace

extern const Table NETSUKE_TRAIN_TABLE;
const Table NETSUKE_TRAIN_TABLE = {"x86_avx512vnni", 12, 2, 12, true, true, tile_u8, tile_s16, finish, streamed, quantize, absmax, transpose16, interleave4,
                                   {minmax, count_rows, above_rows, norm_apply, norm_dot, norm_gradient, distance_rows, absmax_gated, gate_rows, norm_gated, ends_rows},
                                   {moments_rows, apply_bn, sums_bn, gradient_bn}, kWinograd, {}};

}  // namespace train
}  // namespace netsuke
