// Depthwise convolution: one filter a channel, channels side by side in a vector.
#ifndef NETSUKE_KERNELS_CONV_DEPTHWISE_H_
#define NETSUKE_KERNELS_CONV_DEPTHWISE_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

struct DepthwiseRow {
  const float* const* a;  // a[pixel * taps + tap]: channels floats
  int64_t pixels, taps, channels;
  const float* w;         // [taps, w_stride], zeros beyond channels
  int64_t w_stride;       // multiple of 16
  const float* bias;      // null or w_stride floats
  const float* r;         // null or [pixels, channels]
  float* y;               // [pixels, channels]
  float lo, hi;
};

struct DepthwiseKernels {
  // Each output is one fma chain over the taps in order, from 0; then + bias, + r, clamp.
  void (*row)(const DepthwiseRow& row);
  const char* name;
};
NETSUKE_KERNEL_TABLES(DepthwiseKernels, depthwise_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_CONV_DEPTHWISE_H_
