// What a program becomes for one set of input shapes: shapes of all values, tensors computed from shapes alone, and where
// everything lives. A plan is immutable once made and shared by concurrent runs.
#ifndef NETSUKE_GRAPH_PLAN_H_
#define NETSUKE_GRAPH_PLAN_H_

#include <memory>
#include <vector>

#include "base/arena.h"
#include "graph/program.h"
#include "kernels/op.h"

namespace netsuke {

struct Location {
  enum class Kind : uint8_t { kArena, kInput, kOutput, kFixed, kAbsent };
  Kind kind = Kind::kAbsent;
  int64_t offset = 0;     // kArena: bytes from its start
  int index = -1;         // kInput, kOutput: which one
  void* fixed = nullptr;  // kFixed: a constant or a tensor computed while planning
};

// One operator call at run time. in and out are ranges of Plan::tensors.
struct Step {
  int node = 0;
  int in = 0, n_in = 0, out = 0, n_out = 0;
  int64_t scratch = 0;        // offset in the arena
  int64_t scratch_bytes = 0;
};

struct Plan {
  std::vector<Tensor> inputs;   // dtype and shape of what the caller passes
  std::vector<Tensor> outputs;  // the program's outputs, then the taps
  std::vector<Step> steps;
  std::vector<Tensor> tensors;
  std::vector<Location> places;             // of tensors
  std::vector<std::pair<int, Location>> copies;  // outputs that no kernel writes in place: copied at the end
  std::vector<Tensor> values;               // dtype and shape of every value of the program
  std::vector<Buffer> known;                // contents computed while planning
  int64_t arena_bytes = 0;
  int64_t known_bytes = 0;
};

struct PlanRequest {
  const ProgramInfo* program;
  const std::vector<std::unique_ptr<Op>>* ops;   // one per node
  const std::vector<Tensor>* constants;          // by index
  ThreadPool* pool;
  int64_t max_bytes;                             // of the arena and of any one tensor
  std::vector<Shape> shapes;                     // one per input
  std::vector<int> taps;                         // values to return besides the outputs
};

Status make_plan(const PlanRequest& request, Plan* out);

// Bytes of a tensor, or an error when it is malformed or larger than the cap. Empty dimensions count as 1, so that no kernel meets
// an overflow in a partial product.
Status plan_tensor_bytes(const Tensor& tensor, int64_t max_bytes, int64_t* out);

std::string plan_shape_text(const Shape& shape);

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_PLAN_H_
