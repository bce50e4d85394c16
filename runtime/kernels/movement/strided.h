// Copying with strides: the one loop behind transpose, slice, expand, tile, depth_to_space and space_to_depth.
#ifndef NETSUKE_KERNELS_MOVEMENT_STRIDED_H_
#define NETSUKE_KERNELS_MOVEMENT_STRIDED_H_

#include "kernels/op.h"

namespace netsuke {

constexpr int kMaxStridedRank = 2 * kMaxRank;  // tile doubles the rank

// The destination is dense with these dimensions, row-major; strides are of the source, in elements, and may be 0 or negative.
struct Strided {
  int rank = 0;
  int64_t dim[kMaxStridedRank] = {};
  int64_t stride[kMaxStridedRank] = {};
  void add(int64_t size, int64_t step) {
    dim[rank] = size;
    stride[rank++] = step;
  }
};

// element: 1, 2, 4 or 8 bytes. src points at the element of index 0, 0, ...; src and dst do not overlap.
void strided_copy(const void* src, void* dst, Strided layout, size_t element, ThreadPool& pool);

// dst[0..bytes) = src[0..bytes) on several threads when that is large.
void parallel_copy(const void* src, void* dst, int64_t bytes, ThreadPool& pool);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_MOVEMENT_STRIDED_H_
