#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

// Steps of a contiguous operand's batch dimensions, aligned at the right of `rank` dimensions.
void batch_steps(const Shape& operand, int rank, int64_t* step) {
  int64_t matrices = 1;
  for (int i = rank - 1, j = operand.rank - 3; i >= 0; --i, --j) {
    const int64_t dim = j >= 0 ? operand.dim[j] : 1;
    step[i] = dim == 1 ? 0 : matrices;
    matrices *= dim;
  }
}

// b is one matrix for all: the batch of a is just more rows of one product.
void fold_batch_into_rows(QMatmulShape* shape) {
  shape->m *= shape->batch;
  shape->batch = 1;
  shape->batch_rank = 0;
}

}  // namespace

Status qmatmul_shape(const Shape& a, const Shape& b, bool transposed, QMatmulShape* shape, Shape* out) {
  const auto refuse = [&](const char* allowed) {
    return error(Code::kInvalidArgument, "qmatmul: a is %s, b is %s (trans_b %d), allowed: %s", shape_text(a).c_str(),
                 shape_text(b).c_str(), transposed ? 1 : 0, allowed);
  };
  if (a.rank < 2 || b.rank < 2) return refuse("two or more dimensions each");
  shape->m = a.dim[a.rank - 2];
  shape->k = a.dim[a.rank - 1];
  shape->n = b.dim[b.rank - (transposed ? 2 : 1)];
  shape->transposed = transposed;
  if (b.dim[b.rank - (transposed ? 1 : 2)] != shape->k) return refuse("the same inner dimension K");
  shape->batch_rank = std::max(a.rank, b.rank) - 2;
  out->rank = shape->batch_rank + 2;
  bool b_is_one = true;
  for (int i = 0; i < shape->batch_rank; ++i) {
    const int ia = i - shape->batch_rank + a.rank - 2, ib = i - shape->batch_rank + b.rank - 2;
    const int64_t da = ia >= 0 ? a.dim[ia] : 1, db = ib >= 0 ? b.dim[ib] : 1;
    if (da != db && da != 1 && db != 1) return refuse("batch dimensions that are equal or 1");
    shape->batch_dim[i] = out->dim[i] = da == 1 ? db : da;
    shape->batch *= shape->batch_dim[i];
    b_is_one = b_is_one && db == 1;
  }
  out->dim[out->rank - 2] = shape->m;
  out->dim[out->rank - 1] = shape->n;
  batch_steps(a, shape->batch_rank, shape->a_step);
  batch_steps(b, shape->batch_rank, shape->b_step);
  if (b_is_one) fold_batch_into_rows(shape);
  return Status();
}

void qmatmul_batch(const QMatmulShape& shape, int64_t index, int64_t* a_matrix, int64_t* b_matrix) {
  *a_matrix = *b_matrix = 0;
  for (int i = shape.batch_rank - 1; i >= 0; --i) {
    const int64_t position = index % shape.batch_dim[i];
    index /= shape.batch_dim[i];
    *a_matrix += position * shape.a_step[i];
    *b_matrix += position * shape.b_step[i];
  }
}

}  // namespace netsuke
