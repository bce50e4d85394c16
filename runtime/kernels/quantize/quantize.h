// quantize and dequantize, section 2 of docs/numerics.md.
#ifndef NETSUKE_KERNELS_QUANTIZE_QUANTIZE_H_
#define NETSUKE_KERNELS_QUANTIZE_QUANTIZE_H_

#include <cstdint>

#include "kernels/base/codes.h"
#include "kernels/base/isa.h"

namespace netsuke {

struct QuantizeKernels {
  const char* quantize_name;
  const char* dequantize_name;
  // y[i] = int(rne(clamp(x[i] / scale, lo - zero, hi - zero))) + zero
  void (*quantize)(const float* x, uint8_t* y, int64_t n, float scale, const Codes& codes);
  // y[i] = f32(x[i] - zero) * scale
  void (*dequantize)(const uint8_t* x, float* y, int64_t n, float scale, int32_t zero);
};

NETSUKE_KERNEL_TABLES(QuantizeKernels, quantize_kernels)

// Plain loops, the definition that the tables are compared with.
void quantize_reference(const float* x, uint8_t* y, int64_t n, float scale, const Codes& codes);
void dequantize_reference(const uint8_t* x, float* y, int64_t n, float scale, int32_t zero);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QUANTIZE_QUANTIZE_H_
