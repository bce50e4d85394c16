// Where a convolution reads: spatial sizes, strides, padding, dilation of NHWC tensors.
#ifndef NETSUKE_KERNELS_CONV_GEOMETRY_H_
#define NETSUKE_KERNELS_CONV_GEOMETRY_H_

#include <cstdint>
#include <vector>

#include "kernels/op.h"

namespace netsuke {

struct ConvAttrs {
  int64_t stride[2], pad[4], dilation[2], groups;  // pad: top, left, bottom, right
};
Status read_conv_attrs(const Attrs& attrs, ConvAttrs* out);

struct ConvGeometry {
  int64_t n, h, w, oh, ow;
  int64_t kh, kw, sh, sw, top, left, dh, dw;
};
// Output sizes of a convolution over x [N, H, W, C]; refuses an empty or overflowing output.
Status conv_geometry(const ConvAttrs& attrs, int64_t kh, int64_t kw, const Shape& x, ConvGeometry* out);

// The pointer table of an indirect convolution: out[i * kh * kw + tap] for output pixels [row, row + count) in N, OH, OW order.
struct ConvPointers {
  ConvGeometry g;
  const float* x;     // [n, h, w, pixel]
  const float* zero;  // pixel zeros: what padded taps read
  int64_t pixel;      // floats
};
void conv_pointers(const void* context, int64_t row, int64_t count, const float** out);

// Outputs [0, left) and [right, ow) of a line have windows that reach over the border of the image. Their windows lie in copies of the
// image's edges with zeros beside them: `left_pixels` for the first, the rest of `pixels` for the second, for every image row.
struct ConvEdges {
  int64_t left, right, left_pixels, pixels;
};
ConvEdges conv_edges(const ConvGeometry& g);

// The same for rows merged over the width of the kernel: out[i * kh + ky]; a tap is kw * pixel neighbouring floats.
struct ConvRowPointers {
  ConvGeometry g;
  ConvEdges edges;
  const float* x;       // [n, h, w, pixel]
  const float* border;  // [n, h, edges.pixels, pixel]
  const float* zero;    // kw * pixel zeros
  int64_t pixel;
};
void conv_row_pointers(const void* context, int64_t row, int64_t count, const float** out);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_CONV_GEOMETRY_H_
