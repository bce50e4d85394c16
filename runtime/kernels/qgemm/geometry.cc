// Shapes of a layer.
#include <algorithm>

#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int64_t kMaxDim = 0x7fffffff;

}  // namespace

Status output_extent(const Geometry& g, Extent* e) {
  const int64_t span_h = (g.kh - 1) * g.dil_h + 1, span_w = (g.kw - 1) * g.dil_w + 1;
  if (e->h < 1 || e->w < 1) return error(Code::kInvalidArgument, "the input has no positions");
  const int64_t height = e->h + g.pad_top + g.pad_bottom, width = e->w + g.pad_left + g.pad_right;
  if (height < span_h || width < span_w) {
    return error(Code::kInvalidArgument, "the kernel spans %lld x %lld, the padded input only %lld x %lld", static_cast<long long>(span_h),
                 static_cast<long long>(span_w), static_cast<long long>(height), static_cast<long long>(width));
  }
  e->oh = (height - span_h) / g.stride_h + 1;
  e->ow = (width - span_w) / g.stride_w + 1;
  int64_t bytes = 0, rows = 0;
  if (!checked_mul(height, width, &bytes) || !checked_mul(bytes, std::max<int64_t>(e->n, 1) * 4, &bytes) ||
      !checked_mul(bytes, g.in_channels, &bytes) || !checked_mul(e->oh, e->ow, &rows) ||
      !checked_mul(rows, std::max<int64_t>(e->n, 1) * 4, &rows) || !checked_mul(rows, g.out_channels, &rows) ||
      height > kMaxDim || width > kMaxDim || bytes > (int64_t{1} << 46) || rows > (int64_t{1} << 46)) {
    return error(Code::kInvalidArgument, "the padded input of %lld x %lld x %lld x %lld is too large", static_cast<long long>(e->n),
                 static_cast<long long>(height), static_cast<long long>(width), static_cast<long long>(g.in_channels));
  }
  return Status();
}

}  // namespace qgemm
}  // namespace netsuke
