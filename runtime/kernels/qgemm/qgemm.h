// The integer matrix product behind qconv and qlinear: types shared by the driver (plan.cc) and the kernels of every instruction
// set. docs/numerics.md sections 3 to 5 are the specification; every kernel here is bit-identical to reference.cc.
//
//   out[m][n] = requantize(init[n] + sum over runs r, groups g, i < kGroup of  a[m][run_offset[r] + g*kGroup + i] * b[n][r][g][i])
//
// A row of A is not copied: it is a base pointer (one output pixel) plus a few offsets shared by all rows (the kernel rows), each
// the start of a contiguous run of input bytes. In NHWC without dilation a run is kw * C values, so K is padded once per kernel
// row, not once per tap: a 7x7 stem with 3 channels wastes 3 of 24 products, not 1 of 4.
#ifndef NETSUKE_KERNELS_QGEMM_QGEMM_H_
#define NETSUKE_KERNELS_QGEMM_QGEMM_H_

#include <cstddef>
#include <cstdint>

#include "kernels/qgemm/picked.h"

namespace netsuke {
namespace qgemm {

// How the operands of one product are laid out.
//   kU8x4   A: the u8 codes themselves; B: s8 [panel][run][group][nr][4]; init folds -x_zero * sum(w).
//   kS16x2  A: s16, x - x_zero (exact, at most 9 bits); B: s16 [panel][run][group][nr][2]. Padding is 0. A layer keeps B as s8 and
//           expands a panel into scratch for the rows of a task: half the memory and the cache traffic, under 2 % of 49 rows' products.
//   kS8x4   as kU8x4; the kernel itself flips the top bit of A (x - 128) and init folds (128 - x_zero) * sum(w).
//   kPicked A as kU8x4; B as picked.h says.
enum class Layout : uint8_t { kU8x4, kS16x2, kS8x4, kPicked };

constexpr int kMaxRows = 16;      // rows of the tallest tile
constexpr int kChannelPad = 64;   // per-channel vectors are readable this far past the last channel
constexpr int kSlack = 64;        // bytes a kernel may read (never use) behind the last run of A

enum class Residual : uint8_t { kNone, kU8, kF32 };

// From int32 to the output; sections 4 (dyadic == false) and 5 of docs/numerics.md.
struct Requant {
  bool dyadic = false;
  bool out_f32 = false;
  Residual residual = Residual::kNone;
  bool has_flo = false, has_fhi = false;
  // Codes (not dyadic), and no sum can leave the range of int32 once scaled: Layer::build proves it. The rounded value may then be narrowed by
  // saturating packs before it is clamped; with packs_clamp, lo = 0 and hi = 255 besides, no clamp is needed.
  bool bounded = false, packs_clamp = false;
  int32_t zero = 0, lo = 0, hi = 255;
  float code_lo = 0, code_hi = 255;  // lo - zero, hi - zero
  float flo = 0, fhi = 0;
  int32_t r_zero = 0;
  float r_mult = 0;
  int32_t r_m = 0, r_e = 1;
  const float* mult = nullptr;  // padded with 0
  const float* bias = nullptr;  // -0.0f where the layer has none: t + -0.0f is t for every t
  const int32_t* m = nullptr;   // dyadic
  const int32_t* e = nullptr;   // dyadic, padded with 1
};

// One tile: rows x columns outputs, 1 <= rows <= the tile's height, 1 <= columns <= its width.
struct Tile {
  const void* const* a;         // one base pointer per row
  const int64_t* run_offset;    // in elements of A
  int64_t runs;
  int64_t groups;               // K groups of each run
  int64_t chain;                // narrow sets: groups whose products may be added in 16 bits, at least 1
  const void* b;                // the panel
  const int32_t* init;          // accumulators' start, one per column, readable over the whole panel width
  int rows;
  int columns;
  const Requant* requant;       // null: raw int32 sums are stored
  int64_t channel;              // column 0's index into mult, bias, m, e
  void* out;                    // row 0, column 0
  int64_t out_stride;           // elements between rows, of out and residual
  const void* residual;         // row 0, column 0
  int64_t more;                 // tiles of as many rows that follow below, computed by the same call; 0 unless the set repeats
  // Address of weights that later tiles read: sets that repeat prefetch the line there and go `ahead_step` bytes further with each group or
  // unit of the panel, through all tiles of the call. A hint, which may point anywhere.
  uintptr_t ahead;
  int64_t ahead_step;
};

using TileFn = void (*)(const Tile&);

// One channel per group: neighbouring outputs of one row, a range of channels in chunks.
struct DepthwiseRow {
  const uint8_t* const* taps;  // channel 0 of the code under each tap of the first pixel
  int64_t taps_count;
  int64_t pixels;
  int64_t pixel_stride;        // bytes from one pixel's input to the next one's
  const uint8_t* packed;       // chunk 0, as depthwise_pack wrote it
  int64_t packed_stride;       // bytes of one chunk
  int64_t channels;            // at least one chunk; chunk i starts at min(i * chunk, channels - chunk): the last one overlaps
  int64_t chunk0, chunk1;
  const Requant* requant;
  void* out;                   // channel 0 of the first pixel
  const void* residual;
};

// A family of kernels over one layout: what kernels.inc lists.
struct TileSet {
  const char* isa;      // "x86_avx2"
  Layout layout;
  int rows;             // height of the tallest tile
  int width;            // columns of a panel
  const TileFn* fn;     // fn[rows - 1] computes exactly `rows` rows
  const TileFn* bytes;  // kS16x2: the same reading B as s8, for tasks of a single tile; null elsewhere
  bool repeats = false; // functions honour Tile::more
};

// Exact integer Winograd, winograd_exact.cc. One tile's input, all channels, to V.
struct WinogradInput {
  const uint8_t* x;        // the tile's first pixel
  int32_t zero;            // V is made of x - zero
  int64_t row_stride, pixel_stride;
  int64_t channels;        // multiple of 32, of 64 for 8-bit lanes; reads past the layer's own channels meet zeros in U
  void* v;                 // position 0; s16, or u8 for 8-bit lanes, where the zero is left to init
  int64_t v_stride;        // elements between positions
};

// M of a few tiles, one panel of channels: a matrix product a position.
struct WinogradProduct {
  const void* v;            // the first tile, position 0
  int64_t v_stride, channels;  // elements between positions, between tiles
  int64_t groups;
  const uint8_t* b;         // the panel, position 0
  int64_t b_stride;         // bytes between positions
  const int32_t* init;      // accumulators' start, one per column
  int64_t init_stride;      // between positions
  int32_t* m;               // [position][tile][width]
  int positions, tiles;
  uintptr_t ahead;          // as in Tile: what is read after this call, ahead_step bytes for each group of each position; 0: nothing
  int64_t ahead_step;
};

// M of neighbouring tiles of one row, one panel of channels, to outputs.
struct WinogradOutput {
  const int32_t* m;        // the first tile, position 0
  int64_t m_stride;        // between positions
  const int32_t* init;
  int tiles;
  int rows, columns;       // outputs inside the image, of all tiles
  int64_t image_width;     // outputs of a row of the image
  Tile tile;               // columns, requant, channel, out (first output), out_stride, residual
};

constexpr int kWinogradMaxWidth = 64;

// What one instruction set offers. ISA files define one constant of this type and nothing else with external linkage.
struct Kernels {
  const TileSet* sets = nullptr;
  int n_sets = 0;
  // u8 codes to s16, dst[i] = src[i] - zero, i < count; null where no set of this ISA uses kS16x2.
  void (*widen)(const uint8_t* src, int64_t count, int32_t zero, int16_t* dst) = nullptr;
  // s8 weights to s16, count a multiple of 16; null likewise.
  void (*expand)(const int8_t* src, int64_t count, int16_t* dst) = nullptr;
  // Depthwise, depthwise_chunk channels at a time; 0 and null where there is no such kernel. A packed chunk holds weights, init and
  // requantization vectors in the kernel's own order. w: [chunk][taps]; init: [chunk]; channel: the chunk's first.
  int depthwise_chunk = 0;
  void (*depthwise)(const DepthwiseRow& row) = nullptr;
  int64_t (*depthwise_bytes)(int64_t taps) = nullptr;
  void (*depthwise_pack)(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst) = nullptr;
  // Exact Winograd; null where there is none. The set is kS16x2; null requant stores raw sums. Layers of at least winograd_least
  // channels in and out take F(4x4) while in * out <= winograd4_most, then F(2x2) up to winograd2_most (measured: winograd_exact.cc).
  const TileSet* winograd_set = nullptr;
  int64_t winograd_least = 0, winograd4_most = 0, winograd2_most = 0;
  void (*winograd_input4)(const WinogradInput& in) = nullptr;
  void (*winograd_input2)(const WinogradInput& in) = nullptr;
  void (*winograd_output4)(const WinogradOutput& out) = nullptr;
  void (*winograd_output2)(const WinogradOutput& out) = nullptr;
  // A faster set for layers whose codes are narrow enough (gemm.cc: narrow_chain); null where 8-bit products cost no more anyway.
  const TileSet* narrow_set = nullptr;
  // kPicked, for other layers whose weights allow it (pack.cc: pick_panels); null likewise.
  const TileSet* picked_set = nullptr;
  PickedPackFn picked_pack = nullptr;
  // F(2x2) and, while in * out <= winograd3_most, F(3x3) over 8-bit lanes for layers whose codes and weights are narrow enough
  // (winograd_exact.cc), of at least winograd_narrow_least channels in and out. The set is kU8x4 or kS8x4; outputs of F(2x2) go through
  // winograd_output2. Null where 8-bit lanes gain nothing.
  const TileSet* winograd_narrow_set = nullptr;
  int64_t winograd_narrow_least = 0, winograd3_most = 0;
  void (*winograd_input3_narrow)(const WinogradInput& in) = nullptr;
  void (*winograd_input_narrow)(const WinogradInput& in) = nullptr;
  void (*winograd_output3)(const WinogradOutput& out) = nullptr;
  // All positions in one call, of at most as many tiles as winograd_set or winograd_narrow_set has rows. Null: position by position.
  void (*winograd_product)(const WinogradProduct& p) = nullptr;
  void (*winograd_product_narrow)(const WinogradProduct& p) = nullptr;
};

inline int group_of(Layout layout) { return layout == Layout::kS16x2 ? 2 : 4; }
inline int element_of(Layout layout) { return layout == Layout::kS16x2 ? 2 : 1; }

// One element, plain C++; what reference.cc and the portable kernels use and every vector epilogue equals.
uint8_t requantize_u8(const Requant& q, int32_t acc, int64_t channel, uint8_t residual);
float requantize_f32(const Requant& q, int32_t acc, int64_t channel, float residual);
// A tile of int32 sums (row stride acc_stride) to the output described by tile.
void requantize_tile(const Tile& tile, const int32_t* acc, int64_t acc_stride);

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_QGEMM_H_
