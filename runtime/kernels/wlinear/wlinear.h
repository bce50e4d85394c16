// wlinear: y = x w^T with f32 activations and weights of 2, 3, 4 or 8 bits (or floats of 4 to 8 bits) whose scale holds for a group
// of k (docs/numerics.md section 12). Three ways to compute: "s8" quantizes x by the same groups on the fly and multiplies integers,
// "f32" decodes weights to floats, "bf16" rounds x to bfloat16, which decoded weights are too, and adds in f32.
//
// Packed weights: panels of 32 output channels, each a run of blocks of 32 k, of codes u = w + 2^(bits-1). For "s8" a block holds, for
// each of its eight quads of k, 128 bytes [channel][k of the quad], folded together below 8 bits so that a shift and a mask of whole
// registers unfold them:
//   8 bits   quads 0 .. 7, 128 bytes each
//   4 bits   4 times 128 bytes: quad 2s in the low nibbles of run s, quad 2s + 1 in the high ones
//   2 bits   2 times 128 bytes: quad 4s + i in the bits 2i, 2i + 1 of run s
//   3 bits   3 times 128 bytes: quads 2s, 2s + 1 in the bits 0 to 5 of run s; of quads 6 and 7 the low two bits in bits 6, 7 of runs 0 and
//            1, the third bit in bit 6 and bit 7 of run 2
// For "f32" and "bf16" a block holds `bits` words of 32 bits for each channel, [word][channel], each with 4, 8 or 16 codes in the order of
// k from its lowest bit on; at 3 bits 10 codes, and the last two codes of the block are bits 30 and 31 of its three words. For "bf16" the
// two k of a pair are exchanged. Layouts are the same on every instruction set. A block lies inside one group.
#ifndef NETSUKE_KERNELS_WLINEAR_WLINEAR_H_
#define NETSUKE_KERNELS_WLINEAR_WLINEAR_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/arena.h"
#include "kernels/op.h"

namespace netsuke {

constexpr int kPanel = 32;       // output channels of a panel
constexpr int kWBlock = 32;      // k of a block
constexpr int kWSlice = 4;       // blocks that float kernels decode at a time: 16 kB of floats, half a first-level cache
constexpr int kQuadBytes = 128;  // one quad of k of a panel at 8 bits
constexpr int kWordBytes = 128;  // one word of every channel
constexpr size_t kWFar = size_t{24} << 20;  // bytes of weights from which on they count as read from memory
constexpr int64_t wlinear_block_bytes(int bits) { return int64_t{kQuadBytes} * bits; }

// A float format of the weights; bits 0: integers.
struct WlinearFloat {
  int bits = 0, mantissa = 0, bias = 0;
};

// What both kinds of kernel read of one panel; floats: of `count` panels, one behind the other.
struct WlinearPanel {
  const uint8_t* w;
  const float* scale;     // [groups][kPanel]
  const int32_t* offset;  // [groups][kPanel], taken off every code u; null: all are `same_offset`
  int32_t same_offset;
  const float* bias;      // [kPanel] or null
  int bits;               // as packed: 2, 3, 4, 8
  int64_t blocks, group_blocks, groups;
  int64_t rows;
  float* y;  // [rows][columns], y_stride apart
  int64_t y_stride;
  int columns;  // of all panels, at most kPanel each
  int count;
  bool far;  // the layer's weights come from memory each time: they are larger than a last-level cache
};

struct WlinearS8 {
  WlinearPanel panel;
  const int8_t* x;  // [rows][blocks * kWBlock]
  const float* x_scale;  // [groups][x_stride], of which `rows` are the job's
  const int32_t* x_sum;  // as x_scale: sums of the codes of x
  int64_t x_stride;
};

struct WlinearFloats {
  WlinearPanel panel;
  WlinearFloat form;
  const float* x;    // [slices][rows][kWSlice * kWBlock], zeros behind k up to a whole block; bf16: rounded, the odd k of a pair before
                     // the even one, or [slices][rows][kWSlice * kWBlock / 2] words that are such pairs: the even k in the low half
  int64_t x_stride;  // between slices
};

enum class WlinearCompute { kF32, kBf16, kS8 };

struct WlinearKernels {
  const char* name;
  int32_t byte_offset;  // what s8 reads u as standing above w at 8 bits: 128, or 0 where it makes signed bytes of them (others: 128)
  void (*s8)(const WlinearS8& job);
  void (*f32)(const WlinearFloats& job);
  void (*bf16)(const WlinearFloats& job);
  bool bf16_pairs;  // bf16 reads words that are pairs
  // k numbers of a row of x as bf16 reads them, zeros behind k up to a whole block.
  void (*round)(const float* x, int64_t k, float* out);
  // One row of x to codes, one scale and one sum a group, `stride` apart; group_blocks * kWBlock elements a group, k elements in all.
  void (*quantize)(const float* x, int64_t k, int64_t group_blocks, int8_t* q, float* scale, int32_t* sum, int64_t stride);
};

// For compute "bf16" with VDPBF16PS where the CPU has it and it was found to follow numerics.md; that table has no s8.
const WlinearKernels& wlinear_kernels(Isa isa, WlinearCompute compute);
extern const WlinearKernels wlinear_kernels_portable;
#if defined(__x86_64__)
extern const WlinearKernels wlinear_kernels_avx2, wlinear_kernels_avx512vnni, wlinear_kernels_avx512bf16;
#elif defined(__aarch64__)
extern const WlinearKernels wlinear_kernels_neon, wlinear_kernels_neondot;
#endif

struct WlinearShape {
  int64_t n = 0, k = 0, group = 0;
  int64_t groups() const { return (k + group - 1) / group; }
  int64_t blocks() const { return (k + kWBlock - 1) / kWBlock; }
  int64_t slices() const { return (blocks() + kWSlice - 1) / kWSlice; }
  int64_t group_blocks() const { return (group + kWBlock - 1) / kWBlock; }
  int64_t panels() const { return (n + kPanel - 1) / kPanel; }
};

// The weights of a layer as the kernels read them.
class WlinearWeights {
 public:
  // w: codes s8 (form.bits 0) or float codes u8, [n][k]; zero: s8 [n][groups] or null; bias: [n] or null. byte_offset: see WlinearKernels.
  Status pack(const WlinearShape& shape, WlinearCompute compute, const void* w, const WlinearFloat& form, const float* scale, const int8_t* zero,
              const float* bias, int32_t byte_offset);
  // Everything of `count` panels but the rows and y.
  WlinearPanel panel(int64_t index, int count = 1) const;
  const WlinearShape& shape() const { return shape_; }
  const WlinearFloat& form() const { return form_; }
  int bits() const { return bits_; }  // as packed
  void count_as_far() { far_ = true; }  // tests: as if they were larger than a last-level cache
  size_t bytes() const { return codes_.bytes() + (scale_.size() + bias_.size()) * sizeof(float) + offset_.size() * sizeof(int32_t); }

 private:
  WlinearShape shape_;
  WlinearFloat form_;
  int bits_ = 8;
  bool far_ = false;
  int32_t same_offset_ = 0;
  Buffer codes_;
  std::vector<float> scale_, bias_;
  std::vector<int32_t> offset_;
};

// x: [rows][k]. scratch: wlinear_scratch_bytes.
size_t wlinear_scratch_bytes(const WlinearShape& shape, int64_t rows, WlinearCompute compute);
void wlinear_run(const WlinearKernels& kernels, const WlinearWeights& weights, WlinearCompute compute, const float* x, int64_t rows, float* y,
                 void* scratch, ThreadPool& pool);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_WLINEAR_WLINEAR_H_
