// qadd and qmul with NumPy broadcasting, section 6 of docs/numerics.md.
//
// There is one kernel an operator and instruction set: two contiguous operands of the same length. Broadcasting is done by
// repeating the short operand into a small buffer (a channel vector [N,1,1,C] against [N,H,W,C] becomes runs of some
// thousand elements), so that ragged ends are met once a run and not once a pixel.
#ifndef NETSUKE_KERNELS_QELEMENTWISE_QELEMENTWISE_H_
#define NETSUKE_KERNELS_QELEMENTWISE_QELEMENTWISE_H_

#include <cstdint>

#include "kernels/base/codes.h"
#include "kernels/base/isa.h"

namespace netsuke {

struct QBinaryParams {
  int32_t a_zero = 0, b_zero = 0;
  float a_mult = 0.0f, b_mult = 0.0f;  // qadd
  float mult = 0.0f;                   // qmul
  Codes codes;
  const int64_t *a_table = nullptr, *b_table = nullptr;  // qadd_dyadic: 256 scaled and rounded values each
  bool fused = false;  // qadd with an offset, which carries the zero points
  float offset = 0.0f;
};

using QBinaryRow = void (*)(const uint8_t* a, const uint8_t* b, uint8_t* y, int64_t n, const QBinaryParams& params);

struct QBinaryKernels {
  const char* add_name;
  const char* mul_name;
  // y may be a or b.
  QBinaryRow add, mul, add_fused;
};

NETSUKE_KERNEL_TABLES(QBinaryKernels, qelementwise_kernels)

// One output element, the definition.
uint8_t qadd_one(uint8_t a, uint8_t b, const QBinaryParams& params);
uint8_t qmul_one(uint8_t a, uint8_t b, const QBinaryParams& params);
void qbinary_reference(bool mul, const Shape& a_shape, const uint8_t* a, const Shape& b_shape, const uint8_t* b, const Shape& out,
                       uint8_t* y, const QBinaryParams& params);

void qbinary_run(QBinaryRow row, const Shape& a_shape, const uint8_t* a, const Shape& b_shape, const uint8_t* b, const Shape& out,
                 uint8_t* y, const QBinaryParams& params, ThreadPool& pool);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QELEMENTWISE_QELEMENTWISE_H_
