// Convolution in groups of 1 (depthwise), 2 or 4 channels, as many inputs as outputs: channels side by side in a vector.
#ifndef NETSUKE_KERNELS_CONV_DEPTHWISE_H_
#define NETSUKE_KERNELS_CONV_DEPTHWISE_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

// Output pixels in a straight line that have the same taps inside the image.
struct DepthwiseRun {
  const float* const* a;  // [taps] input of the first pixel; the next pixel's is step floats on
  const float* const* w;  // [taps] weights [group][w_stride], for input i of a group first; zeros beyond channels
  int64_t taps, pixels, step, channels;
  int64_t group, w_stride;  // channels of a group; floats, a multiple of 16
  const float* bias;      // null or padded like w
  const float* r;         // null or like y
  float* y;
  int64_t y_step;         // floats between output pixels
  float lo, hi;
};

struct DepthwiseKernels {
  // Each output is one fma chain over the taps and the inputs of its group in order, from 0; then + bias, + r, clamp.
  void (*run)(const DepthwiseRun& run);
  const char* name;
};
NETSUKE_KERNEL_TABLES(DepthwiseKernels, depthwise_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_CONV_DEPTHWISE_H_
