// What the movement operators share: operand checks and reading "known" integer inputs.
#ifndef NETSUKE_KERNELS_MOVEMENT_COMMON_H_
#define NETSUKE_KERNELS_MOVEMENT_COMMON_H_

#include <vector>

#include "kernels/op.h"

namespace netsuke::movement {

// The node lists `all` inputs, at least one; the first `required` are present.
Status check_inputs(const BuildArgs& args, size_t required, size_t all);
Status check_outputs(const BuildArgs& args, int least, int most);

bool given(const Tensor* in, int n_in, int i);  // an optional input that is there

// The numbers of a known i64 input of rank 0 or 1. An error names `what`.
Status read_known(const Tensor& tensor, const char* what, std::vector<int64_t>* out);

// A negative axis counts from the end.
Status resolve_axis(int64_t axis, int rank, int* out);

int64_t extent(const Shape& shape, int begin, int end);  // product of dim[begin] ... dim[end - 1]

// The row-major strides of a dense tensor, in elements.
void dense_strides(const Shape& shape, int64_t* strides);

// Sets one output to a dtype and dimensions; refuses a rank above 8, a negative dimension and a product beyond 2^62 elements.
Status set_output(DType dtype, const std::vector<int64_t>& dims, Tensor* out);

}  // namespace netsuke::movement

#endif  // NETSUKE_KERNELS_MOVEMENT_COMMON_H_
