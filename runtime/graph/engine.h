// A loaded program: operators built for one instruction set, plans per input shape, and runs, which may be concurrent.
#ifndef NETSUKE_GRAPH_ENGINE_H_
#define NETSUKE_GRAPH_ENGINE_H_

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/threads.h"
#include "graph/code_range.h"
#include "graph/plan.h"
#include "graph/program.h"
#include "graph/safetensors.h"

namespace netsuke {

struct EngineOptions {
  int threads = 0;        // 0: one for each physical core this process may use
  std::string isa;        // "": the best of this CPU
  int64_t max_bytes = 0;  // of intermediate tensors; 0: the memory of the machine
};

// The instruction set in a kernel's name ("qconv_a8w8_x86_avx2_4x16" -> "avx2"); "portable" when it names none.
const char* kernel_isa(const std::string& kernel);

class Engine {
 public:
  static Status load_file(const std::string& path, const EngineOptions& options, std::unique_ptr<Engine>* out);
  // The bytes are copied.
  static Status load_bytes(const void* bytes, size_t size, const EngineOptions& options, std::unique_ptr<Engine>* out);

  const ProgramInfo& program() const { return program_; }
  const Op& op(int node) const { return *ops_[static_cast<size_t>(node)]; }
  Isa isa() const { return isa_; }
  int threads() const { return pool_->threads(); }
  size_t file_bytes() const { return file_size_; }
  size_t packed_bytes() const;
  // How the file holds the packed constants that a node reads: "3-bit codes"; "2-bit indices, 4 entries of 1, decoded at load"; "".
  std::string stored(size_t node) const;
  int find_value(const std::string& name) const;  // -1 when unknown

  // Makes a plan, or finds it among the last few. Safe to call from several threads.
  Status plan(const std::vector<Shape>& shapes, const std::vector<int>& taps, std::shared_ptr<const Plan>* out);

  // inputs and outputs: one pointer each, aligned to the element size, dense, of the shapes of the plan; no output may overlap
  // another buffer. step_ns, when given, receives the time of each step. Safe to call from several threads.
  Status run(const std::shared_ptr<const Plan>& plan, const void* const* inputs, void* const* outputs, int64_t* step_ns = nullptr);

  Cost step_cost(const Plan& plan, const Step& step) const;

 private:
  // Memory of one run in flight.
  struct Context {
    std::shared_ptr<const Plan> plan;
    std::vector<Tensor> tensors;
    Buffer arena;
  };

  Engine() = default;
  static Status load(std::unique_ptr<Engine> engine, const EngineOptions& options, std::unique_ptr<Engine>* out);
  Status configure(const EngineOptions& options);
  Status stable_constants(const SafeTensors& file);
  Status unpack_constant(size_t constant);
  Status build_ops();
  Status build_op(size_t node);
  void drop_packed(size_t node, std::vector<int>* readers, std::vector<bool>* kept);
  std::unique_ptr<Context> take_context(const std::shared_ptr<const Plan>& plan);
  Status bind_context(const std::shared_ptr<const Plan>& plan, Context* context) const;
  Status execute(const Plan& plan, Context* context, const void* const* inputs, void* const* outputs, int64_t* step_ns);

  FileBytes file_;
  size_t file_size_ = 0;
  ProgramInfo program_;
  std::vector<Tensor> constants_;
  std::vector<Buffer> small_constants_;
  CodeRanges code_ranges_{0};
  std::vector<const uint8_t*> packed_data_;  // of packed constants, in the file; null for others
  std::vector<Buffer> unpacked_;             // of packed constants, from the first operator that reads one to the last
  std::vector<std::unique_ptr<Op>> ops_;
  std::unordered_map<std::string, int> value_numbers_;
  std::unique_ptr<ThreadPool> pool_;
  Isa isa_ = Isa::kPortable;
  int64_t max_bytes_ = 0;

  struct CachedPlan {
    std::vector<Shape> shapes;
    std::vector<int> taps;
    std::shared_ptr<const Plan> plan;
  };
  std::mutex mutex_;  // guards what follows
  std::list<CachedPlan> plans_;
  std::vector<std::unique_ptr<Context>> contexts_;
};

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_ENGINE_H_
