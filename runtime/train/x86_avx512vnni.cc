// AVX-512 VNNI: a group of B is one register, VPDPBUSD adds four exact products to every int32 sum, so 8-bit operands need no wider
// lanes. What only moves bytes or quantizes is AVX2's: every CPU with VNNI has it, and memory sets the pace there.
#include <cstring>

#include "kernels/base/avx512.h"
#include "train/kernels.h"

namespace netsuke {
namespace train {

#ifndef NETSUKE_TRAIN_TABLE
#define NETSUKE_TRAIN_TABLE train_kernels_avx512vnni
#endif

extern const Table train_kernels_avx2;

namespace {

template <int R>
void rows_u8(const Tile& t) {
  __m512i acc[R];
  _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {
    acc[r] = t.first ? _mm512_setzero_si512() : _mm512_loadu_si512(static_cast<const int32_t*>(t.acc) + r * t.acc_stride);
  }
  const uint8_t* b = t.b;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) {
      const __m512i count = _mm512_set1_epi32(t.run_shift[q]);
      _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) acc[r] = _mm512_sllv_epi32(acc[r], count);
    }
    const uint8_t* a[R];
    _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) a[r] = t.a[r] + t.run_offset[q];
    for (int64_t g = 0; g < t.run_groups[q]; ++g, b += kGroupBytes) {
      const __m512i w = _mm512_loadu_si512(b);
      _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {
        int32_t four;
        memcpy(&four, a[r] + 4 * g, 4);
        acc[r] = _mm512_dpbusd_epi32(acc[r], _mm512_set1_epi32(four), w);
      }
    }
  }
  _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {
    _mm512_storeu_si512(static_cast<int32_t*>(t.acc) + r * t.acc_stride, acc[r]);
  }
}

void tile_u8(const Tile& t) {
  static constexpr void (*kRows[])(const Tile&) = {rows_u8<1>, rows_u8<2>, rows_u8<3>, rows_u8<4>,  rows_u8<5>,  rows_u8<6>,
                                                   rows_u8<7>, rows_u8<8>, rows_u8<9>, rows_u8<10>, rows_u8<11>, rows_u8<12>};
  kRows[t.rows - 1](t);
}

void tile_s16(const Tile& t) { train_kernels_avx2.tile_s16(t); }
void finish(const Finish& f) { train_kernels_avx2.finish(f); }
void quantize(const Quantize& q, int64_t begin, int64_t end) { train_kernels_avx2.quantize(q, begin, end); }
void absmax(const float* x, int64_t rows, int64_t columns, uint32_t* top) { train_kernels_avx2.absmax(x, rows, columns, top); }
void transpose16(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride) {
  train_kernels_avx2.transpose16(src, src_stride, dst, dst_stride);
}
void interleave4(const uint8_t* const src[4], uint8_t zero, uint8_t* dst) { train_kernels_avx2.interleave4(src, zero, dst); }

}  // namespace

extern const Table NETSUKE_TRAIN_TABLE;
const Table NETSUKE_TRAIN_TABLE = {"x86_avx512vnni", 12, true, tile_u8, tile_s16, finish, quantize, absmax, transpose16, interleave4};

}  // namespace train
}  // namespace netsuke
