// qmatmul: c[m][n] = requantize(sum_k (a[m][k] - a_zero) * (b[k][n] - b_zero)), both operands activations (docs/numerics.md, 6).
//
// a and b are packed per run. An instruction set gives a table of three functions; the driver in driver.cc cuts the work.
//
//   packed a   row-major, k padded to a multiple of k_unit, element bytes each
//   packed b   panels of `cols` columns: [k / k_unit][cols][k_unit]; columns and k beyond the matrix hold zero
//
// Exactness: |sum| <= K * max(a_zero, 255 - a_zero) * max(b_zero, 255 - b_zero), checked <= 2^31 - 1 when shapes are known
// (K <= 33025 always passes). Two families, both exact for every code:
//   16 bit  packed values are a - a_zero and b - b_zero in [-255, 255]; pair sums of products stay below 2^18 (vpmaddwd, smlal)
//   8 bit   packed values are the codes (VNNI: a - 128), and row_terms and col_terms put the zero points right modulo 2^32
// vpmaddubsw, which has twice the lanes on AVX2, saturates at 2^15 - 1: with a in [0, 255] and b in [-128, 127] a pair reaches
// 2 * 255 * 128, and |a - 128| with the sign moved to b fails for b = -128. Splitting it into exact halves takes as many
// instructions as vpmaddwd does (4 a 32 products), so nothing is lost.
#ifndef NETSUKE_KERNELS_QMATMUL_QMATMUL_H_
#define NETSUKE_KERNELS_QMATMUL_QMATMUL_H_

#include <cstdint>

#include "kernels/base/codes.h"

namespace netsuke {

struct QMatmulParams {
  int32_t a_zero = 0, b_zero = 0;
  float mult = 1.0f;
  Codes codes;
  bool f32_out = false;
};

struct QMatmulTile {
  const uint8_t* a;          // first packed row
  int64_t a_stride;          // bytes between packed rows
  const int32_t* row_terms;  // one a row
  const uint8_t* b;          // packed panel
  const int32_t* col_terms;  // one a column of the panel
  int64_t units;             // padded k / k_unit
  int rows, cols;            // of c, at most the kernel's
  void* c;                   // u8 or f32
  int64_t c_stride;          // elements between rows of c
};

struct QMatmulKernels {
  const char* name;
  int rows, cols, k_unit, element;
  // One row of a.
  void (*pack_a)(const uint8_t* a, int64_t k, int64_t k_padded, const QMatmulParams& params, uint8_t* packed, int32_t* row_term);
  // b points to the panel's first column: element (k, n) is b[k * stride + n], or b[n * stride + k] when transposed.
  void (*pack_b)(const uint8_t* b, int64_t stride, bool transposed, int64_t cols, int64_t k, int64_t k_padded,
                 const QMatmulParams& params, uint8_t* packed, int32_t* col_terms);
  void (*tile)(const QMatmulTile& tile, const QMatmulParams& params);
};

const QMatmulKernels& qmatmul_kernels(Isa isa);
extern const QMatmulKernels qmatmul_kernels_portable;
#if defined(__x86_64__)
extern const QMatmulKernels qmatmul_kernels_avx2, qmatmul_kernels_avx512vnni;
#elif defined(__aarch64__)
extern const QMatmulKernels qmatmul_kernels_neon, qmatmul_kernels_neondot;
#endif

// Batch dimensions are aligned at the right and broadcast; strides in matrices, 0 where an operand is broadcast.
struct QMatmulShape {
  int64_t m = 0, n = 0, k = 0, batch = 1;
  bool transposed = false;
  int batch_rank = 0;
  int64_t batch_dim[kMaxRank] = {}, a_step[kMaxRank] = {}, b_step[kMaxRank] = {};
};

// Fills shape and the output's; an error names both shapes.
Status qmatmul_shape(const Shape& a, const Shape& b, bool transposed, QMatmulShape* shape, Shape* out);
size_t qmatmul_scratch_bytes(const QMatmulKernels& kernels, const QMatmulShape& shape, int threads);
void qmatmul_run(const QMatmulKernels& kernels, const QMatmulShape& shape, const QMatmulParams& params, const uint8_t* a,
                 const uint8_t* b, void* c, void* scratch, ThreadPool& pool);

// Plain loops.
void qmatmul_reference(const QMatmulShape& shape, const QMatmulParams& params, const uint8_t* a, const uint8_t* b, void* c);

// Positions of one batch matrix of the output in the operands, in matrices.
void qmatmul_batch(const QMatmulShape& shape, int64_t index, int64_t* a_matrix, int64_t* b_matrix);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QMATMUL_QMATMUL_H_
