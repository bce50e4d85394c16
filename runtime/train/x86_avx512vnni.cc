// AVX-512 VNNI: a group of B is one register, VPDPBUSD adds four exact products to every int32 sum, so 8-bit operands need no wider
// lanes. What only moves bytes or quantizes is AVX2's: every CPU with VNNI has it, and memory sets the pace there.
#include <cstring>

#include "kernels/base/avx512.h"
#include "train/kernels.h"

#ifdef NETSUKE_SIMDE
#define NT_UNROLL  // emulated registers unrolled take minutes to compile
#else
#define NT_UNROLL _Pragma("GCC unroll 16")
#endif

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

void tile_s16(const Tile& t) { train_kernels_avx2.tile_s16(t); }
void finish(const Finish& f) { train_kernels_avx2.finish(f); }
void quantize(const Quantize& q, int64_t begin, int64_t end) { train_kernels_avx2.quantize(q, begin, end); }
void absmax(const float* x, int64_t rows, int64_t columns, uint32_t* top) { train_kernels_avx2.absmax(x, rows, columns, top); }
void transpose16(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride) {
  train_kernels_avx2.transpose16(src, src_stride, dst, dst_stride);
}
void interleave4(const uint8_t* const src[4], uint8_t zero, uint8_t* dst) { train_kernels_avx2.interleave4(src, zero, dst); }
void minmax(const float* x, int64_t count, int32_t* least, int32_t* most) { train_kernels_avx2.norm.minmax(x, count, least, most); }
void norm_count(const uint8_t* codes, int64_t rows, int64_t columns, int64_t* sum, uint8_t* least, uint8_t* most) {
  train_kernels_avx2.norm.count(codes, rows, columns, sum, least, most);
}
void norm_above(const uint8_t* codes, int64_t rows, int64_t columns, const uint8_t* floor, int64_t* above, int64_t* greater, int64_t* equal) {
  train_kernels_avx2.norm.above(codes, rows, columns, floor, above, greater, equal);
}
void norm_apply(const uint8_t* codes, int64_t rows, const NormColumns& n, float* y) { train_kernels_avx2.norm.apply(codes, rows, n, y); }
void norm_dot(const uint8_t* gradient, const uint8_t* codes, int64_t rows, const NormColumns& n, int32_t zero, int32_t* total, int32_t* dot) {
  train_kernels_avx2.norm.dot(gradient, codes, rows, n, zero, total, dot);
}
void norm_gradient(const uint8_t* gradient, const uint8_t* codes, int64_t rows, const NormGradient& n, float* dx) {
  train_kernels_avx2.norm.gradient(gradient, codes, rows, n, dx);
}
void norm_distance(const uint8_t* codes, int64_t rows, int64_t columns, uint8_t zero, uint32_t* sum) {
  train_kernels_avx2.norm.distance(codes, rows, columns, zero, sum);
}
void bn_moments(const float* x, int64_t rows, int64_t columns, const float* centre, float* sum, float* squares) {
  train_kernels_avx2.batch_norm.moments(x, rows, columns, centre, sum, squares);
}
void bn_apply(const float* x, const float* residual, int64_t rows, const BatchNormColumns& n, bool relu, float* y, int32_t* least, int32_t* most) {
  train_kernels_avx2.batch_norm.apply(x, residual, rows, n, relu, y, least, most);
}
void bn_sums(const float* x, const float* dy, const float* y, int64_t rows, const BatchNormColumns& n, Gate gate, float* total, float* dot, float* dz) {
  train_kernels_avx2.batch_norm.sums(x, dy, y, rows, n, gate, total, dot, dz);
}
void bn_gradient(const float* x, const float* dy, int64_t rows, const BatchNormColumns& n, Gate gate, float* dx) {
  train_kernels_avx2.batch_norm.gradient(x, dy, rows, n, gate, dx);
}

}  // namespace

extern const Table NETSUKE_TRAIN_TABLE;
const Table NETSUKE_TRAIN_TABLE = {"x86_avx512vnni", 12, 2, true, tile_u8, tile_s16, finish, quantize, absmax, transpose16, interleave4,
                                   {minmax, norm_count, norm_above, norm_apply, norm_dot, norm_gradient, norm_distance},
                                   {bn_moments, bn_apply, bn_sums, bn_gradient}, {}, {}};

}  // namespace train
}  // namespace netsuke
