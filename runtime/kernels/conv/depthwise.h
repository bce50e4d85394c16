// Convolution in groups of 1 (depthwise), 2 or 4 channels, as many inputs as outputs: channels side by side in a vector.
#ifndef NETSUKE_KERNELS_CONV_DEPTHWISE_H_
#define NETSUKE_KERNELS_CONV_DEPTHWISE_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

// Output pixels in a straight line that have the same taps inside the image.
struct DepthwiseRun {
  const void* const* a;   // [taps] input of the first pixel, float or for run_bf16 bfloat16; the next pixel's is step elements on
  const float* const* w;  // [taps] weights [group][w_stride], for input i of a group first; zeros beyond channels
  int64_t taps, pixels, step, channels;
  int64_t column;           // elements between the three taps of a row, which lie behind each other; 0 when there are not three
  int64_t group, w_stride;  // channels of a group; floats, a multiple of 16
  const float* bias;      // null or padded like w
  const float* r;         // null or like y
  float* y;
  uint16_t* halves;       // null, or where results go as bfloat16 instead of y (rounded as FgemmKernels::to_bf16 does)
  int64_t y_step;         // elements between output pixels
  float lo, hi;
  bool flush;             // run_bf16: sums may become subnormal and must then be flushed to zero
};

struct DepthwiseKernels {
  // Each output is one fma chain over the taps and the inputs of its group in order, from 0; then + bias, + r, clamp.
  void (*run)(const DepthwiseRun& run);
  // The same on bfloat16 inputs, with weights that are bfloat16 numbers: of two inputs the second comes first (numerics.md section 8).
  void (*run_bf16)(const DepthwiseRun& run);
  const char* name;
};
NETSUKE_KERNEL_TABLES(DepthwiseKernels, depthwise_kernels)
// Those that convert with an instruction where the CPU has it.
const DepthwiseKernels& depthwise_bf16_kernels(Isa isa);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_CONV_DEPTHWISE_H_
