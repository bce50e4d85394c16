#include "kernels/fgemm/bf16.h"

#include <cstring>

namespace netsuke {
namespace {

uint32_t flush(uint32_t b) { return (b & 0x7f80) == 0 ? b & 0x8000 : b; }

uint32_t round_to_bf16(float v) {
  uint32_t b;
  memcpy(&b, &v, sizeof(b));
  if ((b & 0x7fffffff) > 0x7f800000) return (b >> 16) | 0x40;  // a NaN stays one
  return flush((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

}  // namespace

void bf16_pairs(const uint16_t* x, int64_t rows, int64_t channels, uint32_t* out) {
  for (int64_t r = 0; r < rows; ++r, x += channels) {
    int64_t i = 0;
    for (; i + 1 < channels; i += 2) *out++ = flush(x[i]) | flush(x[i + 1]) << 16;
    if (i < channels) *out++ = flush(x[i]);
  }
}

void f32_to_bf16_pairs(const float* x, int64_t rows, int64_t channels, uint32_t* out) {
  for (int64_t r = 0; r < rows; ++r, x += channels) {
    int64_t i = 0;
    for (; i + 1 < channels; i += 2) *out++ = round_to_bf16(x[i]) | round_to_bf16(x[i + 1]) << 16;
    if (i < channels) *out++ = round_to_bf16(x[i]);
  }
}

const FgemmKernels& fgemm_bf16_kernels(Isa isa) { return fgemm_kernels(isa); }

}  // namespace netsuke
