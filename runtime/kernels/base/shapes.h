// Shape arithmetic shared by the float operators.
#ifndef NETSUKE_KERNELS_BASE_SHAPES_H_
#define NETSUKE_KERNELS_BASE_SHAPES_H_

#include <initializer_list>
#include <string>

#include "kernels/op.h"

namespace netsuke {

std::string shape_text(const Shape& shape);  // "[1, 3, 224, 224]"
Shape make_shape(std::initializer_list<int64_t> dims);
int64_t product(const Shape& shape, int begin, int end);  // of dim[begin] ... dim[end - 1]
// NumPy's rule; an error names both shapes.
Status broadcast(const Shape& a, const Shape& b, Shape* out);
// A negative axis counts from the end.
Status normalize_axis(int64_t axis, int rank, int* out);
Status expect_inputs(int got, int least, int most);
Status expect_dtype(const Tensor& tensor, const char* name, std::initializer_list<DType> allowed);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_SHAPES_H_
