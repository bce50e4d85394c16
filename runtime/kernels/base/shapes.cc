#include "kernels/base/shapes.h"

namespace netsuke {

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank; ++i) text += (i ? ", " : "") + std::to_string(shape.dim[i]);
  return text + "]";
}

Shape make_shape(std::initializer_list<int64_t> dims) {
  Shape shape;
  for (int64_t dim : dims) shape.dim[shape.rank++] = dim;
  return shape;
}

int64_t product(const Shape& shape, int begin, int end) {
  int64_t n = 1;
  for (int i = begin; i < end; ++i) n *= shape.dim[i];
  return n;
}

Status broadcast(const Shape& a, const Shape& b, Shape* out) {
  const int rank = a.rank > b.rank ? a.rank : b.rank;
  Shape shape;
  shape.rank = rank;
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank), ib = i - (rank - b.rank);
    const int64_t da = ia < 0 ? 1 : a.dim[ia], db = ib < 0 ? 1 : b.dim[ib];
    if (da != db && da != 1 && db != 1) {
      return error(Code::kInvalidArgument, "shapes %s and %s do not broadcast", shape_text(a).c_str(), shape_text(b).c_str());
    }
    shape.dim[i] = da == 1 ? db : da;
  }
  *out = shape;
  return Status();
}

Status normalize_axis(int64_t axis, int rank, int* out) {
  if (axis < -rank || axis >= rank) {
    return error(Code::kInvalidArgument, "axis %lld is outside a tensor of rank %d", static_cast<long long>(axis), rank);
  }
  *out = static_cast<int>(axis < 0 ? axis + rank : axis);
  return Status();
}

Status expect_inputs(int got, int least, int most) {
  if (got >= least && got <= most) return Status();
  return error(Code::kInvalidArgument, "%d inputs, expected %d to %d", got, least, most);
}

Status expect_dtype(const Tensor& tensor, const char* name, std::initializer_list<DType> allowed) {
  std::string names;
  for (DType dtype : allowed) {
    if (dtype == tensor.dtype) return Status();
    names += (names.empty() ? "" : " or ") + std::string(dtype_name(dtype));
  }
  return error(Code::kInvalidArgument, "%s has dtype %s, expected %s", name, dtype_name(tensor.dtype), names.c_str());
}

}  // namespace netsuke
