// The inner loop of linear resizing: one output pixel from its four neighbours.
#ifndef NETSUKE_KERNELS_RESIZE_RESIZE_H_
#define NETSUKE_KERNELS_RESIZE_RESIZE_H_

#include <cstdint>

#include "kernels/base/isa.h"

namespace netsuke {

// upper = a + across (b - a), lower = c + across (d - c), y = upper + down (lower - upper), for each channel.
template <typename T>
struct ResizePixel {
  const T *a, *b, *c, *d;
  float across, down;
  T* y;  // u8: rounded to nearest even
  int64_t channels;
};

struct ResizeKernels {
  void (*linear_f32)(const ResizePixel<float>& pixel);
  void (*linear_u8)(const ResizePixel<uint8_t>& pixel);
  const char* name;
};
NETSUKE_KERNEL_TABLES(ResizeKernels, resize_kernels)

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_RESIZE_RESIZE_H_
