// Sums, products and extrema of rows and columns of floats.
#ifndef NETSUKE_KERNELS_REDUCE_REDUCE_H_
#define NETSUKE_KERNELS_REDUCE_REDUCE_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

// What is folded: x, |x|, x^2 or exp(x - shift) by +, x by *, smaller or larger of two.
enum class Fold : int { sum, sum_abs, sum_squares, sum_exp, product, smallest, largest, count };

struct ReduceKernels {
  // One value from n contiguous elements.
  float (*rows[static_cast<int>(Fold::count)])(const float* x, int64_t n, float shift);
  // y[c] from the n elements x[i * stride + c], for c < columns. shift has one value a column.
  void (*columns[static_cast<int>(Fold::count)])(const float* x, int64_t n, int64_t stride, const float* shift, float* y, int64_t columns);
  void (*log)(const float* x, float* y, int64_t n);
  const char* name;
};
NETSUKE_KERNEL_TABLES(ReduceKernels, reduce_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_REDUCE_REDUCE_H_
