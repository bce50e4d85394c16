// What one instruction set offers to training: tiles of exact integer products, quantization, byte transposes.
//
// All three products of a layer (forward, gradient of the input, gradient of the weights) are one loop:
//
//   acc[r][n] (+)= sum over runs q, groups g, i of  a[r][run_offset[q] + g * 4 + i] * b[q][g][n][i]
//
// A row of A is a base address plus offsets shared by all rows, so nothing is gathered: rows are output pixels and runs the taps of
// the window (forward, input gradient), or rows are (tap, channel) and runs output positions with the batch innermost (weight
// gradient). A group is four bytes of A and 64 bytes of B (16 columns), whatever the element.
//   kU8  A u8, B s8, four products a group. AVX2 adds vpmaddubsw results in 16 bits for `flush` groups before it widens them: exact
//        while flush * 2 * max|a| * max|b| <= 32767 (safe_flush). VNNI needs no such bound.
//   kS16 A s16, B s16, two products a group: 8-bit operands where 16-bit sums would overflow, and dynamic fixed point.
//        `chain` > 0: sums are f32 and every `chain` groups (counted over the tile's runs) the int32 sum is converted and added:
//        numerics of dynamic fixed point, where int32 holds a few products only.
#ifndef NETSUKE_TRAIN_KERNELS_H_
#define NETSUKE_TRAIN_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "train/random.h"

namespace netsuke {
namespace train {

enum class Lane : uint8_t { kU8, kS16 };
constexpr int kWidth = 16;        // columns of a tile and of a panel of B
constexpr int kMaxRows = 12;      // rows of the tallest tile
constexpr int kMaxPanels = 2;     // panels of B that one tile reads side by side
constexpr int64_t kGroupBytes = 64;
constexpr int64_t kSlackBytes = 64;  // readable behind every operand
constexpr int64_t kStreamedResult = int64_t{1} << 20;  // elements, 4 MB: results of products as large are written past the caches

struct Tile {
  const uint8_t* const* a;    // one base address per row
  const int64_t* run_offset;  // bytes
  const uint8_t* run_shift;   // null, or the left shift of all sums before run q (groups of channels related by powers of two)
  const int32_t* run_groups;  // groups of run q
  int64_t runs;
  const uint8_t* b;           // [runs][groups][64]
  const uint8_t* b_next;      // null, or the panel of the next 16 columns, whose sums stand behind the first 16
  int rows;
  int64_t flush;              // kU8: groups that 16-bit sums hold; kS16: `chain`, 0 for int32 sums
  void* acc;                  // [rows][16 or 32] int32, or f32 with a chain
  int64_t acc_stride;         // elements
  bool first;                 // start from 0 instead of what acc holds
  int64_t a_step = 4;         // kS16: bytes of A from one group to the next
};

// y[r][n] = f32(acc[r][n] + corr[n]) * mult[n] (+ bias[n]): section 4 of docs/numerics.md with f32 output.
struct Finish {
  const int32_t* acc;         // [rows][16]
  int64_t acc_stride;         // elements
  int rows, columns;
  const int32_t* corr;        // [16]
  const float* mult;          // [16]
  const float* bias;          // [16] or null
  float* const* out;          // one address per row
  bool stream = false;        // out is larger than caches: written past them where the table can; `streamed` then ends a task
  bool add = false;           // to what out holds, in f32; not streamed
};

// codes[i] = clamp(rne(x[i] / scale), lo, hi) + zero, or floor(x[i] / scale + noise) with a seed; scale[i % period].
struct Quantize {
  const float* x;
  const float* scale;
  int64_t period;             // 1: one scale
  float lo, hi;
  int32_t zero;
  const Seed* seed;           // null: nearest even
  void* out;                  // u8, or s16 when wide
  bool wide;
  int64_t start = 0;          // number of x[0] among the tensor's elements, as noise and scales count them; a multiple of 64
};

// Exact Winograd products of 3x3 windows (winograd.cc): 36 positions of a 6 x 6 tile for stride 1, 25 of 5 x 5 for the phases of stride
// 2, whose windows have 2 x 2 taps. Channels come in sixteens.
struct WinogradInput {          // one tile of activations: v[position * stride + channel]
  const uint8_t* const* pixel;  // 6 x 6 addresses (5 x 5)
  int64_t channels;
  uint8_t zero;
  const int16_t* factor;        // null, or a power of two for every channel
  int16_t* v;
  int64_t stride;               // elements
};
struct WinogradPairs {          // two tiles (or two weights) side by side: v[position * stride + channel / 16 * panel + channel % 16]
  const uint8_t* const* first;  // addresses: 6 x 6 (5 x 5) of activations, 4 x 4 of gradients, 3 x 3 (2 x 2) of s8 weights
  const uint8_t* const* second;
  int64_t channels;
  uint8_t zero;
  int16_t factor[2];
  uint32_t* v;                  // the first's 16 bits are the low ones
  int64_t stride, panel;        // elements
};
struct Winograd {
  void (*input)(const WinogradInput&);
  void (*input_pairs)(const WinogradPairs&);
  void (*gradient_pairs)(const WinogradPairs&);
  void (*weight_pairs)(const WinogradPairs&);
  // Sums of 16 channels, m[position * stride + channel], to the tile's y[pixel][16] (4 x 4), or to a window's y[tap][16] (3 x 3, 2 x 2).
  void (*output)(const int32_t* m, int64_t stride, int32_t* y, bool add);
  void (*window)(const int32_t* m, int64_t stride, int32_t* y);
  void (*add)(const int32_t* y, int64_t* total);  // total[16] += y[16]
};

// The quantized L1 normalization of [rows][columns] u8 codes (norm.cc), one number a column in every array.
struct NormColumns {            // xh = rne((code - floor) * slope + offset); y = max(xh * gain + shift, least)
  int64_t columns;
  const uint8_t* floor;
  const float *slope, *offset, *gain, *shift;
  bool stream = false;          // y is larger than caches: written past them
  float least = -__builtin_inff();  // 0: a ReLU; NaN passes
  bool bytes = false;           // |xh| <= 127
};
struct NormGate {               // a ReLU lets the gradient of codes from `from` to `to` through: its input is monotone in the code
  const uint8_t *from, *to;
};
struct NormGradient {           // dx = (gradient - zero) * slope - (code < floor ? below : code == floor ? at : above)
  int64_t columns;
  int32_t zero;
  const uint8_t* floor;
  const float *slope, *below, *at, *above;
  bool stream = false;
};
constexpr int64_t kMostDotRows = 1024;  // of one call: 1024 * 127 * 127 fits int32 many times
struct Norm {
  // Running smallest and largest float bits, in an order that integers have (NaN outermost).
  void (*minmax)(const float* x, int64_t count, int32_t* least, int32_t* most);
  // All add to what the arrays hold; least and most run.
  void (*count)(const uint8_t* codes, int64_t rows, int64_t columns, int64_t* sum, uint8_t* least, uint8_t* most);
  // sum max(code - floor, 0); number of codes above, and at, floor.
  void (*above)(const uint8_t* codes, int64_t rows, int64_t columns, const uint8_t* floor, int64_t* above, int64_t* greater, int64_t* equal);
  void (*apply)(const uint8_t* codes, int64_t rows, const NormColumns& n, float* y);
  // sum (gradient - zero), sum (gradient - zero) xh; |gradient - zero| <= 127.
  void (*dot)(const uint8_t* gradient, const uint8_t* codes, int64_t rows, const NormColumns& n, int32_t zero, int32_t* total, int32_t* dot);
  void (*gradient)(const uint8_t* gradient, const uint8_t* codes, int64_t rows, const NormGradient& n, float* dx);
  void (*distance)(const uint8_t* codes, int64_t rows, int64_t columns, uint8_t zero, uint32_t* sum);  // sum |code - zero|
  // As Table::absmax, of what the gate lets through; and the gradient's codes, `zero` where it does not.
  void (*absmax)(const float* x, const uint8_t* codes, int64_t rows, int64_t columns, const NormGate& gate, uint32_t* top);
  void (*gate)(const uint8_t* codes, int64_t rows, int64_t columns, const NormGate& gate, uint8_t zero, uint8_t* gradient);
  void (*gated)(const float* dy, const float* y, int64_t count, float* dz);  // dz = dy, 0 where y <= 0
  // Smallest and largest of the gradient's codes beside codes below, at and above floor: [3][2][columns] run, from 255 and 0.
  void (*ends)(const uint8_t* gradient, const uint8_t* codes, int64_t rows, int64_t columns, const uint8_t* floor, uint8_t* ends);
};

// Batch normalization, addition and ReLU of [rows][columns] f32 (batch_norm.cc), one number a column in every array.
struct BatchNormColumns {
  int64_t columns;
  const float *factor, *shift;        // y = x * factor + shift
  const float *mean, *slope, *offset;  // dx = dz * factor + (x * slope + offset); backward only
  bool stream = false;                 // results are larger than caches: written past them
};
// What says where a ReLU passed its gradient: there is none, its input made again from x, or its output y.
enum class Gate : uint8_t { kOpen, kInput, kOutput };
struct BatchNorm {
  // sum += x - centre, squares += (x - centre)^2; low and high run, where they are wanted: NaN passes them by.
  void (*moments)(const float* x, int64_t rows, int64_t columns, const float* centre, float* sum, float* squares, float* low, float* high);
  // y, with its running ends as Norm::minmax has them; residual may be null.
  void (*apply)(const float* x, const float* residual, int64_t rows, const BatchNormColumns& n, bool relu, float* y, int32_t* least, int32_t* most);
  // total += dz, dot += dz (x - mean); kOutput: dz is written, and y is read there only.
  void (*sums)(const float* x, const float* dy, const float* y, int64_t rows, const BatchNormColumns& n, Gate gate, float* total, float* dot, float* dz);
  // kOutput: dy is dz already.
  void (*gradient)(const float* x, const float* dy, int64_t rows, const BatchNormColumns& n, Gate gate, float* dx);
};

struct Table {
  const char* name;
  int rows;                   // of the tallest u8 tile
  int panels;                 // of the widest u8 tile
  int rows_s16;               // of the tallest kS16 tile
  bool pair_s16;              // kS16 tiles without a chain take a second panel
  bool dot;                   // u8 x s8 products need no 16-bit bound
  void (*tile_u8)(const Tile&);
  void (*tile_s16)(const Tile&);
  void (*finish)(const Finish&);
  void (*streamed)();           // other threads see streamed results from here on
  void (*quantize)(const Quantize&, int64_t begin, int64_t end);  // begin a multiple of 64
  // top[c] = max over rows of the bits of |x[row][c]|: NaN and Inf are larger than every number.
  void (*absmax)(const float* x, int64_t rows, int64_t columns, uint32_t* top);
  // dst[j * dst_stride + i] = src[i * src_stride + j], 16 x 16 bytes.
  void (*transpose16)(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride);
  // dst[n][i] = src[i][n] - zero for 16 columns of four rows, 64 bytes.
  void (*interleave4)(const uint8_t* const src[4], uint8_t zero, uint8_t* dst);
  Norm norm;
  BatchNorm batch_norm;
  Winograd winograd;
  Winograd winograd_two;        // stride 2; empty where direct products of 8 bits are as fast (VNNI: two to one of 16 bits)
};

extern const Table train_kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Table train_kernels_avx2, train_kernels_avx512vnni;
#elif defined(__aarch64__)
const Table& train_kernels_neon();
#endif
inline const Table& train_kernels(Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
  if (isa == Isa::kAvx512Vnni) return train_kernels_avx512vnni;
  if (isa == Isa::kAvx2) return train_kernels_avx2;
#elif defined(__aarch64__)
  if (isa != Isa::kPortable) return train_kernels_neon();
#endif
  return train_kernels_portable;
}

// Groups of four products that 16-bit sums of vpmaddubsw hold; 0 when one already overflows.
inline int64_t safe_flush(int64_t a_max, int64_t b_max) {
  const int64_t pair = 2 * a_max * b_max;
  return pair == 0 ? 32767 : 32767 / pair;
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_KERNELS_H_
