// The largest code of every u8 value, as far as the program states it: kernels use it to prove that narrower sums are exact
// (docs/numerics.md section 3). The same rule as netsuke.program.ranges: `hi` of the producer, carried through operators that copy codes.
#ifndef NETSUKE_GRAPH_CODE_RANGE_H_
#define NETSUKE_GRAPH_CODE_RANGE_H_

#include <cstdint>
#include <vector>

#include "graph/program.h"
#include "kernels/op.h"

namespace netsuke {

class CodeRanges {
 public:
  explicit CodeRanges(size_t values) : hi_(values, 255) {}
  // Of node.in[k]; 255 where nothing smaller is known.
  int32_t input(const NodeInfo& node, size_t k) const { return k < node.in.size() && node.in[k] >= 0 ? hi_[static_cast<size_t>(node.in[k])] : 255; }
  // To be called for every node in order, before its attributes are dropped. table: input 1 if it is a u8 constant, else null.
  void add(const NodeInfo& node, const Tensor* table);

 private:
  std::vector<int32_t> hi_;  // of each value
};

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_CODE_RANGE_H_
