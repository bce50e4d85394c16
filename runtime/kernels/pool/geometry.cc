#include "kernels/pool/geometry.h"

#include <vector>

namespace netsuke {
namespace {

constexpr int64_t kMost = 1 << 20;  // of any window attribute, so that no index arithmetic can overflow

Status read_list(const char* key, const std::vector<int64_t>& values, size_t length, int64_t least, int64_t* out) {
  bool good = values.size() == length;
  for (size_t i = 0; good && i < length; ++i) good = values[i] >= least && values[i] <= kMost;
  if (!good) {
    return error(Code::kInvalidArgument, "attribute %s: allowed %zu integers from %lld to %lld", key, length, static_cast<long long>(least),
                 static_cast<long long>(kMost));
  }
  for (size_t i = 0; i < length; ++i) out[i] = values[i];
  return Status();
}

Status read_flag(const Attrs& attrs, const char* key, bool* out) {
  int64_t value = 0;
  NETSUKE_TRY(attrs.get_or(key, int64_t{0}, &value));
  if (value != 0 && value != 1) return error(Code::kInvalidArgument, "attribute %s is %lld, allowed 0 or 1", key, static_cast<long long>(value));
  *out = value == 1;
  return Status();
}

int64_t extent(const PoolWindow& window, int axis) { return (window.kernel[axis] - 1) * window.dilations[axis] + 1; }

// 0 when the window does not fit.
int64_t output_size(const PoolWindow& window, int axis, int64_t size) {
  const int64_t stride = window.strides[axis], begin = window.pads[axis], end = window.pads[axis + 2];
  const int64_t span = size + begin + end - extent(window, axis);
  if (span < 0) return 0;
  const int64_t out = span / stride + 1;
  return window.ceil && span % stride != 0 && out * stride < size + begin ? out + 1 : out;
}

}  // namespace

Status read_window(const Attrs& attrs, bool dilated, bool counted, PoolWindow* window) {
  std::vector<int64_t> list;
  NETSUKE_TRY(attrs.get("kernel", &list));
  NETSUKE_TRY(read_list("kernel", list, 2, 1, window->kernel));
  NETSUKE_TRY(attrs.get("strides", &list));
  NETSUKE_TRY(read_list("strides", list, 2, 1, window->strides));
  NETSUKE_TRY(attrs.get("pads", &list));
  NETSUKE_TRY(read_list("pads", list, 4, 0, window->pads));
  if (dilated) {
    NETSUKE_TRY(attrs.get_or("dilations", std::vector<int64_t>{1, 1}, &list));
    NETSUKE_TRY(read_list("dilations", list, 2, 1, window->dilations));
  }
  NETSUKE_TRY(read_flag(attrs, "ceil", &window->ceil));
  if (counted) NETSUKE_TRY(read_flag(attrs, "count_include_pad", &window->count_include_pad));
  for (int i = 0; i < 4; ++i) {
    const int64_t covers = extent(*window, i % 2);
    if (window->pads[i] < covers) continue;
    return error(Code::kInvalidArgument, "attribute pads[%d] is %lld, allowed less than the %lld positions that the window covers", i,
                 static_cast<long long>(window->pads[i]), static_cast<long long>(covers));
  }
  return Status();
}

Status pool_shape(const PoolWindow& window, const Shape& x, PoolShape* shape, Shape* out) {
  if (x.rank != 4 || x.dim[1] < 1 || x.dim[2] < 1) {
    return error(Code::kInvalidArgument, "x has shape %s, allowed [N, H, W, C] with H and W at least 1", shape_text(x).c_str());
  }
  *shape = PoolShape{x.dim[0], x.dim[1], x.dim[2], x.dim[3], output_size(window, 0, x.dim[1]), output_size(window, 1, x.dim[2])};
  if (shape->out_h < 1 || shape->out_w < 1) {
    return error(Code::kInvalidArgument, "x has shape %s, smaller with its padding than the window of %lld x %lld", shape_text(x).c_str(),
                 static_cast<long long>(extent(window, 0)), static_cast<long long>(extent(window, 1)));
  }
  out->rank = 4;
  out->dim[0] = shape->n;
  out->dim[1] = shape->out_h;
  out->dim[2] = shape->out_w;
  out->dim[3] = shape->c;
  return Status();
}

}  // namespace netsuke
