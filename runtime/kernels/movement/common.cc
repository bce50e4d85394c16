#include "kernels/movement/common.h"

#include <algorithm>

#include "base/arena.h"

namespace netsuke::movement {

Status check_inputs(const BuildArgs& args, size_t required, size_t all) {
  if (args.inputs.size() != all || all == 0) {
    return error(Code::kCorruptFile, "%zu inputs, expected %zu (\"\" for an absent one)", args.inputs.size(), all);
  }
  for (size_t i = 0; i < required; ++i) {
    if (!args.inputs[i].present) return error(Code::kCorruptFile, "input %zu is missing", i);
  }
  return Status();
}

Status check_outputs(const BuildArgs& args, int least, int most) {
  if (args.n_outputs >= least && args.n_outputs <= most) return Status();
  return error(Code::kCorruptFile, "%d outputs, expected %d to %d", args.n_outputs, least, most);
}

bool given(const Tensor* in, int n_in, int i) { return i < n_in && in[i].present; }

Status read_known(const Tensor& tensor, const char* what, std::vector<int64_t>* out) {
  if (tensor.dtype != DType::kI64) return error(Code::kInvalidArgument, "%s has dtype %s, expected i64", what, dtype_name(tensor.dtype));
  if (tensor.shape.rank > 1) return error(Code::kInvalidArgument, "%s has rank %d, expected 0 or 1", what, tensor.shape.rank);
  if (tensor.data == nullptr) {
    return error(Code::kUnsupported, "%s depends on the contents of an input; it must be computable from shapes alone", what);
  }
  const auto* values = tensor.as<const int64_t>();
  out->assign(values, values + tensor.shape.elements());
  return Status();
}

Status resolve_axis(int64_t axis, int rank, int* out) {
  if (axis < -rank || axis >= rank) {
    return error(Code::kInvalidArgument, "axis %lld of a tensor of rank %d", static_cast<long long>(axis), rank);
  }
  *out = static_cast<int>(axis < 0 ? axis + rank : axis);
  return Status();
}

int64_t extent(const Shape& shape, int begin, int end) {
  int64_t product = 1;
  for (int d = begin; d < end; ++d) product *= shape.dim[d];
  return product;
}

void dense_strides(const Shape& shape, int64_t* strides) {
  int64_t step = 1;
  for (int d = shape.rank - 1; d >= 0; --d) {
    strides[d] = step;
    step *= shape.dim[d];
  }
}

Status set_output(DType dtype, const std::vector<int64_t>& dims, Tensor* out) {
  if (dims.size() > kMaxRank) return error(Code::kInvalidArgument, "a result of rank %zu; at most 8 is possible", dims.size());
  out->dtype = dtype;
  out->shape = Shape();
  int64_t bound = 1;
  for (int64_t dim : dims) {
    if (dim < 0) return error(Code::kInvalidArgument, "a result with the negative dimension %lld", static_cast<long long>(dim));
    if (!checked_mul(bound, std::max<int64_t>(dim, 1), &bound) || bound > (int64_t{1} << 62)) {
      return error(Code::kOutOfMemory, "a result with too many elements");
    }
    out->shape.dim[out->shape.rank++] = dim;
  }
  return Status();
}

}  // namespace netsuke::movement
