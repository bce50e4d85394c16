#include "graph/engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <new>

#include <unistd.h>

#include "base/float_env.h"
#include "formats/packing.h"
#include "graph/attrs.h"

namespace netsuke {
namespace {

// Plans of the last shapes seen. A plan of a 100-node program takes about 50 kB and 0.1 ms to make.
constexpr size_t kPlans = 16;
// Constants up to this size are copied out of the file before operators are built, so that a file without larger unpacked
// constants need not stay mapped.
constexpr size_t kSmallConstant = size_t{64} << 10;
constexpr size_t kShownProblems = 20;

// A value for pointers to nothing: empty tensors still get a valid, aligned address.
alignas(kAlign) uint8_t empty_tensor[kAlign];

template <typename Body>
Status guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Status(Code::kOutOfMemory, "out of memory");
  } catch (const std::exception& problem) {
    return error(Code::kInternal, "unexpected: %s", problem.what());
  }
}

int64_t machine_bytes() {
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? pages * page : int64_t{1} << 40;
}

// What the engine tells integer products about their input; no attribute of the file.
constexpr const char* kInputHi = "x_hi";
bool is_gemm(const std::string& op) { return op == "qconv" || op == "qlinear" || op == "qconv_dyadic" || op == "qlinear_dyadic"; }

std::string available_isas() {
  std::string names;
  for (Isa isa : compiled_isas()) {
    if (isa_available(isa)) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  return names;
}

}  // namespace

const char* kernel_isa(const std::string& kernel) {
  // Longer names first: "neondot" holds "neon".
  for (Isa isa : {Isa::kAvx512Vnni, Isa::kAvx2, Isa::kNeonDot, Isa::kNeon}) {
    const char* family = isa == Isa::kNeonDot || isa == Isa::kNeon ? "arm_" : "x86_";
    if (kernel.find(std::string(family) + isa_name(isa)) != std::string::npos) return isa_name(isa);
  }
  if (kernel.find("x86_avx512") != std::string::npos) return isa_name(Isa::kAvx512Vnni);  // bf16, vbmi: extensions of it
  return isa_name(Isa::kPortable);
}

Status Engine::load_file(const std::string& path, const EngineOptions& options, std::unique_ptr<Engine>* out) {
  return guarded([&] {
    std::unique_ptr<Engine> engine(new Engine);
    NETSUKE_TRY(engine->file_.open(path));
    return load(std::move(engine), options, out);
  });
}

Status Engine::load_bytes(const void* bytes, size_t size, const EngineOptions& options, std::unique_ptr<Engine>* out) {
  return guarded([&] {
    std::unique_ptr<Engine> engine(new Engine);
    NETSUKE_TRY(engine->file_.copy(bytes, size));
    return load(std::move(engine), options, out);
  });
}

Status Engine::load(std::unique_ptr<Engine> engine, const EngineOptions& options, std::unique_ptr<Engine>* out) {
  const FloatEnv environment;
  engine->file_size_ = engine->file_.size();
  NETSUKE_TRY(engine->configure(options));
  SafeTensors file;
  NETSUKE_TRY(parse_safetensors(engine->file_.data(), engine->file_.size(), &file));
  NETSUKE_TRY(read_program(file, &engine->program_));
  file.metadata.clear();
  for (size_t v = 0; v < engine->program_.values.size(); ++v) {
    engine->value_numbers_.emplace(engine->program_.values[v].name, static_cast<int>(v));
  }
  NETSUKE_TRY(engine->stable_constants(file));
  NETSUKE_TRY(engine->build_ops());
  *out = std::move(engine);
  return Status();
}

Status Engine::configure(const EngineOptions& options) {
  isa_ = best_isa();
  if (!options.isa.empty() && (!isa_from_name(options.isa, &isa_) || !isa_available(isa_))) {
    return error(Code::kUnsupported, "instruction set '%.40s' is not available here; available: %s", options.isa.c_str(),
                 available_isas().c_str());
  }
  if (options.threads < 0 || options.threads > 1024) {
    return error(Code::kInvalidArgument, "%d threads; allowed: 1 to 1024, or 0 for all cores", options.threads);
  }
  max_bytes_ = options.max_bytes > 0 ? options.max_bytes : machine_bytes();
  pool_ = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : default_threads());
  return Status();
}

// Pointers to constants stay valid for the life of the engine unless an operator says that it packed them.
Status Engine::stable_constants(const SafeTensors& file) {
  size_t total = 0;
  packed_data_.assign(file.tensors.size(), nullptr);
  unpacked_.resize(file.tensors.size());
  const auto copied = [&](const FileTensor& tensor) {
    if (program_.packed[static_cast<size_t>(&tensor - file.tensors.data())].bits != 0) return false;  // unpacked when an operator is built
    return tensor.bytes <= kSmallConstant || reinterpret_cast<uintptr_t>(tensor.data) % dtype_size(tensor.dtype) != 0;
  };
  for (const FileTensor& tensor : file.tensors) total += copied(tensor) ? align_up(tensor.bytes) : 0;
  small_constants_.emplace_back();
  NETSUKE_TRY(small_constants_[0].allocate(total));
  uint8_t* next = small_constants_[0].data();
  for (const FileTensor& tensor : file.tensors) {
    Tensor constant;
    constant.dtype = tensor.dtype;
    constant.shape = tensor.shape;
    constant.data = const_cast<uint8_t*>(tensor.data);
    const PackedInfo& packed = program_.packed[constants_.size()];
    if (packed.bits != 0) {
      packed_data_[constants_.size()] = tensor.data;
      constant.dtype = packed.dtype;
      constant.shape = packed.shape;
      constant.data = nullptr;
    } else if (tensor.bytes == 0) {
      constant.data = empty_tensor;
    } else if (copied(tensor)) {
      std::memcpy(next, tensor.data, tensor.bytes);
      constant.data = next;
      next += align_up(tensor.bytes);
    }
    constants_.push_back(constant);
  }
  return Status();
}

// Codes as bytes (or f32 from a table), for the operator that is being built.
Status Engine::unpack_constant(size_t constant) {
  const PackedInfo& packed = program_.packed[constant];
  if (packed.bits == 0 || constants_[constant].data != nullptr) return Status();
  const int64_t count = packed.shape.elements();
  const int64_t bytes = count * static_cast<int64_t>(dtype_size(packed.dtype));
  if (bytes > max_bytes_) {
    return error(Code::kOutOfMemory, "weights of %lld bytes once decoded; at most %lld are allowed", static_cast<long long>(bytes),
                 static_cast<long long>(max_bytes_));
  }
  NETSUKE_TRY(unpacked_[constant].allocate(static_cast<size_t>(bytes)));
  uint8_t* codes = count == 0 ? empty_tensor : unpacked_[constant].data();
  const uint8_t* data = packed_data_[constant];
  if (packed.entries > 0) {
    const int64_t vector = packed.table_bytes() / packed.entries;
    if (!unpack_indices(data, packed.entries, vector, data + packed.table_bytes(), count / packed.length, packed.bits, codes)) {
      return error(Code::kCorruptFile, "an index of the weights points behind their %lld entries", static_cast<long long>(packed.entries));
    }
  } else if (packed.form == NamedForm::kTernary) {
    unpack_ternary(data, count, reinterpret_cast<int8_t*>(codes));
  } else if (packed.form == NamedForm::kSalient) {
    unpack_salient(data, packed.form_bytes, packed.shape.dim[0], count, reinterpret_cast<int8_t*>(codes));
  } else if (packed.dtype == DType::kS8) {
    unpack_s8(data, count, packed.bits, reinterpret_cast<int8_t*>(codes));
  } else {
    unpack_u8(data, count, packed.bits, codes);
  }
  constants_[constant].data = codes;
  return Status();
}

Status Engine::build_ops() {
  ops_.resize(program_.nodes.size());
  code_ranges_ = CodeRanges(program_.values.size());
  std::vector<int> readers(constants_.size(), 0);
  std::vector<bool> kept(constants_.size(), false);
  for (const Port& port : program_.outputs) {  // copied out of the constant at every run
    const ValueInfo& value = program_.values[static_cast<size_t>(port.value)];
    if (value.kind == ValueKind::kConstant) kept[static_cast<size_t>(value.index)] = true;
  }
  for (const NodeInfo& node : program_.nodes) {
    for (int number : node.in) {
      if (number >= 0 && program_.values[static_cast<size_t>(number)].kind == ValueKind::kConstant) {
        ++readers[static_cast<size_t>(program_.values[static_cast<size_t>(number)].index)];
      }
    }
  }
  std::string problems;
  size_t count = 0;
  Code code = Code::kOk;
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Status status = build_op(i);
    if (status.ok()) {
      drop_packed(i, &readers, &kept);
      program_.nodes[i].attrs = Json();
      continue;
    }
    if (status.code() == Code::kOutOfMemory) return status;
    if (code == Code::kOk) code = status.code();
    if (++count <= kShownProblems) {
      problems += (problems.empty() ? "" : "\n") +
                  ("node '" + program_.nodes[i].name + "' (" + program_.nodes[i].op + "): " + status.message());
    }
  }
  if (count > kShownProblems) problems += "\nand " + std::to_string(count - kShownProblems) + " more";
  return code == Code::kOk ? Status() : Status(code, problems);
}

Status Engine::build_op(size_t i) {
  const NodeInfo& node = program_.nodes[i];
  const OpFactory factory = find_op(node.op);
  if (factory == nullptr) return error(Code::kUnsupported, "unknown operator");
  if (node.attrs.find(kInputHi) != nullptr) return error(Code::kCorruptFile, "unknown attributes: %s", kInputHi);
  Json given = node.attrs;
  if (is_gemm(node.op)) {
    given.keys.emplace_back(kInputHi);
    given.items.emplace_back();
    given.items.back().kind = Json::Kind::kInt;
    given.items.back().integer = code_ranges_.input(node, 0);
    given.items.back().number = static_cast<double>(given.items.back().integer);
  }
  const JsonAttrs attrs(given);
  NETSUKE_TRY(attrs.check());
  std::vector<Tensor> inputs(node.in.size());
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (node.in[k] < 0) {
      inputs[k].present = false;
      continue;
    }
    const ValueInfo& value = program_.values[static_cast<size_t>(node.in[k])];
    if (value.kind == ValueKind::kConstant) {
      NETSUKE_TRY(unpack_constant(static_cast<size_t>(value.index)));
      inputs[k] = constants_[static_cast<size_t>(value.index)];
    } else {
      inputs[k].shape.rank = -1;
    }
  }
  ops_[i] = factory();
  NETSUKE_TRY(ops_[i]->build(BuildArgs{attrs, inputs, static_cast<int>(node.out.size()), isa_, pool_->threads()}));
  const std::string unread = attrs.unread();
  if (!unread.empty()) return error(Code::kCorruptFile, "unknown attributes: %s", unread.c_str());
  const bool table = inputs.size() > 1 && inputs[1].present && inputs[1].data != nullptr && inputs[1].dtype == DType::kU8;
  code_ranges_.add(node, table ? &inputs[1] : nullptr);
  return Status();
}

// Gives the memory of the file back as soon as every reader of a constant has packed it: the peak of loading is then the packed
// weights and one layer, not twice the model.
void Engine::drop_packed(size_t i, std::vector<int>* readers, std::vector<bool>* kept) {
  const NodeInfo& node = program_.nodes[i];
  for (size_t k = 0; k < node.in.size(); ++k) {
    if (node.in[k] < 0) continue;
    const ValueInfo& value = program_.values[static_cast<size_t>(node.in[k])];
    if (value.kind != ValueKind::kConstant) continue;
    const auto c = static_cast<size_t>(value.index);
    if (!ops_[i]->packed_constant(static_cast<int>(k))) (*kept)[c] = true;
    if (--(*readers)[c] > 0 || (*kept)[c]) continue;
    if (const PackedInfo& packed = program_.packed[c]; packed.bits != 0) {
      unpacked_[c].release();
      constants_[c].data = empty_tensor;  // never read again, but still a constant for the planner
      file_.drop(packed_data_[c], packed_data_[c] + packed.bytes());
      continue;
    }
    const auto* begin = static_cast<const uint8_t*>(constants_[c].data);
    const bool in_file = begin >= file_.data() && begin < file_.data() + file_.size();
    if (in_file) file_.drop(begin, begin + constants_[c].shape.elements() * static_cast<int64_t>(dtype_size(constants_[c].dtype)));
  }
}

std::string Engine::stored(size_t node) const {
  std::string text;
  for (int number : program_.nodes[node].in) {
    if (number < 0 || program_.values[static_cast<size_t>(number)].kind != ValueKind::kConstant) continue;
    const PackedInfo& packed = program_.packed[static_cast<size_t>(program_.values[static_cast<size_t>(number)].index)];
    if (packed.bits == 0) continue;
    text += (text.empty() ? "" : "; ") + std::to_string(packed.bits);
    if (packed.entries == 0) {
      text += packed.form == NamedForm::kNone ? "-bit codes" : "-bit codes of " + std::to_string(packed.form_bytes) + " bytes, decoded at load";
    } else {
      text += "-bit indices, " + std::to_string(packed.entries) + " entries of " + std::to_string(packed.length) + ", decoded at load";
    }
  }
  return text;
}

size_t Engine::packed_bytes() const {
  size_t bytes = 0;
  for (const auto& op : ops_) bytes += op->packed_bytes();
  return bytes;
}

int Engine::find_value(const std::string& name) const {
  const auto found = value_numbers_.find(name);
  return found == value_numbers_.end() ? -1 : found->second;
}

Status Engine::plan(const std::vector<Shape>& shapes, const std::vector<int>& taps, std::shared_ptr<const Plan>* out) {
  return guarded([&]() -> Status {
    for (int tap : taps) {
      if (tap < 0 || tap >= static_cast<int>(program_.values.size())) return error(Code::kInvalidArgument, "unknown value to tap");
      const ValueInfo& value = program_.values[static_cast<size_t>(tap)];
      if (value.kind != ValueKind::kConstant) continue;
      const Tensor& constant = constants_[static_cast<size_t>(value.index)];
      if (constant.data == empty_tensor && constant.shape.elements() > 0) {
        return error(Code::kInvalidArgument, "'%s' is packed in its layer: its values are in the file only", value.name.c_str());
      }
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto at = plans_.begin(); at != plans_.end(); ++at) {
        if (!(at->shapes == shapes && at->taps == taps)) continue;
        plans_.splice(plans_.begin(), plans_, at);
        *out = at->plan;
        return Status();
      }
    }
    const FloatEnv environment;
    const auto made = std::make_shared<Plan>();
    NETSUKE_TRY(make_plan(PlanRequest{&program_, &ops_, &constants_, pool_.get(), max_bytes_, shapes, taps}, made.get()));
    const std::lock_guard<std::mutex> lock(mutex_);
    plans_.push_front(CachedPlan{shapes, taps, made});
    if (plans_.size() > kPlans) plans_.pop_back();
    *out = made;
    return Status();
  });
}

std::unique_ptr<Engine::Context> Engine::take_context(const std::shared_ptr<const Plan>& plan) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (contexts_.empty()) return std::make_unique<Context>();
  const auto same = std::find_if(contexts_.begin(), contexts_.end(), [&](const auto& context) { return context->plan == plan; });
  if (same != contexts_.end()) std::iter_swap(same, contexts_.end() - 1);
  std::unique_ptr<Context> context = std::move(contexts_.back());
  contexts_.pop_back();
  return context;
}

Status Engine::bind_context(const std::shared_ptr<const Plan>& plan, Context* context) const {
  if (context->plan == plan) return Status();
  context->plan = nullptr;
  if (context->arena.bytes() < static_cast<size_t>(plan->arena_bytes) || context->arena.data() == nullptr) {
    NETSUKE_TRY(context->arena.allocate(static_cast<size_t>(plan->arena_bytes)));
  }
  context->tensors = plan->tensors;
  for (size_t t = 0; t < context->tensors.size(); ++t) {
    const Location& place = plan->places[t];
    if (place.kind == Location::Kind::kArena) context->tensors[t].data = context->arena.data() + place.offset;
    if (place.kind == Location::Kind::kFixed) context->tensors[t].data = place.fixed;
  }
  context->plan = plan;
  return Status();
}

Status Engine::run(const std::shared_ptr<const Plan>& plan, const void* const* inputs, void* const* outputs, int64_t* step_ns) {
  return guarded([&]() -> Status {
    for (size_t i = 0; i < plan->inputs.size() + plan->outputs.size(); ++i) {
      const bool input = i < plan->inputs.size();
      const size_t index = input ? i : i - plan->inputs.size();
      const Tensor& tensor = input ? plan->inputs[index] : plan->outputs[index];
      const void* data = input ? inputs[index] : outputs[index];
      const bool wrong = data == nullptr || reinterpret_cast<uintptr_t>(data) % dtype_size(tensor.dtype) != 0;
      if (wrong && tensor.shape.elements() != 0) {
        return error(Code::kInvalidArgument, "%s %zu is null or not aligned to its element size", input ? "input" : "output", index);
      }
    }
    const FloatEnv environment;
    std::unique_ptr<Context> context = take_context(plan);
    NETSUKE_TRY(bind_context(plan, context.get()));
    const Status status = execute(*plan, context.get(), inputs, outputs, step_ns);
    const std::lock_guard<std::mutex> lock(mutex_);
    contexts_.push_back(std::move(context));
    return status;
  });
}

Status Engine::execute(const Plan& plan, Context* context, const void* const* inputs, void* const* outputs, int64_t* step_ns) {
  using Clock = std::chrono::steady_clock;
  Tensor* tensors = context->tensors.data();
  for (size_t t = 0; t < plan.places.size(); ++t) {
    const Location& place = plan.places[t];
    void* data = tensors[t].data;
    if (place.kind == Location::Kind::kInput) data = const_cast<void*>(inputs[place.index]);
    if (place.kind == Location::Kind::kOutput) data = outputs[place.index];
    tensors[t].data = data == nullptr && place.kind != Location::Kind::kAbsent ? empty_tensor : data;
  }
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    const auto start = step_ns == nullptr ? Clock::time_point() : Clock::now();
    const RunArgs args{tensors + step.in, step.n_in, tensors + step.out, step.n_out, context->arena.data() + step.scratch, *pool_};
    const Status status = ops_[static_cast<size_t>(step.node)]->run(args);
    if (!status.ok()) {
      const NodeInfo& node = program_.nodes[static_cast<size_t>(step.node)];
      return error(status.code(), "node '%s' (%s): %s", node.name.c_str(), node.op.c_str(), status.message().c_str());
    }
    if (step_ns != nullptr) step_ns[s] = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
  }
  for (const auto& [output, place] : plan.copies) {
    const Tensor& tensor = plan.outputs[static_cast<size_t>(output)];
    const size_t bytes = static_cast<size_t>(tensor.shape.elements()) * dtype_size(tensor.dtype);
    const void* from = place.kind == Location::Kind::kInput    ? inputs[place.index]
                       : place.kind == Location::Kind::kOutput ? outputs[place.index]
                                                               : place.fixed;
    if (bytes != 0) std::memcpy(outputs[output], from, bytes);
  }
  return Status();
}

Cost Engine::step_cost(const Plan& plan, const Step& step) const {
  return ops_[static_cast<size_t>(step.node)]->cost(&plan.tensors[static_cast<size_t>(step.in)], step.n_in,
                                                    &plan.tensors[static_cast<size_t>(step.out)], step.n_out);
}

}  // namespace netsuke
