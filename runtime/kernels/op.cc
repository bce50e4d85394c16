#include "kernels/op.h"

namespace netsuke {

size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF32: return 4;
    case DType::kBF16: return 2;
    case DType::kU8: return 1;
    case DType::kS8: return 1;
    case DType::kI32: return 4;
    case DType::kI64: return 8;
    case DType::kBool: return 1;
  }
  return 0;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kU8: return "u8";
    case DType::kS8: return "s8";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
    case DType::kBool: return "bool";
  }
  return "unknown";
}

int64_t Shape::elements() const {
  int64_t count = 1;
  for (int i = 0; i < rank; ++i) count *= dim[i];
  return count;
}

bool Shape::operator==(const Shape& other) const {
  if (rank != other.rank) return false;
  for (int i = 0; i < rank; ++i) {
    if (dim[i] != other.dim[i]) return false;
  }
  return true;
}

namespace {

int64_t tensor_bytes(const Tensor& tensor) {
  return tensor.present ? tensor.shape.elements() * static_cast<int64_t>(dtype_size(tensor.dtype)) : 0;
}

}  // namespace

Cost Op::cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const {
  Cost cost;
  for (int i = 0; i < n_in; ++i) cost.bytes_read += tensor_bytes(in[i]);
  for (int i = 0; i < n_out; ++i) cost.bytes_written += tensor_bytes(out[i]);
  return cost;
}

}  // namespace netsuke
