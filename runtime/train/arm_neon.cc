// NEON: products of 16 bits add into 32 with vmlal by lane; four rows and 16 columns are 16 of 32 registers. 8-bit operands widen first
// (plain AArch64 has no product of u8 and s8). What moves bytes, quantizes or transforms is portable.cc's, which compilers turn into NEON.
#include <arm_neon.h>

#include <cstring>

#include "train/kernels.h"

#define NT_INLINE inline __attribute__((always_inline))
#define NT_UNROLL _Pragma("GCC unroll 16")

namespace netsuke {
namespace train {
namespace {

template <int R>
NT_INLINE void start(const Tile& t, int row, int32x4_t (&acc)[R][4]) {
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    const int32_t* from = static_cast<const int32_t*>(t.acc) + (row + r) * t.acc_stride;
    NT_UNROLL
    for (int v = 0; v < 4; ++v) acc[r][v] = t.first ? vdupq_n_s32(0) : vld1q_s32(from + 4 * v);
  }
}

template <int R>
NT_INLINE void stop(const Tile& t, int row, const int32x4_t (&acc)[R][4]) {
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    int32_t* to = static_cast<int32_t*>(t.acc) + (row + r) * t.acc_stride;
    NT_UNROLL
    for (int v = 0; v < 4; ++v) vst1q_s32(to + 4 * v, acc[r][v]);
  }
}

template <int R>
NT_INLINE void shift_sums(int32x4_t (&acc)[R][4], int shift) {
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    NT_UNROLL
    for (int v = 0; v < 4; ++v) acc[r][v] = vshlq_s32(acc[r][v], vdupq_n_s32(shift));
  }
}

// acc[r][16 columns] += x[r][lane] * w, w 16 columns of one k.
template <int R, int kLane>
NT_INLINE void add_products(int32x4_t (&acc)[R][4], const int16x4_t (&x)[R], int16x8_t low, int16x8_t high) {
  NT_UNROLL
  for (int r = 0; r < R; ++r) {
    acc[r][0] = vmlal_lane_s16(acc[r][0], vget_low_s16(low), x[r], kLane);
    acc[r][1] = vmlal_lane_s16(acc[r][1], vget_high_s16(low), x[r], kLane);
    acc[r][2] = vmlal_lane_s16(acc[r][2], vget_low_s16(high), x[r], kLane);
    acc[r][3] = vmlal_lane_s16(acc[r][3], vget_high_s16(high), x[r], kLane);
  }
}

template <int R>
void rows_u8(const Tile& t, int row) {
  int32x4_t acc[R][4];
  start<R>(t, row, acc);
  const uint8_t* b = t.b;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) shift_sums<R>(acc, t.run_shift[q]);
    for (int64_t g = 0; g < t.run_groups[q]; ++g, b += kGroupBytes) {
      const int8x16x4_t w = vld4q_s8(reinterpret_cast<const int8_t*>(b));  // [k][16 columns]
      int16x4_t x[R];
      NT_UNROLL
      for (int r = 0; r < R; ++r) {
        uint32_t four;
        memcpy(&four, t.a[row + r] + t.run_offset[q] + 4 * g, 4);
        x[r] = vget_low_s16(vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(four))));
      }
      add_products<R, 0>(acc, x, vmovl_s8(vget_low_s8(w.val[0])), vmovl_high_s8(w.val[0]));
      add_products<R, 1>(acc, x, vmovl_s8(vget_low_s8(w.val[1])), vmovl_high_s8(w.val[1]));
      add_products<R, 2>(acc, x, vmovl_s8(vget_low_s8(w.val[2])), vmovl_high_s8(w.val[2]));
      add_products<R, 3>(acc, x, vmovl_s8(vget_low_s8(w.val[3])), vmovl_high_s8(w.val[3]));
    }
  }
  stop<R>(t, row, acc);
}

// int32 sums only; sums in f32 (dynamic fixed point) are portable.cc's.
template <int R>
void rows_s16(const Tile& t, int row) {
  int32x4_t acc[R][4];
  start<R>(t, row, acc);
  const uint8_t* b = t.b;
  for (int64_t q = 0; q < t.runs; ++q) {
    if (t.run_shift != nullptr && t.run_shift[q] != 0) shift_sums<R>(acc, t.run_shift[q]);
    int64_t at = t.run_offset[q];
    for (int64_t g = 0; g < t.run_groups[q]; ++g, b += kGroupBytes, at += t.a_step) {
      const auto* from = reinterpret_cast<const int16_t*>(b);
      const int16x8x2_t low = vld2q_s16(from), high = vld2q_s16(from + 16);  // columns 0 to 7 and 8 to 15, [k]
      int16x4_t x[R];
      NT_UNROLL
      for (int r = 0; r < R; ++r) {
        uint32_t two;
        memcpy(&two, t.a[row + r] + at, 4);
        x[r] = vcreate_s16(two);
      }
      add_products<R, 0>(acc, x, low.val[0], high.val[0]);
      add_products<R, 1>(acc, x, low.val[1], high.val[1]);
    }
  }
  stop<R>(t, row, acc);
}

using Rows = void (*)(const Tile&, int);

void in_fours(const Tile& t, const Rows (&kernels)[4]) {
  for (int row = 0; row < t.rows;) {
    const int left = t.rows - row, rows = left > 4 && left < 8 ? (left + 1) / 2 : left < 4 ? left : 4;
    kernels[rows - 1](t, row);
    row += rows;
  }
}

void tile_u8(const Tile& t) {
  static constexpr Rows kRows[4] = {rows_u8<1>, rows_u8<2>, rows_u8<3>, rows_u8<4>};
  in_fours(t, kRows);
}

void tile_s16(const Tile& t) {
  static constexpr Rows kRows[4] = {rows_s16<1>, rows_s16<2>, rows_s16<3>, rows_s16<4>};
  if (t.flush > 0) {
    train_kernels_portable.tile_s16(t);
  } else {
    in_fours(t, kRows);
  }
}

}  // namespace

const Table& train_kernels_neon() {
  static const Table table = [] {
    Table t = train_kernels_portable;
    t.name = "arm_neon";
    t.panels = 1;
    t.tile_u8 = tile_u8;
    t.tile_s16 = tile_s16;
    return t;
  }();
  return table;
}

}  // namespace train
}  // namespace netsuke
