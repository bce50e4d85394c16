#include "graph/plan.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <unordered_map>

#include "graph/memory.h"

namespace netsuke {
namespace {

// A tensor whose inputs are all known is computed while planning when it is this small; larger ones are steps of every run, so
// that a plan stays small.
constexpr int64_t kKnownBytes = int64_t{1} << 20;
constexpr int kAlways = INT_MAX;  // lifetime of a value that the caller gets

// The memory one or more values share.
struct Storage {
  Location::Kind kind = Location::Kind::kArena;
  int index = -1;
  void* fixed = nullptr;
  int64_t bytes = 0;
  int first = 0, last = -1;
  int block = -1;
};

class Planner {
 public:
  Planner(const PlanRequest& request, Plan* plan)
      : request_(request), program_(*request.program), plan_(plan), values_(program_.values.size()), bytes_(values_.size(), 0),
        storage_of_(values_.size(), -1), evaluated_(program_.nodes.size(), false) {}

  Status make() {
    NETSUKE_TRY(bind_inputs());
    bind_constants();
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      const Status status = infer(i);
      if (!status.ok()) return at_node(i, status);
    }
    NETSUKE_TRY(check_outputs());
    NETSUKE_TRY(store_bf16());
    find_last_uses();
    assign_storage();
    assign_outputs();
    NETSUKE_TRY(place());
    emit();
    return Status();
  }

 private:
  const NodeInfo& node(size_t i) const { return program_.nodes[i]; }
  const Op& op(size_t i) const { return *(*request_.ops)[i]; }
  Tensor& value(int number) { return values_[static_cast<size_t>(number)]; }

  Status at_node(size_t i, const Status& status) const {
    return error(status.code(), "node '%s' (%s): %s", node(i).name.c_str(), node(i).op.c_str(), status.message().c_str());
  }

  Status bind_inputs() {
    if (request_.shapes.size() != program_.inputs.size()) {
      return error(Code::kInvalidArgument, "%zu input shapes given, the program has %zu inputs", request_.shapes.size(),
                   program_.inputs.size());
    }
    for (size_t i = 0; i < program_.inputs.size(); ++i) {
      const Port& port = program_.inputs[i];
      Tensor& tensor = value(port.value);
      tensor.dtype = port.dtype;
      tensor.shape = request_.shapes[i];
      NETSUKE_TRY(bind_dims(port, tensor.shape));
      const Status status = plan_tensor_bytes(tensor, request_.max_bytes, &bytes_[static_cast<size_t>(port.value)]);
      if (!status.ok()) return error(status.code(), "input '%s': %s", port.name.c_str(), status.message().c_str());
      plan_->inputs.push_back(tensor);
    }
    return Status();
  }

  Status bind_dims(const Port& port, const Shape& shape) {
    if (shape.rank != static_cast<int>(port.dims.size())) {
      return error(Code::kInvalidArgument, "input '%s' has rank %d, expected %zu", port.name.c_str(), shape.rank, port.dims.size());
    }
    for (int d = 0; d < shape.rank; ++d) {
      const Dim& dim = port.dims[static_cast<size_t>(d)];
      int64_t wanted = dim.size;
      if (wanted < 0) wanted = free_.emplace(dim.name, shape.dim[d]).first->second;
      if (shape.dim[d] == wanted && wanted >= 0) continue;
      return error(Code::kInvalidArgument, "input '%s' has shape %s: dimension %d%s%s must be %lld", port.name.c_str(),
                   plan_shape_text(shape).c_str(), d, dim.size < 0 ? " " : "", dim.name.c_str(), static_cast<long long>(wanted));
    }
    return Status();
  }

  void bind_constants() {
    for (size_t v = 0; v < values_.size(); ++v) {
      if (program_.values[v].kind != ValueKind::kConstant) continue;
      values_[v] = (*request_.constants)[static_cast<size_t>(program_.values[v].index)];
      bytes_[v] = values_[v].shape.elements() * static_cast<int64_t>(dtype_size(values_[v].dtype));
    }
  }

  void gather_inputs(size_t i) {
    in_.clear();
    for (int number : node(i).in) {
      in_.emplace_back();
      if (number >= 0) {
        in_.back() = value(number);
      } else {
        in_.back().present = false;
      }
    }
  }

  Status infer(size_t i) {
    gather_inputs(i);
    out_.assign(node(i).out.size(), Tensor());
    NETSUKE_TRY(op(i).infer(in_.data(), static_cast<int>(in_.size()), out_.data(), static_cast<int>(out_.size())));
    int64_t largest = 0;
    for (size_t j = 0; j < out_.size(); ++j) {
      const auto number = static_cast<size_t>(node(i).out[j]);
      const ValueInfo& info = program_.values[number];
      NETSUKE_TRY(plan_tensor_bytes(out_[j], request_.max_bytes, &bytes_[number]));
      if (info.declared && info.dtype != out_[j].dtype) {
        return error(Code::kCorruptFile, "output '%s' has dtype %s, the file says %s", info.name.c_str(), dtype_name(out_[j].dtype),
                     dtype_name(info.dtype));
      }
      out_[j].data = nullptr;
      values_[number] = out_[j];
      largest = std::max(largest, bytes_[number]);
    }
    if (op(i).is_view() && (node(i).in.empty() || node(i).in[0] < 0 || bytes_of(node(i).in[0]) != bytes_of(node(i).out[0]))) {
      return error(Code::kInternal, "a view of another size than its input");
    }
    return contents_known(i) && (largest <= kKnownBytes || op(i).is_view()) ? evaluate(i) : Status();
  }

  int64_t bytes_of(int number) const { return bytes_[static_cast<size_t>(number)]; }

  // An operator with known inputs gives a known output; `shape` needs no contents.
  bool contents_known(size_t i) const {
    if (node(i).op == "shape") return true;
    for (const Tensor& tensor : in_) {
      if (tensor.present && tensor.data == nullptr) return false;
    }
    return true;
  }

  Status evaluate(size_t i) {
    evaluated_[i] = true;
    if (op(i).is_view()) {
      value(node(i).out[0]).data = in_[0].data;
      return Status();
    }
    for (size_t j = 0; j < out_.size(); ++j) {
      Buffer memory;
      const int64_t bytes = bytes_of(node(i).out[j]);
      if (!checked_add(plan_->known_bytes, bytes, &plan_->known_bytes) || plan_->known_bytes > request_.max_bytes) {
        return error(Code::kOutOfMemory, "tensors computed from shapes need more than %lld bytes",
                     static_cast<long long>(request_.max_bytes));
      }
      NETSUKE_TRY(memory.allocate(static_cast<size_t>(bytes)));
      out_[j].data = memory.data();
      value(node(i).out[j]).data = memory.data();
      plan_->known.push_back(std::move(memory));
    }
    const int n_in = static_cast<int>(in_.size()), n_out = static_cast<int>(out_.size());
    const size_t scratch_bytes = op(i).scratch_bytes(in_.data(), n_in, out_.data(), n_out, request_.pool->threads());
    if (scratch_bytes > static_cast<size_t>(request_.max_bytes)) return error(Code::kOutOfMemory, "needs %zu bytes", scratch_bytes);
    Buffer scratch;
    NETSUKE_TRY(scratch.allocate(scratch_bytes));
    return op(i).run(RunArgs{in_.data(), n_in, out_.data(), n_out, scratch.data(), *request_.pool});
  }

  // The declared shape of an output must be what comes out: a free dimension has one size wherever it occurs.
  Status check_outputs() {
    for (const Port& port : program_.outputs) {
      const Tensor& tensor = value(port.value);
      bool fits = tensor.dtype == port.dtype && tensor.shape.rank == static_cast<int>(port.dims.size());
      for (int d = 0; fits && d < tensor.shape.rank; ++d) {
        const Dim& dim = port.dims[static_cast<size_t>(d)];
        const int64_t wanted = dim.size < 0 ? free_.emplace(dim.name, tensor.shape.dim[d]).first->second : dim.size;
        fits = wanted == tensor.shape.dim[d];
      }
      if (!fits) {
        return error(Code::kCorruptFile, "output '%s' is %s %s, the file declares another dtype or shape", port.name.c_str(),
                     dtype_name(tensor.dtype), plan_shape_text(tensor.shape).c_str());
      }
    }
    return Status();
  }

  // An intermediate tensor that every reader rounds to bfloat16 is stored so: the same results from half of the bytes.
  Status store_bf16() {
    std::vector<bool> kept(values_.size(), false);  // somebody needs it as it is
    std::vector<bool> read(values_.size(), false);
    for (const Port& port : program_.outputs) kept[static_cast<size_t>(port.value)] = true;
    for (int tap : request_.taps) kept[static_cast<size_t>(tap)] = true;
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      for (size_t k = 0; k < node(i).in.size(); ++k) {
        if (node(i).in[k] < 0) continue;
        const auto number = static_cast<size_t>(node(i).in[k]);
        if (evaluated_[i] || !op(i).reads_bf16(static_cast<int>(k))) kept[number] = true;
        read[number] = true;
      }
    }
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      if (evaluated_[i] || !op(i).writes_bf16()) continue;
      const auto number = static_cast<size_t>(node(i).out[0]);
      if (kept[number] || !read[number] || values_[number].dtype != DType::kF32) continue;
      values_[number].dtype = DType::kBF16;
      NETSUKE_TRY(plan_tensor_bytes(values_[number], request_.max_bytes, &bytes_[number]));
    }
    return Status();
  }

  // roots_[v]: the value whose memory v is a view of. last_[root]: the last node that reads any view of it.
  void find_last_uses() {
    roots_.resize(values_.size());
    last_.assign(values_.size(), -1);
    for (size_t v = 0; v < values_.size(); ++v) roots_[v] = static_cast<int>(v);
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      if (!evaluated_[i] && op(i).is_view()) roots_[static_cast<size_t>(node(i).out[0])] = root(node(i).in[0]);
      for (int number : node(i).in) {
        if (number >= 0) last_[static_cast<size_t>(root(number))] = static_cast<int>(i);
      }
    }
    for (const Port& port : program_.outputs) last_[static_cast<size_t>(root(port.value))] = kAlways;
    for (int tap : request_.taps) last_[static_cast<size_t>(root(tap))] = kAlways;
  }

  int root(int number) const { return roots_[static_cast<size_t>(number)]; }

  int new_storage(Location::Kind kind, int number, int first) {
    Storage storage;
    storage.kind = kind;
    storage.bytes = bytes_of(number);
    storage.first = first;
    storage.last = std::max(first, last_[static_cast<size_t>(number)]);
    storages_.push_back(storage);
    return static_cast<int>(storages_.size()) - 1;
  }

  void assign_storage() {
    for (size_t v = 0; v < values_.size(); ++v) {
      const ValueInfo& info = program_.values[v];
      const int number = static_cast<int>(v);
      if (info.kind == ValueKind::kInput) {
        storage_of_[v] = new_storage(Location::Kind::kInput, number, 0);
        storages_.back().index = info.index;
      } else if (values_[v].data != nullptr) {
        storage_of_[v] = new_storage(Location::Kind::kFixed, number, 0);
        storages_.back().fixed = values_[v].data;
      } else if (root(number) != number) {
        storage_of_[v] = storage_of_[static_cast<size_t>(root(number))];
      } else {
        const auto i = static_cast<size_t>(info.index);
        const int reused = number == node(i).out[0] ? reusable_input(i) : -1;
        storage_of_[v] = reused >= 0 ? reused : new_storage(Location::Kind::kArena, number, info.index);
        Storage& storage = storages_[static_cast<size_t>(storage_of_[v])];
        storage.last = std::max(storage.last, last_[v]);
      }
    }
  }

  // The storage of an input that ends at this node and may be overwritten by its output, or -1.
  int reusable_input(size_t i) const {
    const NodeInfo& info = node(i);
    for (size_t k = 0; k < info.in.size(); ++k) {
      if (info.in[k] < 0 || !op(i).in_place(static_cast<int>(k))) continue;
      const int candidate = storage_of_[static_cast<size_t>(info.in[k])];
      const Storage& storage = storages_[static_cast<size_t>(candidate)];
      bool usable = storage.kind == Location::Kind::kArena && storage.last == static_cast<int>(i) &&
                    storage.bytes == bytes_of(info.out[0]) && bytes_of(info.in[k]) == storage.bytes;
      for (int other : info.in) {
        usable = usable && (other < 0 || other == info.in[k] || storage_of_[static_cast<size_t>(other)] != candidate);
      }
      if (usable) return candidate;
    }
    return -1;
  }

  // A tensor that the caller gets is written where the caller wants it, unless that memory is already spoken for.
  void assign_outputs() {
    std::vector<int> wanted;
    for (const Port& port : program_.outputs) wanted.push_back(port.value);
    wanted.insert(wanted.end(), request_.taps.begin(), request_.taps.end());
    for (size_t j = 0; j < wanted.size(); ++j) {
      Storage& storage = storages_[static_cast<size_t>(storage_of_[static_cast<size_t>(wanted[j])])];
      plan_->outputs.push_back(value(wanted[j]));
      plan_->outputs.back().data = nullptr;
      if (storage.kind == Location::Kind::kArena) {
        storage.kind = Location::Kind::kOutput;
        storage.index = static_cast<int>(j);
      } else {
        copies_.emplace_back(static_cast<int>(j), wanted[j]);
      }
    }
  }

  bool is_step(size_t i) const {
    if (evaluated_[i] || op(i).is_view()) return false;
    for (int number : node(i).out) {
      if (bytes_of(number) > 0) return true;
    }
    return false;  // nothing to compute: all outputs are empty
  }

  Status place() {
    std::vector<Block> blocks;
    for (Storage& storage : storages_) {
      if (storage.kind != Location::Kind::kArena) continue;
      storage.block = static_cast<int>(blocks.size());
      blocks.push_back({storage.bytes, storage.first, storage.last, -1});
    }
    const size_t tensors = blocks.size();
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      if (!is_step(i)) continue;
      load_node(i);
      const size_t bytes = op(i).scratch_bytes(in_.data(), static_cast<int>(in_.size()), out_.data(), static_cast<int>(out_.size()),
                                               request_.pool->threads());
      if (bytes > static_cast<size_t>(request_.max_bytes)) {
        return at_node(i, error(Code::kOutOfMemory, "needs %zu bytes of scratch memory", bytes));
      }
      blocks.push_back({static_cast<int64_t>(bytes), static_cast<int>(i), static_cast<int>(i), -1});
    }
    plan_->arena_bytes = place_blocks(&blocks);
    if (plan_->arena_bytes < 0 || plan_->arena_bytes > request_.max_bytes) {
      return error(Code::kOutOfMemory, "intermediate tensors need %lld bytes, more than the limit of %lld",
                   static_cast<long long>(plan_->arena_bytes), static_cast<long long>(request_.max_bytes));
    }
    for (size_t b = 0; b < blocks.size(); ++b) offsets_.push_back(blocks[b].offset);
    scratch_offsets_.assign(offsets_.begin() + static_cast<std::ptrdiff_t>(tensors), offsets_.end());
    for (size_t b = tensors; b < blocks.size(); ++b) scratch_bytes_.push_back(blocks[b].bytes);
    return Status();
  }

  void load_node(size_t i) {
    gather_inputs(i);
    out_.clear();
    for (int number : node(i).out) out_.push_back(value(number));
  }

  Location location(int number) const {
    Location place;
    if (number < 0) return place;
    const Storage& storage = storages_[static_cast<size_t>(storage_of_[static_cast<size_t>(number)])];
    place.kind = storage.kind;
    place.index = storage.index;
    place.fixed = storage.fixed;
    if (storage.kind == Location::Kind::kArena) place.offset = offsets_[static_cast<size_t>(storage.block)];
    return place;
  }

  void emit() {
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      if (!is_step(i)) continue;
      load_node(i);
      Step step;
      step.node = static_cast<int>(i);
      step.scratch = scratch_offsets_[plan_->steps.size()];
      step.scratch_bytes = scratch_bytes_[plan_->steps.size()];
      step.in = static_cast<int>(plan_->tensors.size());
      step.n_in = static_cast<int>(in_.size());
      for (size_t k = 0; k < in_.size(); ++k) add_tensor(in_[k], node(i).in[k]);
      step.out = static_cast<int>(plan_->tensors.size());
      step.n_out = static_cast<int>(out_.size());
      for (size_t k = 0; k < out_.size(); ++k) add_tensor(out_[k], node(i).out[k]);
      plan_->steps.push_back(step);
    }
    for (const auto& [output, number] : copies_) plan_->copies.emplace_back(output, location(number));
    for (Tensor& tensor : values_) tensor.data = nullptr;
    plan_->values = std::move(values_);
  }

  void add_tensor(Tensor tensor, int number) {
    tensor.data = nullptr;
    plan_->tensors.push_back(tensor);
    plan_->places.push_back(location(number));
  }

  const PlanRequest& request_;
  const ProgramInfo& program_;
  Plan* plan_;
  std::vector<Tensor> values_;  // data: contents known while planning
  std::vector<int64_t> bytes_;
  std::vector<int> storage_of_, roots_, last_;
  std::vector<bool> evaluated_;
  std::vector<Storage> storages_;
  std::vector<int64_t> offsets_, scratch_offsets_, scratch_bytes_;
  std::vector<std::pair<int, int>> copies_;  // output, value
  std::vector<Tensor> in_, out_;             // of the node at hand
  std::unordered_map<std::string, int64_t> free_;
};

}  // namespace

std::string plan_shape_text(const Shape& shape) {
  std::string text = "[";
  for (int d = 0; d < shape.rank; ++d) text += (d == 0 ? "" : ",") + std::to_string(shape.dim[d]);
  return text + "]";
}

Status plan_tensor_bytes(const Tensor& tensor, int64_t max_bytes, int64_t* out) {
  const Shape& shape = tensor.shape;
  if (shape.rank < 0 || shape.rank > kMaxRank) return error(Code::kInvalidArgument, "rank %d; at most 8 is possible", shape.rank);
  int64_t bytes = static_cast<int64_t>(dtype_size(tensor.dtype));
  bool empty = false;
  for (int d = 0; d < shape.rank; ++d) {
    if (shape.dim[d] < 0) return error(Code::kInvalidArgument, "shape %s has a negative dimension", plan_shape_text(shape).c_str());
    empty = empty || shape.dim[d] == 0;
    if (!checked_mul(bytes, std::max<int64_t>(shape.dim[d], 1), &bytes) || bytes > max_bytes) {
      return error(Code::kOutOfMemory, "a tensor of shape %s needs more than the limit of %lld bytes", plan_shape_text(shape).c_str(),
                   static_cast<long long>(max_bytes));
    }
  }
  *out = empty ? 0 : bytes;
  return Status();
}

Status make_plan(const PlanRequest& request, Plan* out) {
  *out = Plan();
  return Planner(request, out).make();
}

}  // namespace netsuke
