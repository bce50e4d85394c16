// Functions of two numbers, row by row.
#ifndef NETSUKE_KERNELS_ELEMENTWISE_BINARY_H_
#define NETSUKE_KERNELS_ELEMENTWISE_BINARY_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

// The f32 functions with a vector form; pow, mod and the logical ones are scalar code.
#define NETSUKE_BINARY_ARITHMETIC(X) X(add) X(sub) X(mul) X(div) X(min) X(max)
#define NETSUKE_BINARY_COMPARE(X) X(equal) X(less) X(less_equal) X(greater) X(greater_equal)
#define NETSUKE_BINARY_FNS(X) NETSUKE_BINARY_ARITHMETIC(X) NETSUKE_BINARY_COMPARE(X) X(pow) X(mod) X(logical_and) X(logical_or) X(logical_xor)

enum class BinaryFn : int {
#define X(name) name,
  NETSUKE_BINARY_FNS(X)
#undef X
      count
};
constexpr int kArithmeticFns = 6, kCompareFns = 5;

// a and b advance by step_a and step_b (0 or 1) elements. y may be a or b when that one advances.
using BinaryRow = void (*)(const float* a, const float* b, float* y, int64_t n, int step_a, int step_b);
using CompareRow = void (*)(const float* a, const float* b, uint8_t* y, int64_t n, int step_a, int step_b);

struct BinaryKernels {
  BinaryRow arithmetic[kArithmeticFns];
  CompareRow compare[kCompareFns];
};
NETSUKE_KERNEL_TABLES(BinaryKernels, binary_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_ELEMENTWISE_BINARY_H_
