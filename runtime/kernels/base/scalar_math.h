// sin, cos and pow of one float, computed in double and rounded once: additions, multiplications and one division in a written
// order, so every machine gives the same bits. (The C library's versions use fused operations where the CPU has them.)
#ifndef NETSUKE_KERNELS_BASE_SCALAR_MATH_H_
#define NETSUKE_KERNELS_BASE_SCALAR_MATH_H_

namespace netsuke {

float sin_f32(float x);
float cos_f32(float x);
float pow_f32(float x, float y);  // special cases as in C: pow(x, 0) = 1, pow(1, y) = 1, negative x needs an integer y

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_SCALAR_MATH_H_
