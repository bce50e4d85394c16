#include "kernels/conv/geometry.h"

#include <algorithm>

#include "kernels/base/shapes.h"

namespace netsuke {
namespace {

// Largest value of any attribute and dimension: products of a few of them stay far inside int64.
constexpr int64_t kLimit = int64_t{1} << 24;

Status read_list(const Attrs& attrs, const char* key, int64_t least, size_t count, int64_t* out, bool optional) {
  std::vector<int64_t> list;
  if (optional) NETSUKE_TRY(attrs.get_or(key, std::vector<int64_t>(count, 1), &list));
  else NETSUKE_TRY(attrs.get(key, &list));
  if (list.size() != count) {
    return error(Code::kInvalidArgument, "%s has %d elements, expected %d", key, static_cast<int>(list.size()), static_cast<int>(count));
  }
  for (size_t i = 0; i < count; ++i) {
    if (list[i] < least || list[i] > kLimit) {
      return error(Code::kInvalidArgument, "%s has element %lld, expected %lld ... %lld", key, static_cast<long long>(list[i]),
                   static_cast<long long>(least), static_cast<long long>(kLimit));
    }
    out[i] = list[i];
  }
  return Status();
}

}  // namespace

Status read_conv_attrs(const Attrs& attrs, ConvAttrs* out) {
  NETSUKE_TRY(read_list(attrs, "strides", 1, 2, out->stride, false));
  NETSUKE_TRY(read_list(attrs, "pads", 0, 4, out->pad, false));
  NETSUKE_TRY(read_list(attrs, "dilations", 1, 2, out->dilation, true));
  NETSUKE_TRY(attrs.get_or("groups", int64_t{1}, &out->groups));
  if (out->groups < 1) return error(Code::kInvalidArgument, "groups is %lld, expected at least 1", static_cast<long long>(out->groups));
  return Status();
}

Status conv_geometry(const ConvAttrs& attrs, int64_t kh, int64_t kw, const Shape& x, ConvGeometry* out) {
  *out = {x.dim[0], x.dim[1], x.dim[2], 0, 0, kh, kw, attrs.stride[0], attrs.stride[1], attrs.pad[0], attrs.pad[1], attrs.dilation[0], attrs.dilation[1]};
  const int64_t height = out->h + attrs.pad[0] + attrs.pad[2] - ((kh - 1) * out->dh + 1);
  const int64_t width = out->w + attrs.pad[1] + attrs.pad[3] - ((kw - 1) * out->dw + 1);
  if (out->h > kLimit || out->w > kLimit) return error(Code::kInvalidArgument, "x has shape %s, too large", shape_text(x).c_str());
  if (out->h < 1 || out->w < 1) return error(Code::kInvalidArgument, "x has shape %s, without positions", shape_text(x).c_str());
  if (height < 0 || width < 0) {
    return error(Code::kInvalidArgument, "x has shape %s, smaller than the kernel %lldx%lld with its dilation", shape_text(x).c_str(),
                 static_cast<long long>(kh), static_cast<long long>(kw));
  }
  out->oh = height / out->sh + 1;
  out->ow = width / out->sw + 1;
  return Status();
}

void conv_pointers(const void* context, int64_t row, int64_t count, const float** out) {
  const ConvPointers& c = *static_cast<const ConvPointers*>(context);
  const ConvGeometry& g = c.g;
  const int64_t right = g.dw * c.pixel, down = g.dh * g.w * c.pixel;
  int64_t ox = row % g.ow, oy = row / g.ow % g.oh, n = row / g.ow / g.oh;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t y0 = oy * g.sh - g.top, x0 = ox * g.sw - g.left;
    // Most windows lie inside: a third of the instructions, 3 % of a 3x3 layer with 64 channels.
    const bool inside = y0 >= 0 && y0 + (g.kh - 1) * g.dh < g.h && x0 >= 0 && x0 + (g.kw - 1) * g.dw < g.w;
    const int64_t first = ((n * g.h + y0) * g.w + x0) * c.pixel;
    for (int64_t ky = 0; inside && ky < g.kh; ++ky) {
      for (int64_t kx = 0; kx < g.kw; ++kx) *out++ = c.x + (first + ky * down + kx * right);
    }
    for (int64_t ky = 0; !inside && ky < g.kh; ++ky) {
      const int64_t y = y0 + ky * g.dh;
      const bool row_inside = y >= 0 && y < g.h;
      const float* line = c.x + (n * g.h + (row_inside ? y : 0)) * g.w * c.pixel;
      for (int64_t kx = 0; kx < g.kw; ++kx) {
        const int64_t x = x0 + kx * g.dw;
        *out++ = row_inside && x >= 0 && x < g.w ? line + x * c.pixel : c.zero;
      }
    }
    if (++ox == g.ow) {
      ox = 0;
      if (++oy == g.oh) {
        oy = 0;
        ++n;
      }
    }
  }
}

ConvEdges conv_edges(const ConvGeometry& g) {
  ConvEdges e;
  e.left = std::min(g.ow, (g.left + g.sw - 1) / g.sw);
  const int64_t room = g.w - g.kw + g.left;  // the largest ox * stride whose window ends inside
  e.right = room < 0 ? e.left : std::max(e.left, std::min(g.ow, room / g.sw + 1));
  e.left_pixels = e.left > 0 ? (e.left - 1) * g.sw + g.kw : 0;
  e.pixels = e.left_pixels + (e.right < g.ow ? (g.ow - 1 - e.right) * g.sw + g.kw : 0);
  return e;
}

void conv_row_pointers(const void* context, int64_t row, int64_t count, const float** out) {
  const ConvRowPointers& c = *static_cast<const ConvRowPointers*>(context);
  const ConvGeometry& g = c.g;
  const ConvEdges& e = c.edges;
  int64_t ox = row % g.ow, oy = row / g.ow % g.oh, n = row / g.ow / g.oh;
  for (int64_t i = 0; i < count; ++i) {
    // Where the window begins in a row of x or of the copied edges.
    const bool inner = ox >= e.left && ox < e.right;
    const int64_t at = inner ? ox * g.sw - g.left : (ox < e.left ? ox * g.sw : e.left_pixels + (ox - e.right) * g.sw);
    const int64_t width = inner ? g.w : e.pixels, y0 = oy * g.sh - g.top, down = g.dh * width * c.pixel;
    const float* from = inner ? c.x : c.border;
    int64_t offset = ((n * g.h + y0) * width + at) * c.pixel;
    for (int64_t ky = 0, y = y0; ky < g.kh; ++ky, y += g.dh, offset += down) *out++ = y >= 0 && y < g.h ? from + offset : c.zero;
    if (++ox == g.ow) {
      ox = 0;
      if (++oy == g.oh) {
        oy = 0;
        ++n;
      }
    }
  }
}

}  // namespace netsuke
