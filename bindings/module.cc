// netsuke._runtime: the engine for Python. Thin: arguments are converted, the work is runtime/graph's. src/netsuke/engine is
// the face people use.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "base/choices.h"
#include "bindings.h"
#include "graph/engine.h"
#include "limits/limits.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using netsuke::DType;
using netsuke::Engine;
using netsuke::Plan;
using netsuke::Status;
using Array = nb::ndarray<nb::ro, nb::device::cpu>;

PyObject* runtime_error = nullptr;  // netsuke._runtime.Error, args (code, message); lives as long as the module

void check(const Status& status) {
  if (status.ok()) return;
  const nb::tuple args = nb::make_tuple(static_cast<int>(status.code()), status.message());
  PyErr_SetObject(runtime_error, args.ptr());
  throw nb::python_error();
}

}  // namespace

void netsuke_check(const Status& status) { check(status); }

namespace {

void refuse(const std::string& message) { check(Status(netsuke::Code::kInvalidArgument, message)); }

nb::dlpack::dtype to_dlpack(DType dtype) {
  using Kind = nb::dlpack::dtype_code;
  const auto bits = static_cast<uint8_t>(8 * netsuke::dtype_size(dtype));
  Kind kind = Kind::Float;
  if (dtype == DType::kBF16) kind = Kind::UInt;  // NumPy has no bfloat16: its bits
  if (dtype == DType::kU8) kind = Kind::UInt;
  if (dtype == DType::kS8 || dtype == DType::kI32 || dtype == DType::kI64) kind = Kind::Int;
  if (dtype == DType::kBool) kind = Kind::Bool;
  return {static_cast<uint8_t>(kind), bits, 1};
}

netsuke::Shape shape_of(const Array& array) {
  if (array.ndim() > netsuke::kMaxRank) refuse("an array has more than 8 dimensions");
  netsuke::Shape shape;
  shape.rank = static_cast<int>(array.ndim());
  for (int d = 0; d < shape.rank; ++d) shape.dim[d] = static_cast<int64_t>(array.shape(static_cast<size_t>(d)));
  return shape;
}

bool contiguous(const Array& array) {
  int64_t expected = 1;
  if (array.size() == 0) return true;
  for (size_t d = array.ndim(); d-- > 0;) {
    if (array.shape(d) != 1 && array.stride(d) != expected) return false;
    expected *= static_cast<int64_t>(array.shape(d));
  }
  return true;
}

// The shapes of the inputs, and their addresses: nothing is copied.
std::vector<netsuke::Shape> read_inputs(const Engine& engine, const std::vector<Array>& arrays, std::vector<const void*>* data) {
  const auto& ports = engine.program().inputs;
  if (arrays.size() != ports.size()) refuse("the program has " + std::to_string(ports.size()) + " inputs");
  std::vector<netsuke::Shape> shapes;
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (!(arrays[i].dtype() == to_dlpack(ports[i].dtype))) {
      refuse("input '" + ports[i].name + "' must have dtype " + netsuke::dtype_name(ports[i].dtype));
    }
    if (!contiguous(arrays[i])) refuse("input '" + ports[i].name + "' must be C-contiguous");
    shapes.push_back(shape_of(arrays[i]));
    data->push_back(arrays[i].data());
  }
  return shapes;
}

// NumPy arrays for the outputs; each owns its memory through a capsule.
struct Outputs {
  nb::list arrays;
  std::vector<void*> data;

  explicit Outputs(const Plan& plan) {
    for (const netsuke::Tensor& tensor : plan.outputs) {
      auto memory = std::make_unique<netsuke::Buffer>();
      check(memory->allocate(static_cast<size_t>(tensor.shape.elements()) * netsuke::dtype_size(tensor.dtype)));
      data.push_back(memory->data());
      const nb::capsule owner(memory.get(), [](void* buffer) noexcept { delete static_cast<netsuke::Buffer*>(buffer); });
      memory.release();
      size_t shape[netsuke::kMaxRank] = {};
      for (int d = 0; d < tensor.shape.rank; ++d) shape[d] = static_cast<size_t>(tensor.shape.dim[d]);
      arrays.append(nb::ndarray<nb::numpy>(data.back(), static_cast<size_t>(tensor.shape.rank), shape, owner, nullptr,
                                           to_dlpack(tensor.dtype))
                        .cast());
    }
  }
};

std::shared_ptr<const Plan> plan_for(Engine& engine, const std::vector<netsuke::Shape>& shapes, const std::vector<int>& taps) {
  std::shared_ptr<const Plan> plan;
  Status status;
  {
    const nb::gil_scoped_release release;
    status = engine.plan(shapes, taps, &plan);
  }
  check(status);
  return plan;
}

nb::list run(Engine& engine, const std::vector<Array>& inputs, const std::vector<int>& taps) {
  std::vector<const void*> data;
  const auto plan = plan_for(engine, read_inputs(engine, inputs, &data), taps);
  Outputs outputs(*plan);
  Status status;
  {
    const nb::gil_scoped_release release;
    status = engine.run(plan, data.data(), outputs.data.data());
  }
  check(status);
  return outputs.arrays;
}

// The nanoseconds of every step of every run: [runs][steps].
std::vector<std::vector<int64_t>> profile(Engine& engine, const std::vector<Array>& inputs, int runs) {
  std::vector<const void*> data;
  const auto plan = plan_for(engine, read_inputs(engine, inputs, &data), {});
  Outputs outputs(*plan);
  std::vector<std::vector<int64_t>> times(static_cast<size_t>(runs < 1 ? 1 : runs), std::vector<int64_t>(plan->steps.size()));
  Status status;
  {
    const nb::gil_scoped_release release;
    for (auto& run : times) {
      status = engine.run(plan, data.data(), outputs.data.data(), run.data());
      if (!status.ok()) break;
    }
  }
  check(status);
  return times;
}

nb::list dims_of(const netsuke::Shape& shape) {
  nb::list dims;
  for (int d = 0; d < shape.rank; ++d) dims.append(shape.dim[d]);
  return dims;
}

// What a plan for these input shapes takes: memory, output shapes, and the steps with their costs.
nb::dict plan_info(Engine& engine, const std::vector<std::vector<int64_t>>& input_shapes) {
  std::vector<netsuke::Shape> shapes;
  for (const auto& dims : input_shapes) {
    if (dims.size() > netsuke::kMaxRank) refuse("a shape has more than 8 dimensions");
    netsuke::Shape shape;
    for (int64_t dim : dims) shape.dim[shape.rank++] = dim;
    shapes.push_back(shape);
  }
  const auto plan = plan_for(engine, shapes, {});
  nb::list outputs, steps;
  for (const netsuke::Tensor& tensor : plan->outputs) outputs.append(dims_of(tensor.shape));
  for (const netsuke::Step& step : plan->steps) {
    const netsuke::Cost cost = engine.step_cost(*plan, step);
    nb::dict row;
    row["node"] = step.node;
    row["macs"] = cost.macs;
    row["bytes_read"] = cost.bytes_read;
    row["bytes_written"] = cost.bytes_written;
    row["shape"] = dims_of(plan->tensors[static_cast<size_t>(step.out)].shape);
    steps.append(row);
  }
  nb::dict info;
  info["arena_bytes"] = plan->arena_bytes;
  info["known_bytes"] = plan->known_bytes;
  info["outputs"] = outputs;
  info["steps"] = steps;
  return info;
}

nb::list ports(const std::vector<netsuke::Port>& list) {
  nb::list out;
  for (const netsuke::Port& port : list) {
    nb::list dims;
    for (const netsuke::Dim& dim : port.dims) {
      if (dim.size >= 0) {
        dims.append(dim.size);
      } else {
        dims.append(dim.name);
      }
    }
    out.append(nb::make_tuple(port.name, netsuke::dtype_name(port.dtype), nb::tuple(dims)));
  }
  return out;
}

nb::list values(const Engine& engine) {
  static const char* const kinds[] = {"input", "constant", "node"};
  nb::list out;
  for (const netsuke::ValueInfo& value : engine.program().values) {
    nb::dict row;
    row["name"] = value.name;
    row["kind"] = kinds[static_cast<int>(value.kind)];
    row["source"] = value.source;
    if (value.quantized) {
      row["scale"] = value.scale;
      row["zero"] = value.zero;
    }
    out.append(row);
  }
  return out;
}

nb::list nodes(const Engine& engine) {
  nb::list out;
  for (size_t i = 0; i < engine.program().nodes.size(); ++i) {
    const netsuke::NodeInfo& node = engine.program().nodes[i];
    const char* kernel = engine.op(static_cast<int>(i)).kernel_name();
    out.append(nb::make_tuple(node.name, node.op, kernel, netsuke::kernel_isa(kernel), engine.stored(i),
                              engine.op(static_cast<int>(i)).choice_key(), engine.op(static_cast<int>(i)).ways()));
  }
  return out;
}

std::unique_ptr<Engine> load_file(const std::string& path, int threads, const std::string& isa, int64_t max_bytes) {
  std::unique_ptr<Engine> engine;
  Status status;
  {
    const nb::gil_scoped_release release;
    status = Engine::load_file(path, {threads, isa, max_bytes}, &engine);
  }
  check(status);
  return engine;
}

std::unique_ptr<Engine> load_bytes(const nb::bytes& bytes, int threads, const std::string& isa, int64_t max_bytes) {
  std::unique_ptr<Engine> engine;
  Status status;
  {
    const void* data = bytes.c_str();
    const size_t size = bytes.size();
    const nb::gil_scoped_release release;
    status = Engine::load_bytes(data, size, {threads, isa, max_bytes}, &engine);
  }
  check(status);
  return engine;
}

std::vector<std::pair<std::string, bool>> isas() {
  std::vector<std::pair<std::string, bool>> out;
  for (netsuke::Isa isa : netsuke::compiled_isas()) out.emplace_back(netsuke::isa_name(isa), netsuke::isa_available(isa));
  return out;
}

nb::dict features() {
  const netsuke::CpuFeatures& found = netsuke::cpu_features();
  nb::dict out;
  out["avx512_bf16"] = found.avx512_bf16;
  out["avx512_gfni"] = found.avx512_gfni;
  out["avx512_vbmi"] = found.avx512_vbmi;
  out["avx512_vpopcntdq"] = found.avx512_vpopcntdq;
  return out;
}

// What one core does at best with this instruction set, in GMAC/s and GB/s: about a second of work.
nb::dict limits(const std::string& isa_name, double seconds) {
  netsuke::Isa isa;
  if (!netsuke::isa_from_name(isa_name, &isa)) refuse("unknown instruction set '" + isa_name + "'");
  netsuke::Limits found;
  Status status;
  {
    const nb::gil_scoped_release release;
    status = netsuke::measure_limits(isa, seconds, &found);
  }
  check(status);
  nb::dict out;
  out["f32_gmacs"] = found.f32_gmacs;
  out["bf16_gmacs"] = found.bf16_gmacs;
  out["int16_gmacs"] = found.int16_gmacs;
  out["int8_gmacs"] = found.int8_gmacs;
  out["bit_gmacs"] = found.bit_gmacs;
  out["l1_gbs"] = found.l1_gbs;
  out["l2_gbs"] = found.l2_gbs;
  out["l3_gbs"] = found.l3_gbs;
  out["dram_gbs"] = found.dram_gbs;
  return out;
}

void bind_engine(nb::module_& m) {
  nb::class_<Engine>(m, "Engine")
      .def_static("load_file", &load_file, "path"_a, "threads"_a, "isa"_a, "max_bytes"_a)
      .def_static("load_bytes", &load_bytes, "data"_a, "threads"_a, "isa"_a, "max_bytes"_a)
      .def("run", &run, "inputs"_a, "taps"_a)
      .def("profile", &profile, "inputs"_a, "runs"_a)
      .def("plan_info", &plan_info, "shapes"_a)
      .def("find_value", &Engine::find_value, "name"_a)
      .def_prop_ro("inputs", [](const Engine& engine) { return ports(engine.program().inputs); })
      .def_prop_ro("outputs", [](const Engine& engine) { return ports(engine.program().outputs); })
      .def_prop_ro("values", &values)
      .def_prop_ro("nodes", &nodes)
      .def_prop_ro("name", [](const Engine& engine) { return engine.program().name; })
      .def_prop_ro("producer", [](const Engine& engine) { return engine.program().producer; })
      .def_prop_ro("plan", [](const Engine& engine) { return engine.program().plan; })
      .def_prop_ro("meta", [](const Engine& engine) { return engine.program().meta; })
      .def_prop_ro("isa", [](const Engine& engine) { return netsuke::isa_name(engine.isa()); })
      .def_prop_ro("threads", &Engine::threads)
      .def_prop_ro("file_bytes", &Engine::file_bytes)
      .def_prop_ro("packed_bytes", &Engine::packed_bytes);
}

}  // namespace

NB_MODULE(_runtime, m) {
  m.doc() = "The compiled runtime of netsuke; see netsuke.engine.";
  const nb::object error = nb::steal(PyErr_NewException("netsuke._runtime.Error", PyExc_RuntimeError, nullptr));
  runtime_error = error.ptr();
  Py_INCREF(runtime_error);
  m.attr("Error") = error;
  m.def("isas", &isas, "Instruction sets compiled in, best first, and whether this CPU has them.");
  m.def("best_isa", [] { return netsuke::isa_name(netsuke::best_isa()); });
  m.def("features", &features, "Extensions that some kernels use on top of their instruction set.");
  m.def("limits", &limits, "isa"_a, "seconds"_a, "What one core does at best: GMAC/s and GB/s.");
  m.def("op_names", &netsuke::op_names);
  m.def("set_choices", &netsuke::set_choices, "choices"_a, "Ways of layers by key; base/choices.h.");
  m.def("default_threads", &netsuke::default_threads);
  bind_engine(m);
  bind_training(m);
}
