// Windows of the pooling operators: reading, checking, output sizes, and which taps of a window lie inside the input.
#ifndef NETSUKE_KERNELS_POOL_GEOMETRY_H_
#define NETSUKE_KERNELS_POOL_GEOMETRY_H_

#include <cstdint>

#include "kernels/base/codes.h"

namespace netsuke {

// [0] is vertical, [1] horizontal; pads are [top, left, bottom, right].
struct PoolWindow {
  int64_t kernel[2] = {1, 1}, strides[2] = {1, 1}, pads[4] = {}, dilations[2] = {1, 1};
  bool ceil = false, count_include_pad = false;
};

struct PoolShape {
  int64_t n = 0, h = 0, w = 0, c = 0, out_h = 0, out_w = 0;
};

// Attributes kernel, strides, pads, ceil = 0; with dilated also dilations = [1, 1]; with counted also count_include_pad = 0.
Status read_window(const Attrs& attrs, bool dilated, bool counted, PoolWindow* window);

// Output sizes by the rule "Windows" of docs/format.md: a window that ceil adds must start inside the input or the padding
// before it (PyTorch's rule, also ONNX's since opset 22).
Status pool_shape(const PoolWindow& window, const Shape& x, PoolShape* shape, Shape* out);

// Rows of the output in all images, cut for threads; body(image, first row, last row).
template <typename Body>
void for_pool_rows(ThreadPool& pool, const PoolShape& shape, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, shape.out_w * shape.c));
  for_ranges(pool, shape.n * shape.out_h, grain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row / shape.out_h, row % shape.out_h);
  });
}

namespace {

// The taps [first, last) of one axis that lie inside the input; the others are padding. start may be negative.
inline __attribute__((always_inline)) void pool_taps(int64_t start, int64_t size, int64_t kernel, int64_t dilation, int64_t* first,
                                                     int64_t* last) {
  *first = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
  const int64_t inside = start + (kernel - 1) * dilation < size ? kernel : (size - start + dilation - 1) / dilation;
  *last = inside > *first ? inside : *first;
}

// How many positions an average divides by along one axis (no dilation): those inside the input, or inside the padded input.
inline __attribute__((always_inline)) int64_t pool_count(int64_t start, int64_t size, int64_t pad_end, int64_t kernel, int64_t inside,
                                                         bool include_pad) {
  if (!include_pad) return inside;
  const int64_t padded = size + pad_end - start;
  return padded < kernel ? padded : kernel;
}

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_POOL_GEOMETRY_H_
