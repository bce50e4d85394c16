#include "kernels/quantize/quantize.h"

namespace netsuke {

void quantize_reference(const float* x, uint8_t* y, int64_t n, float scale, const Codes& codes) {
  for (int64_t i = 0; i < n; ++i) y[i] = requantize_one(x[i] / scale, codes);
}

void dequantize_reference(const uint8_t* x, float* y, int64_t n, float scale, int32_t zero) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(static_cast<int32_t>(x[i]) - zero) * scale;
}

}  // namespace netsuke
