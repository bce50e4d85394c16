#include "kernels/elementwise/broadcast.h"

namespace netsuke {

BroadcastRows::BroadcastRows(const Shape* shapes, int count, const Shape& out) : operands(count) {
  // Strides of every operand along the output's dimensions, 0 where it is repeated; dimensions of one element are dropped
  // and neighbours merged wherever all operands allow it.
  int n = 0;
  int64_t sizes[kMaxRank], strides[kMaxOperands][kMaxRank];
  int64_t dense[kMaxOperands] = {1, 1, 1};
  for (int d = out.rank - 1; d >= 0; --d) {
    int64_t s[kMaxOperands] = {};
    for (int i = 0; i < count; ++i) {
      const int at = d - (out.rank - shapes[i].rank);
      const int64_t dim = at < 0 ? 1 : shapes[i].dim[at];
      s[i] = dim == 1 ? 0 : dense[i];
      dense[i] *= dim;
    }
    if (out.dim[d] == 1) continue;
    bool merge = n > 0;
    for (int i = 0; i < count && merge; ++i) merge = s[i] == strides[i][n - 1] * sizes[n - 1];
    if (merge) {
      sizes[n - 1] *= out.dim[d];
      continue;
    }
    sizes[n] = out.dim[d];
    for (int i = 0; i < count; ++i) strides[i][n] = s[i];
    ++n;
  }
  if (n == 0) return;  // one element
  row = sizes[0];
  for (int i = 0; i < count; ++i) step[i] = strides[i][0] != 0;
  outer = n - 1;
  for (int d = 0; d < outer; ++d) {  // innermost last again
    size[d] = sizes[n - 1 - d];
    rows *= size[d];
    for (int i = 0; i < count; ++i) stride[i][d] = strides[i][n - 1 - d];
  }
}

void BroadcastRows::offsets(int64_t index, int64_t* out) const {
  for (int i = 0; i < operands; ++i) out[i] = 0;
  for (int d = outer - 1; d >= 0; --d) {
    const int64_t at = index % size[d];
    index /= size[d];
    for (int i = 0; i < operands; ++i) out[i] += at * stride[i][d];
  }
}

}  // namespace netsuke
