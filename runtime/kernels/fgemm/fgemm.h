// The float32 matrix product behind conv, conv_transpose, linear, matmul, lstm and gru.
//
//   c[m][n] = act(scale * sum over tap, ch of a[m][tap][ch] * b[tap * channels + ch][n] + bias[n] + r[m][n])
//
// a is given by pointers, one for each row and tap (an indirect convolution: no im2col copy; padded taps point at zeros). Each
// output is one chain of fused multiply-adds in the order (tap, channel) starting from 0, whatever the tile, the cache block or the
// number of threads: where K is cut into cache blocks the accumulators go through c and the chain goes on.
#ifndef NETSUKE_KERNELS_FGEMM_FGEMM_H_
#define NETSUKE_KERNELS_FGEMM_FGEMM_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/elementwise/unary.h"

namespace netsuke {

// One register tile of one cache block. Panels are nr columns wide; the last one may be narrower (see fgemm_panel_width).
struct FgemmTile {
  const float* const* a;  // a[row * a_step + tap]
  int64_t a_step;
  int64_t a_offset;       // added to every pointer
  int64_t taps, channels;
  const float* b;         // [taps * channels][vectors * lanes]
  int64_t panel_stride;   // floats between panels, where the tile spans several
  float* c;
  int64_t ldc;
  const float* bias;      // null or as wide as the panels
  const float* r;         // null or rows like c
  int64_t ldr;
  float scale;            // of the sum
  float lo, hi;           // clamp of the result
  int rows, vectors, panels;
  int64_t cols;           // columns to write
  bool first, last;       // start from 0 / finish with scale, bias, residual and clamp
  uint16_t* halves;       // null, or where the finished values go as bfloat16 instead of c (rounded as to_bf16 does)
  int64_t ld_halves;
  bool flush;             // tile_bf16: sums may become subnormal and must then be flushed to zero
  // Address of weights that later tiles read; kernels that prefetch go ahead_step bytes further with each step of K. May point anywhere.
  uintptr_t ahead;
  int64_t ahead_step;
};

struct FgemmKernels {
  int lanes;          // floats in a vector
  int vectors;        // vectors in a full panel: nr = lanes * vectors
  int max_rows[5];    // largest tile height for 1 ... 4 vectors
  int max_pair_rows[5];  // the same for tile_bf16
  int64_t panel_floats;  // of b that one K block of a panel takes, about
  int max_panels[4];  // panels that one tile of 1 ... 3 rows spans, so that enough sums are in flight
  void (*tile)(const FgemmTile& tile);
  // The same loops where every "float" of a and b is a pair of bfloat16, channel 2i in the low half: see numerics.md section 8.
  void (*tile_bf16)(const FgemmTile& tile);
  // rows x channels floats to rows x ceil(channels / 2) pairs, rounded to nearest even, subnormal bfloat16 to zero. Returns the exponent
  // field of the smallest number that is not zero (255 when there is none).
  uint32_t (*to_bf16)(const float* x, int64_t rows, int64_t channels, uint32_t* out);
  // Two rows of n floats to n pairs, `even` in the low halves; odd may be null, for zeros. Rounds and returns as to_bf16.
  uint32_t (*pair_rows)(const float* even, const float* odd, int64_t n, uint32_t* out);
  // packed[i * width + j] = b[j * col_stride + i] for i < k, j < cols; zeros up to j = width, a multiple of lanes.
  void (*pack_columns)(const float* b, int64_t cols, int64_t width, int64_t k, int64_t col_stride, float* packed);
  // The smallest exponent field of n bfloat16 but that of zero; 255 when there is none.
  uint32_t (*least_bf16)(const uint16_t* x, int64_t n);
  bool always_flushes;  // tile_bf16 flushes whatever FgemmTile::flush says
  const char* name;   // isa_rowsxcolumns
};
NETSUKE_KERNEL_TABLES(FgemmKernels, fgemm_kernels)

// b packed as panels [ceil(n / nr)][k][width], all of width nr but the last, which has only the vectors it needs.
int fgemm_panel_vectors(const FgemmKernels& kernels, int64_t n, int64_t panel);
size_t fgemm_packed_floats(const FgemmKernels& kernels, int64_t n, int64_t k);
// b[j][i] at b[j * col_stride + i * k_stride], j < n, i < k, one of the strides 1; columns beyond n are zeros.
// Panels [panel, panel_end); `packed` is the start of all of them.
void fgemm_pack(const FgemmKernels& kernels, const float* b, int64_t n, int64_t k, int64_t col_stride, int64_t k_stride, float* packed,
                int64_t panel, int64_t panel_end);
int64_t fgemm_panels(const FgemmKernels& kernels, int64_t n);
// bias padded to the packed width.
size_t fgemm_padded_cols(const FgemmKernels& kernels, int64_t n);

struct FgemmJob {
  const FgemmKernels* kernels;
  int64_t rows = 0, cols = 0, taps = 1, channels = 0;  // of one group
  int64_t groups = 1;        // group g reads channels from g * channels on and writes columns from g * cols on
  const float* b = nullptr;  // packed groups one after the other
  const float* bias = nullptr;  // padded groups one after the other
  float* c = nullptr;
  int64_t ldc = 0;
  uint16_t* halves = nullptr;  // results as bfloat16, rows as far apart as those of c would be; c is then not used
  const float* r = nullptr;
  int64_t ldr = 0;
  float scale = 1;
  Activation act;
  UnaryRow act_row = nullptr;  // for activations that are no clamp
  bool bf16 = false;           // a and b hold pairs; channels counts pairs
  bool flush = false;          // see FgemmTile
  // Fills out[i * taps + tap] for rows [row, row + count).
  void (*pointers)(const void* context, int64_t row, int64_t count, const float** out) = nullptr;
  const void* context = nullptr;

  // Filled by fgemm_plan.
  int64_t row_blocks = 0, row_block = 0, col_blocks = 0, col_block = 0;  // col_block in panels
  float lo = 0, hi = 0;
};

// Cuts the job into tasks; returns their number. Any split gives the same results.
int64_t fgemm_plan(FgemmJob* job, int threads);
// Scratch one thread needs for fgemm_task, in bytes: pointers of one row block, and with `halves` the sums of one where they cannot be kept
// in registers to the end.
size_t fgemm_scratch_bytes(int64_t rows, int64_t taps);
size_t fgemm_sums_bytes(const FgemmKernels& kernels, int64_t rows, int64_t cols, int64_t k, bool act_row);
void fgemm_task(const FgemmJob& job, int64_t task, void* scratch);

// Rows at base + row * stride (taps = 1): the context for matrices.
struct FgemmRows {
  const float* base;
  int64_t stride;
};
void fgemm_row_pointers(const void* context, int64_t row, int64_t count, const float** out);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_FGEMM_FGEMM_H_
