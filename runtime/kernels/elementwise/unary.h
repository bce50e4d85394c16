// Functions of one float, as an operator (`unary`) and as the activation fused into conv and linear.
#ifndef NETSUKE_KERNELS_ELEMENTWISE_UNARY_H_
#define NETSUKE_KERNELS_ELEMENTWISE_UNARY_H_

#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/op.h"

namespace netsuke {

// name in the program, uses alpha, uses beta, default alpha, default beta. `not` and `isnan` make bool and are not listed.
#define NETSUKE_UNARY_FNS(X)                                                                                     \
  X(abs, 0, 0, 0, 0) X(ceil, 0, 0, 0, 0) X(clip, 1, 1, -__builtin_inff(), __builtin_inff()) X(cos, 0, 0, 0, 0)   \
  X(elu, 1, 0, 1.0f, 0) X(erf, 0, 0, 0, 0) X(exp, 0, 0, 0, 0) X(floor, 0, 0, 0, 0) X(gelu, 0, 0, 0, 0)           \
  X(gelu_tanh, 0, 0, 0, 0) X(hard_sigmoid, 1, 1, 0.2f, 0.5f) X(hard_swish, 0, 0, 0, 0) X(identity, 0, 0, 0, 0)   \
  X(leaky_relu, 1, 0, 0.01f, 0) X(log, 0, 0, 0, 0) X(mish, 0, 0, 0, 0) X(neg, 0, 0, 0, 0)                        \
  X(reciprocal, 0, 0, 0, 0) X(relu, 0, 0, 0, 0) X(round, 0, 0, 0, 0) X(sigmoid, 0, 0, 0, 0) X(sign, 0, 0, 0, 0)  \
  X(silu, 0, 0, 0, 0) X(sin, 0, 0, 0, 0) X(softplus, 0, 0, 0, 0) X(sqrt, 0, 0, 0, 0) X(tanh, 0, 0, 0, 0)

enum class UnaryFn : int {
#define X(name, ...) name,
  NETSUKE_UNARY_FNS(X)
#undef X
      count
};

using UnaryRow = void (*)(const float* x, float* y, int64_t n, float alpha, float beta);  // y may be x

struct UnaryKernels {
  UnaryRow rows[static_cast<int>(UnaryFn::count)];
  // numerics.md section 2 with lo = 0, hi = 255
  void (*quantize)(const float* x, uint8_t* q, int64_t n, float scale, int32_t zero);
};
NETSUKE_KERNEL_TABLES(UnaryKernels, unary_kernels)

struct Activation {
  UnaryFn fn = UnaryFn::identity;
  float alpha = 0, beta = 0;
  bool none() const { return fn == UnaryFn::identity; }
  // relu and clip are a clamp, which matrix kernels apply while they store.
  bool clamp(float* lo, float* hi) const;
};

// Reads attribute `key` ("act" or "fn") with its alpha and beta. "none" is identity where `key` is "act".
Status read_activation(const Attrs& attrs, const char* key, Activation* out);

// The optional attributes quant_scale and quant_zero: the float result is quantized to u8.
struct OutputQuant {
  bool on = false;
  float scale = 1;
  int32_t zero = 0;
};
Status read_output_quant(const Attrs& attrs, OutputQuant* out);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_ELEMENTWISE_UNARY_H_
