#include <cmath>

#include "kernels/qelementwise/qelementwise.h"

namespace netsuke {
namespace {

// Offset of a flat output position in an operand that broadcasts to the output.
int64_t operand_offset(int64_t position, const Shape& out, const Shape& operand) {
  int64_t offset = 0, step = 1;
  for (int i = out.rank - 1, j = operand.rank - 1; j >= 0; --i, --j) {
    if (operand.dim[j] != 1) offset += position % out.dim[i] * step;
    position /= out.dim[i];
    step *= operand.dim[j];
  }
  return offset;
}

}  // namespace

uint8_t qadd_one(uint8_t a, uint8_t b, const QBinaryParams& params) {
  if (params.fused) {
    const float inner = std::fma(static_cast<float>(b), params.b_mult, params.offset);
    return requantize_one(std::fma(static_cast<float>(a), params.a_mult, inner), {0, params.codes.lo, params.codes.hi});
  }
  const float t = static_cast<float>(a - params.a_zero) * params.a_mult;
  const float u = static_cast<float>(b - params.b_zero) * params.b_mult;
  return requantize_one(t + u, params.codes);
}

uint8_t qmul_one(uint8_t a, uint8_t b, const QBinaryParams& params) {
  return requantize_one(static_cast<float>((a - params.a_zero) * (b - params.b_zero)) * params.mult, params.codes);
}

void qbinary_reference(bool mul, const Shape& a_shape, const uint8_t* a, const Shape& b_shape, const uint8_t* b, const Shape& out,
                       uint8_t* y, const QBinaryParams& params) {
  for (int64_t i = 0; i < out.elements(); ++i) {
    const uint8_t av = a[operand_offset(i, out, a_shape)], bv = b[operand_offset(i, out, b_shape)];
    y[i] = mul ? qmul_one(av, bv, params) : qadd_one(av, bv, params);
  }
}

}  // namespace netsuke
