// include/netsuke.h over the engine. Handles hold shared pointers, so a plan keeps its engine alive.
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "graph/engine.h"
#include "netsuke.h"

struct netsuke_engine {
  std::shared_ptr<netsuke::Engine> engine;
};

struct netsuke_plan {
  std::shared_ptr<netsuke::Engine> engine;
  std::shared_ptr<const netsuke::Plan> plan;
  std::vector<int> values;  // behind the outputs, taps included
};

namespace {

using netsuke::Code;
using netsuke::Status;

static_assert(NETSUKE_MAX_RANK == netsuke::kMaxRank, "one limit");
static_assert(NETSUKE_BOOL == static_cast<int>(netsuke::DType::kBool) && NETSUKE_U8 == static_cast<int>(netsuke::DType::kU8), "one list");
static_assert(NETSUKE_INTERNAL == static_cast<int>(Code::kInternal), "one list");

// A fixed array: keeping the message of an out-of-memory error must not need memory.
thread_local char last_error[4096];

int report(const Status& status) {
  if (status.ok()) return NETSUKE_OK;
  const size_t length = status.message().copy(last_error, sizeof last_error - 1);
  last_error[length] = '\0';
  return static_cast<int>(status.code());
}

int invalid(const char* message) {
  size_t length = 0;
  for (; message[length] != '\0'; ++length) last_error[length] = message[length];
  last_error[length] = '\0';
  return NETSUKE_INVALID_ARGUMENT;
}

template <typename Body>
int guarded(const Body& body) {
  try {
    return report(body());
  } catch (const std::bad_alloc&) {
    invalid("out of memory");
    return NETSUKE_OUT_OF_MEMORY;
  } catch (...) {
    invalid("unexpected exception");
    return NETSUKE_INTERNAL;
  }
}

netsuke::EngineOptions read_options(const netsuke_options* options) {
  netsuke::EngineOptions out;
  if (options != nullptr) {
    out.threads = options->threads;
    out.max_bytes = options->max_bytes;
  }
  const char* isa = options != nullptr && options->isa != nullptr ? options->isa : std::getenv("NETSUKE_ISA");
  if (isa != nullptr) out.isa = isa;
  return out;
}

int fill_port(const netsuke::Port& from, netsuke_port* to) {
  *to = netsuke_port();
  to->name = from.name.c_str();
  to->dtype = static_cast<int>(from.dtype);
  to->rank = static_cast<int>(from.dims.size());
  for (size_t d = 0; d < from.dims.size(); ++d) {
    to->dims[d] = from.dims[d].size;
    to->dim_names[d] = from.dims[d].size < 0 ? from.dims[d].name.c_str() : nullptr;
  }
  return NETSUKE_OK;
}

int port_at(const std::vector<netsuke::Port>& ports, int index, netsuke_port* port) {
  if (port == nullptr || index < 0 || index >= static_cast<int>(ports.size())) return invalid("no such port");
  return fill_port(ports[static_cast<size_t>(index)], port);
}

Status read_shapes(const netsuke_shape* shapes, int count, std::vector<netsuke::Shape>* out) {
  if (count < 0 || (count > 0 && shapes == nullptr)) return Status(Code::kInvalidArgument, "no shapes given");
  for (int i = 0; i < count; ++i) {
    netsuke::Shape shape;
    shape.rank = shapes[i].rank;
    if (shape.rank < 0 || shape.rank > netsuke::kMaxRank) return Status(Code::kInvalidArgument, "a shape has a rank outside of 0 to 8");
    if (shape.rank > 0 && shapes[i].dims == nullptr) return Status(Code::kInvalidArgument, "a shape has no dims");
    for (int d = 0; d < shape.rank; ++d) shape.dim[d] = shapes[i].dims[d];
    out->push_back(shape);
  }
  return Status();
}

Status run_plan(netsuke_plan* plan, const void* const* inputs, void* const* outputs, int64_t* ns) {
  if (plan == nullptr) return Status(Code::kInvalidArgument, "plan is null");
  if ((inputs == nullptr && !plan->plan->inputs.empty()) || outputs == nullptr) {
    return Status(Code::kInvalidArgument, "inputs or outputs is null");
  }
  return plan->engine->run(plan->plan, inputs, outputs, ns);
}

void fill_step(const netsuke_plan* plan, size_t index, netsuke_step* step) {
  const netsuke::Step& from = plan->plan->steps[index];
  const netsuke::Cost cost = plan->engine->step_cost(*plan->plan, from);
  *step = netsuke_step{from.node, cost.macs, cost.bytes_read, cost.bytes_written, 0};
}

template <typename Load>
int load(netsuke_engine** engine, const Load& load_it) {
  if (engine == nullptr) return invalid("engine is null");
  *engine = nullptr;
  return guarded([&]() -> Status {
    std::unique_ptr<netsuke::Engine> loaded;
    NETSUKE_TRY(load_it(&loaded));
    *engine = new netsuke_engine{std::move(loaded)};
    return Status();
  });
}

}  // namespace

extern "C" {

const char* netsuke_version(void) { return NETSUKE_VERSION; }
const char* netsuke_last_error(void) { return last_error; }

const char* netsuke_isa_name(int index) {
  const auto isas = netsuke::compiled_isas();
  return index >= 0 && index < static_cast<int>(isas.size()) ? netsuke::isa_name(isas[static_cast<size_t>(index)]) : nullptr;
}

int netsuke_isa_available(int index) {
  const auto isas = netsuke::compiled_isas();
  return index >= 0 && index < static_cast<int>(isas.size()) && netsuke::isa_available(isas[static_cast<size_t>(index)]) ? 1 : 0;
}

int netsuke_load_file(const char* path, const netsuke_options* options, netsuke_engine** engine) {
  if (path == nullptr) return invalid("path is null");
  return load(engine, [&](auto* out) { return netsuke::Engine::load_file(path, read_options(options), out); });
}

int netsuke_load_memory(const void* bytes, size_t size, const netsuke_options* options, netsuke_engine** engine) {
  if (bytes == nullptr) return invalid("bytes is null");
  return load(engine, [&](auto* out) { return netsuke::Engine::load_bytes(bytes, size, read_options(options), out); });
}

void netsuke_engine_free(netsuke_engine* engine) { delete engine; }

int netsuke_engine_inputs(const netsuke_engine* engine) { return static_cast<int>(engine->engine->program().inputs.size()); }
int netsuke_engine_outputs(const netsuke_engine* engine) { return static_cast<int>(engine->engine->program().outputs.size()); }
int netsuke_engine_nodes(const netsuke_engine* engine) { return static_cast<int>(engine->engine->program().nodes.size()); }

int netsuke_engine_input(const netsuke_engine* engine, int index, netsuke_port* port) {
  return port_at(engine->engine->program().inputs, index, port);
}

int netsuke_engine_output(const netsuke_engine* engine, int index, netsuke_port* port) {
  return port_at(engine->engine->program().outputs, index, port);
}

int netsuke_engine_node(const netsuke_engine* engine, int index, netsuke_node* node) {
  if (node == nullptr || index < 0 || index >= netsuke_engine_nodes(engine)) return invalid("no such node");
  const netsuke::NodeInfo& from = engine->engine->program().nodes[static_cast<size_t>(index)];
  const char* kernel = engine->engine->op(index).kernel_name();
  return guarded([&] {
    *node = netsuke_node{from.name.c_str(), from.op.c_str(), kernel, netsuke::kernel_isa(kernel)};
    return Status();
  });
}

const char* netsuke_engine_isa(const netsuke_engine* engine) { return netsuke::isa_name(engine->engine->isa()); }
int netsuke_engine_threads(const netsuke_engine* engine) { return engine->engine->threads(); }
int64_t netsuke_engine_file_bytes(const netsuke_engine* engine) { return static_cast<int64_t>(engine->engine->file_bytes()); }
int64_t netsuke_engine_packed_bytes(const netsuke_engine* engine) { return static_cast<int64_t>(engine->engine->packed_bytes()); }

int netsuke_plan_new(netsuke_engine* engine, const netsuke_shape* shapes, int n_shapes, const char* const* taps, int n_taps,
                     netsuke_plan** plan) {
  if (engine == nullptr || plan == nullptr) return invalid("engine or plan is null");
  *plan = nullptr;
  return guarded([&]() -> Status {
    auto out = std::make_unique<netsuke_plan>();
    out->engine = engine->engine;
    std::vector<netsuke::Shape> wanted;
    NETSUKE_TRY(read_shapes(shapes, n_shapes, &wanted));
    std::vector<int> tapped;
    for (int i = 0; i < n_taps; ++i) {
      const int value = taps == nullptr || taps[i] == nullptr ? -1 : engine->engine->find_value(taps[i]);
      if (value < 0) return Status(Code::kInvalidArgument, "a tap names no value of the program");
      tapped.push_back(value);
    }
    NETSUKE_TRY(engine->engine->plan(wanted, tapped, &out->plan));
    for (const netsuke::Port& port : engine->engine->program().outputs) out->values.push_back(port.value);
    out->values.insert(out->values.end(), tapped.begin(), tapped.end());
    *plan = out.release();
    return Status();
  });
}

void netsuke_plan_free(netsuke_plan* plan) { delete plan; }

int netsuke_plan_outputs(const netsuke_plan* plan) { return static_cast<int>(plan->plan->outputs.size()); }

int netsuke_plan_output(const netsuke_plan* plan, int index, netsuke_port* port) {
  if (port == nullptr || index < 0 || index >= netsuke_plan_outputs(plan)) return invalid("no such output");
  const netsuke::Tensor& tensor = plan->plan->outputs[static_cast<size_t>(index)];
  *port = netsuke_port();
  port->name = plan->engine->program().values[static_cast<size_t>(plan->values[static_cast<size_t>(index)])].name.c_str();
  port->dtype = static_cast<int>(tensor.dtype);
  port->rank = tensor.shape.rank;
  for (int d = 0; d < tensor.shape.rank; ++d) port->dims[d] = tensor.shape.dim[d];
  return NETSUKE_OK;
}

int64_t netsuke_plan_output_bytes(const netsuke_plan* plan, int index) {
  if (index < 0 || index >= netsuke_plan_outputs(plan)) return 0;
  const netsuke::Tensor& tensor = plan->plan->outputs[static_cast<size_t>(index)];
  return tensor.shape.elements() * static_cast<int64_t>(netsuke::dtype_size(tensor.dtype));
}

int64_t netsuke_plan_arena_bytes(const netsuke_plan* plan) { return plan->plan->arena_bytes; }
int netsuke_plan_steps(const netsuke_plan* plan) { return static_cast<int>(plan->plan->steps.size()); }

int netsuke_plan_step(const netsuke_plan* plan, int index, netsuke_step* step) {
  if (step == nullptr || index < 0 || index >= netsuke_plan_steps(plan)) return invalid("no such step");
  fill_step(plan, static_cast<size_t>(index), step);
  return NETSUKE_OK;
}

int netsuke_run(netsuke_plan* plan, const void* const* inputs, void* const* outputs) {
  return guarded([&] { return run_plan(plan, inputs, outputs, nullptr); });
}

int netsuke_profile(netsuke_plan* plan, const void* const* inputs, void* const* outputs, netsuke_step* steps) {
  if (plan == nullptr || (steps == nullptr && !plan->plan->steps.empty())) return invalid("plan or steps is null");
  return guarded([&]() -> Status {
    std::vector<int64_t> ns(plan->plan->steps.size());
    NETSUKE_TRY(run_plan(plan, inputs, outputs, ns.data()));
    for (size_t i = 0; i < ns.size(); ++i) {
      fill_step(plan, i, &steps[i]);
      steps[i].nanoseconds = ns[i];
    }
    return Status();
  });
}

}  // extern "C"
