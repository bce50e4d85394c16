// Engine and C interface: plans, views, in place, outputs in the caller's memory, taps, empty batches, concurrent runs.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "base/check.h"
#include "graph/engine.h"
#include "graph/sample.h"
#include "netsuke.hpp"

namespace netsuke {
namespace {

std::vector<float> numbers(size_t count, float start = 0) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = start + static_cast<float>(i);
  return out;
}

struct Result {
  std::vector<float> a, b, g;
  bool operator==(const Result& other) const { return a == other.a && b == other.b && g == other.g; }
};

// What sample_movement computes, in plain loops.
Result expected(const std::vector<float>& x, int64_t n, int64_t h) {
  Result out;
  const auto nhwc = [&](int64_t i, int64_t y, int64_t w, int64_t c) { return x[static_cast<size_t>(((i * 2 + c) * h + y) * 3 + w)]; };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < h * 6; ++k) {
      const float value = nhwc(i, k / 6, k % 6 / 2, k % 2);
      out.a.push_back(value);
      out.b.push_back(value);
    }
    for (int64_t y = 0; y < h + 1; ++y) {
      for (int64_t w = 0; w < 3 + 2; ++w) {
        const int64_t from_y = std::max<int64_t>(y - 1, 0), from_w = std::min<int64_t>(w, 2);
        out.g.push_back(nhwc(i, from_y, from_w, 1));
        out.g.push_back(nhwc(i, from_y, from_w, 0));
      }
    }
  }
  return out;
}

Result run_sample(const nsk::Plan& plan, const std::vector<float>& x) {
  Result out;
  out.a.resize(static_cast<size_t>(plan.output_bytes(0)) / 4);
  out.b.resize(static_cast<size_t>(plan.output_bytes(1)) / 4);
  out.g.resize(static_cast<size_t>(plan.output_bytes(2)) / 4);
  plan.run({x.data()}, {out.a.data(), out.b.data(), out.g.data()});
  return out;
}

void test_shapes_in_turn() {
  const std::string file = sample_movement();
  const nsk::Engine engine(file.data(), file.size());
  CHECK(engine.inputs() == 1 && engine.outputs() == 3 && engine.nodes() == 9);
  CHECK(engine.input(0).dims[0] == -1 && std::string(engine.input(0).dim_names[0]) == "N" && engine.input(0).dims[1] == 2);
  for (int64_t n : {1, 3, 2}) {
    for (int64_t h : {4, 1, 7}) {
      const nsk::Plan plan = engine.plan({{n, 2, h, 3}});
      const std::vector<float> x = numbers(static_cast<size_t>(n * 2 * h * 3), static_cast<float>(h));
      CHECK(run_sample(plan, x) == expected(x, n, h));
      CHECK(plan.output(2).dims[1] == h + 1 && plan.output(2).dims[2] == 5);
    }
  }
}

void test_plan_facts() {
  const std::string file = sample_movement();
  const nsk::Engine engine(file.data(), file.size());
  const nsk::Plan plan = engine.plan({{2, 2, 4, 3}});
  // transpose, concat, split, pad, gather; shape, slice and the small concat ran while planning, reshape is a view.
  CHECK(netsuke_plan_steps(plan.get()) == 5);
  const std::vector<float> x = numbers(48);
  Result out = expected(x, 2, 4);
  const std::vector<netsuke_step> steps = plan.profile({x.data()}, {out.a.data(), out.b.data(), out.g.data()});
  CHECK(steps.size() == 5 && std::string(engine.node(steps[0].node).op) == "transpose" && steps[0].bytes_read == 192);
  CHECK(std::string(engine.node(steps[0].node).isa) == "portable");
}

void test_taps() {
  const std::string file = sample_movement();
  const nsk::Engine engine(file.data(), file.size());
  const nsk::Plan plan = engine.plan({{1, 2, 1, 3}}, {"x", "t", "s", "r", "a", "index"});
  CHECK(plan.outputs() == 9 && std::string(plan.output(3).name) == "x");
  const std::vector<float> x = numbers(6);
  std::vector<std::vector<uint8_t>> memory;
  std::vector<void*> outputs;
  for (int i = 0; i < plan.outputs(); ++i) memory.emplace_back(static_cast<size_t>(plan.output_bytes(i)));
  for (auto& bytes : memory) outputs.push_back(bytes.data());
  plan.run({x.data()}, outputs);
  CHECK(std::memcmp(memory[3].data(), x.data(), 24) == 0);
  const float nhwc[] = {0, 3, 1, 4, 2, 5};
  CHECK(std::memcmp(memory[4].data(), nhwc, 24) == 0 && std::memcmp(memory[6].data(), nhwc, 24) == 0);
  const int64_t shape[] = {1, 1, 3, 2}, index[] = {1, -2};
  CHECK(std::memcmp(memory[5].data(), shape, 32) == 0 && std::memcmp(memory[8].data(), index, 16) == 0);
  CHECK(memory[7] == memory[0]);
  bool refused = false;
  try {
    engine.plan({{1, 2, 1, 3}}, {"nothing"});
  } catch (const nsk::Error& error) {
    refused = error.code() == NETSUKE_INVALID_ARGUMENT;
  }
  CHECK(refused);
}

// Found by the fuzzer: codes that a layer has packed are no longer in memory, a tap must not read them.
void test_taps_of_packed_weights() {
  const std::string file = sample_packed();
  const nsk::Engine engine(file.data(), file.size());
  engine.plan({{1, 7}}, {"h", "mult"});
  int code = NETSUKE_OK;
  try {
    engine.plan({{1, 7}}, {"w"});
  } catch (const nsk::Error& error) {
    code = error.code();
  }
  CHECK(code == NETSUKE_INVALID_ARGUMENT);
}

int plan_code(const nsk::Engine& engine, const std::vector<nsk::Dims>& shapes) {
  try {
    engine.plan(shapes);
    return NETSUKE_OK;
  } catch (const nsk::Error& error) {
    return error.code();
  }
}

void test_wrong_shapes() {
  const std::string file = sample_movement();
  netsuke_options options = {2, nullptr, 1 << 20};
  const nsk::Engine engine(file.data(), file.size(), options);
  CHECK(engine.threads() == 2);
  CHECK(plan_code(engine, {{1, 2, 4, 3}}) == NETSUKE_OK);
  CHECK(plan_code(engine, {}) == NETSUKE_INVALID_ARGUMENT);
  CHECK(plan_code(engine, {{1, 2, 4}}) == NETSUKE_INVALID_ARGUMENT);
  CHECK(plan_code(engine, {{1, 3, 4, 3}}) == NETSUKE_INVALID_ARGUMENT);
  CHECK(std::string(netsuke_last_error()).find("dimension 1 must be 2") != std::string::npos);
  CHECK(plan_code(engine, {{-1, 2, 4, 3}}) == NETSUKE_INVALID_ARGUMENT);
  CHECK(plan_code(engine, {{1, 2, int64_t{1} << 60, 3}}) != NETSUKE_OK);
  CHECK(plan_code(engine, {{0, 2, int64_t{1} << 60, 3}}) != NETSUKE_OK);  // empty, but partial products would overflow
  CHECK(plan_code(engine, {{1, 2, 20000, 3}}) == NETSUKE_OUT_OF_MEMORY);   // the input fits 1 MB, the arena does not
  CHECK(plan_code(engine, {{1, 2, 0, 3}}) == NETSUKE_INVALID_ARGUMENT);    // edge padding of an empty dimension
  CHECK(plan_code(engine, {{0, 2, 4, 3}}) == NETSUKE_INVALID_ARGUMENT);    // [0, -1]: -1 could be anything
  CHECK(std::string(netsuke_last_error()).find("-1 cannot be inferred") != std::string::npos);
}

void test_empty_batch() {
  const std::string file = sample_file(sample_program(sample_port("x", "f32", "[\"N\",2,3]"), sample_port("y", "f32", "[\"N\",3,2]"),
                                                      sample_node("transpose", "[\"x\"]", "[\"y\"]", "{\"perm\":[0,2,1]}")));
  const nsk::Engine engine(file.data(), file.size());
  const nsk::Plan plan = engine.plan({{0, 2, 3}});
  CHECK(plan.output(0).dims[0] == 0 && plan.output_bytes(0) == 0 && netsuke_plan_steps(plan.get()) == 0);
  plan.run({nullptr}, {nullptr});
}

void test_bad_calls() {
  netsuke_engine* engine = nullptr;
  CHECK(netsuke_load_memory("x", 1, nullptr, &engine) == NETSUKE_CORRUPT_FILE && engine == nullptr);
  CHECK(netsuke_load_file(nullptr, nullptr, &engine) == NETSUKE_INVALID_ARGUMENT);
  netsuke_options options = {1, "mmx", 0};
  const std::string file = sample_movement();
  CHECK(netsuke_load_memory(file.data(), file.size(), &options, &engine) == NETSUKE_UNSUPPORTED);
  CHECK(std::string(netsuke_last_error()).find("portable") != std::string::npos);
  options = {-1, nullptr, 0};
  CHECK(netsuke_load_memory(file.data(), file.size(), &options, &engine) == NETSUKE_INVALID_ARGUMENT);
  CHECK(netsuke_load_memory(file.data(), file.size(), nullptr, &engine) == NETSUKE_OK);
  const int64_t dims[] = {1, 2, 4, 3};
  const netsuke_shape shape = {4, dims};
  netsuke_plan* plan = nullptr;
  CHECK(netsuke_plan_new(engine, &shape, 1, nullptr, 0, &plan) == NETSUKE_OK);
  netsuke_engine_free(engine);  // the plan keeps it alive
  const void* no_inputs[] = {nullptr};
  void* no_outputs[] = {nullptr, nullptr, nullptr};
  CHECK(netsuke_run(plan, no_inputs, no_outputs) == NETSUKE_INVALID_ARGUMENT);
  CHECK(netsuke_run(plan, nullptr, no_outputs) == NETSUKE_INVALID_ARGUMENT);
  std::vector<netsuke_step> steps(static_cast<size_t>(netsuke_plan_steps(plan)));
  CHECK(netsuke_profile(plan, nullptr, no_outputs, steps.data()) == NETSUKE_INVALID_ARGUMENT);
  CHECK(netsuke_profile(plan, no_inputs, no_outputs, nullptr) == NETSUKE_INVALID_ARGUMENT);
  netsuke_port port;
  CHECK(netsuke_plan_output(plan, 3, &port) == NETSUKE_INVALID_ARGUMENT && netsuke_plan_output_bytes(plan, -1) == 0);
  netsuke_plan_free(plan);
  CHECK(netsuke_isa_name(-1) == nullptr && netsuke_isa_name(100) == nullptr && netsuke_isa_available(100) == 0);
}

void test_concurrent_runs() {
  const std::string file = sample_movement();
  netsuke_options options = {2, nullptr, 0};
  const nsk::Engine engine(file.data(), file.size(), options);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int repeat = 0; repeat < 100; ++repeat) {
        const int64_t n = 1 + (repeat + caller) % 3, h = 2 + caller;
        const std::vector<float> x = numbers(static_cast<size_t>(n * 6 * h), static_cast<float>(100 * caller + repeat));
        if (!(run_sample(engine.plan({{n, 2, h, 3}}), x) == expected(x, n, h))) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

void test_from_file() {
  char path[] = "/tmp/netsuke-test-XXXXXX";
  const int handle = mkstemp(path);
  const std::string file = sample_movement();
  CHECK(write(handle, file.data(), file.size()) == static_cast<ssize_t>(file.size()));
  close(handle);
  const nsk::Engine engine{std::string(path)};
  unlink(path);
  const std::vector<float> x = numbers(24);
  CHECK(run_sample(engine.plan({{1, 2, 4, 3}}), x) == expected(x, 1, 4));
}

// Output shapes are checked against what the file declares.
void test_wrong_declaration() {
  const std::string file = sample_file(sample_program(sample_port("x", "f32", "[\"N\",2]"), sample_port("y", "f32", "[\"N\",\"N\"]"),
                                                      sample_node("identity", "[\"x\"]", "[\"y\"]")));
  const nsk::Engine engine(file.data(), file.size());
  CHECK(plan_code(engine, {{3, 2}}) == NETSUKE_CORRUPT_FILE);
  CHECK(plan_code(engine, {{2, 2}}) == NETSUKE_OK);
}

void test_kernel_isa() {
  CHECK(std::string(kernel_isa("qconv_a8w8_x86_avx2_4x16")) == "avx2");
  CHECK(std::string(kernel_isa("qconv_a8w8_x86_avx512vnni_4x16")) == "avx512vnni");
  CHECK(std::string(kernel_isa("linear_x86_avx512bf16")) == "avx512vnni");
  CHECK(std::string(kernel_isa("qconv_arm_neondot_4x8")) == "neondot");
  CHECK(std::string(kernel_isa("qconv_arm_neon_4x8")) == "neon");
  CHECK(std::string(kernel_isa("movement_strided")) == "portable");
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  test_shapes_in_turn();
  test_plan_facts();
  test_taps();
  test_taps_of_packed_weights();
  test_wrong_shapes();
  test_empty_batch();
  test_bad_calls();
  test_concurrent_runs();
  test_from_file();
  test_wrong_declaration();
  test_kernel_isa();
  return check_result();
}
