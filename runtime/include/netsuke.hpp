// netsuke for C++: owners and exceptions over netsuke.h, nothing else. (Its namespace is not the runtime's own, so that both
// can be linked into one program.)
//
//     nsk::Engine engine("model.nsk");
//     nsk::Plan plan = engine.plan({{1, 3, 224, 224}});
//     std::vector<float> logits(plan.output_bytes(0) / sizeof(float));
//     plan.run({pixels}, {logits.data()});
#ifndef NETSUKE_HPP_
#define NETSUKE_HPP_

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "netsuke.h"

namespace nsk {

class Error : public std::runtime_error {
 public:
  explicit Error(int code) : std::runtime_error(netsuke_last_error()), code_(code) {}
  int code() const { return code_; }  // NETSUKE_INVALID_ARGUMENT, ...

 private:
  int code_;
};

inline void require(int code) {
  if (code != NETSUKE_OK) throw Error(code);
}

using Dims = std::vector<int64_t>;

class Plan {
 public:
  explicit Plan(netsuke_plan* plan) : plan_(plan, &netsuke_plan_free) {}

  int outputs() const { return netsuke_plan_outputs(plan_.get()); }
  netsuke_port output(int index) const {
    netsuke_port port;
    require(netsuke_plan_output(plan_.get(), index, &port));
    return port;
  }
  int64_t output_bytes(int index) const { return netsuke_plan_output_bytes(plan_.get(), index); }
  int64_t arena_bytes() const { return netsuke_plan_arena_bytes(plan_.get()); }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs) const {
    require(netsuke_run(plan_.get(), inputs.data(), outputs.data()));
  }
  std::vector<netsuke_step> profile(const std::vector<const void*>& inputs, const std::vector<void*>& outputs) const {
    std::vector<netsuke_step> steps(static_cast<size_t>(netsuke_plan_steps(plan_.get())));
    require(netsuke_profile(plan_.get(), inputs.data(), outputs.data(), steps.data()));
    return steps;
  }
  netsuke_plan* get() const { return plan_.get(); }

 private:
  std::unique_ptr<netsuke_plan, void (*)(netsuke_plan*)> plan_;
};

class Engine {
 public:
  explicit Engine(const std::string& path, const netsuke_options& options = {}) : Engine() {
    netsuke_engine* engine = nullptr;
    require(netsuke_load_file(path.c_str(), &options, &engine));
    engine_.reset(engine);
  }
  Engine(const void* bytes, size_t size, const netsuke_options& options = {}) : Engine() {
    netsuke_engine* engine = nullptr;
    require(netsuke_load_memory(bytes, size, &options, &engine));
    engine_.reset(engine);
  }

  int inputs() const { return netsuke_engine_inputs(engine_.get()); }
  int outputs() const { return netsuke_engine_outputs(engine_.get()); }
  netsuke_port input(int index) const {
    netsuke_port port;
    require(netsuke_engine_input(engine_.get(), index, &port));
    return port;
  }
  netsuke_port output(int index) const {
    netsuke_port port;
    require(netsuke_engine_output(engine_.get(), index, &port));
    return port;
  }
  netsuke_node node(int index) const {
    netsuke_node node;
    require(netsuke_engine_node(engine_.get(), index, &node));
    return node;
  }
  int nodes() const { return netsuke_engine_nodes(engine_.get()); }
  int threads() const { return netsuke_engine_threads(engine_.get()); }
  std::string isa() const { return netsuke_engine_isa(engine_.get()); }

  Plan plan(const std::vector<Dims>& shapes, const std::vector<std::string>& taps = {}) const {
    std::vector<netsuke_shape> raw;
    for (const Dims& dims : shapes) raw.push_back({static_cast<int>(dims.size()), dims.data()});
    std::vector<const char*> names;
    for (const std::string& tap : taps) names.push_back(tap.c_str());
    netsuke_plan* plan = nullptr;
    require(netsuke_plan_new(engine_.get(), raw.data(), static_cast<int>(raw.size()), names.data(), static_cast<int>(names.size()),
                             &plan));
    return Plan(plan);
  }
  netsuke_engine* get() const { return engine_.get(); }

 private:
  Engine() : engine_(nullptr, &netsuke_engine_free) {}
  std::unique_ptr<netsuke_engine, void (*)(netsuke_engine*)> engine_;
};

}  // namespace nsk

#endif  // NETSUKE_HPP_
