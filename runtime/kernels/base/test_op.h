// For the kernels' tests and benchmarks: attributes by hand, random tensors, and one call that builds an operator, infers its output,
// gives it exactly the scratch it asked for and runs it.
#ifndef NETSUKE_KERNELS_BASE_TEST_OP_H_
#define NETSUKE_KERNELS_BASE_TEST_OP_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/cpu.h"
#include "kernels/op.h"

namespace netsuke {

class TestAttrs : public Attrs {
 public:
  TestAttrs& set(const char* key, int64_t v) { ints_[key] = v; return *this; }
  TestAttrs& set(const char* key, int v) { ints_[key] = v; return *this; }
  TestAttrs& set(const char* key, float v) { floats_[key] = v; return *this; }
  TestAttrs& set(const char* key, const char* v) { texts_[key] = v; return *this; }
  TestAttrs& set(const char* key, std::vector<int64_t> v) { lists_[key] = std::move(v); return *this; }

  Status get(const char* key, int64_t* out) const override { return find(ints_, key, out); }
  Status get(const char* key, float* out) const override { return find(floats_, key, out); }
  Status get(const char* key, std::string* out) const override { return find(texts_, key, out); }
  Status get(const char* key, std::vector<int64_t>* out) const override { return find(lists_, key, out); }
  Status get_or(const char* key, int64_t d, int64_t* out) const override { return find_or(ints_, key, d, out); }
  Status get_or(const char* key, float d, float* out) const override { return find_or(floats_, key, d, out); }
  Status get_or(const char* key, const char* d, std::string* out) const override { return find_or(texts_, key, std::string(d), out); }
  Status get_or(const char* key, std::vector<int64_t> d, std::vector<int64_t>* out) const override { return find_or(lists_, key, d, out); }
  bool has(const char* key) const override { return ints_.count(key) + floats_.count(key) + texts_.count(key) + lists_.count(key) > 0; }

 private:
  template <typename Map, typename T>
  Status find(const Map& map, const char* key, T* out) const {
    const auto it = map.find(key);
    if (it == map.end()) return error(Code::kInvalidArgument, "attribute %s is missing", key);
    *out = it->second;
    return Status();
  }
  template <typename Map, typename T>
  Status find_or(const Map& map, const char* key, const T& fallback, T* out) const {
    const auto it = map.find(key);
    *out = it == map.end() ? fallback : it->second;
    return Status();
  }
  std::map<std::string, int64_t> ints_;
  std::map<std::string, float> floats_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, std::vector<int64_t>> lists_;
};

// xorshift64*: the same numbers on every machine.
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dull >> 16;
  }
  int64_t range(int64_t lo, int64_t hi) { return lo + static_cast<int64_t>(next() % static_cast<uint64_t>(hi - lo + 1)); }
  uint8_t code() { return static_cast<uint8_t>(next()); }
  float uniform(float lo, float hi) { return lo + (hi - lo) * static_cast<float>(next() & 0xffffff) / 16777216.0f; }

 private:
  uint64_t state_;
};

inline Shape test_shape(const std::vector<int64_t>& dims) {
  Shape shape;
  shape.rank = static_cast<int>(dims.size());
  for (int i = 0; i < shape.rank; ++i) shape.dim[i] = dims[static_cast<size_t>(i)];
  return shape;
}

template <typename T>
Tensor make_tensor(DType dtype, const std::vector<int64_t>& dims, std::vector<T>& data) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = test_shape(dims);
  tensor.data = data.data();
  return tensor;
}

struct TestResult {
  Status status;
  Tensor out;                   // data points into bytes
  std::vector<uint8_t> bytes;
  std::string kernel;
};

// constants: how many of the last inputs are constants, known at build. in_place: input that the output overwrites, or -1.
inline TestResult run_op(const char* name, const Attrs& attrs, std::vector<Tensor> in, Isa isa, int threads, int constants = 0,
                         int in_place = -1) {
  TestResult result;
  const OpFactory factory = find_op(name);
  if (factory == nullptr) {
    result.status = error(Code::kInternal, "no operator %s", name);
    return result;
  }
  const std::unique_ptr<Op> op = factory();
  std::vector<Tensor> known = in;
  for (size_t i = 0; i + static_cast<size_t>(constants) < known.size(); ++i) {
    known[i].data = nullptr;
    known[i].shape.rank = -1;
  }
  const int n_in = static_cast<int>(in.size());
  result.status = op->build(BuildArgs{attrs, known, 1, isa, threads});
  if (!result.status.ok()) return result;
  result.kernel = op->kernel_name();
  for (size_t i = 0; i < known.size(); ++i) known[i].shape = in[i].shape;
  result.status = op->infer(known.data(), n_in, &result.out, 1);
  if (!result.status.ok()) return result;
  const size_t size = static_cast<size_t>(result.out.shape.elements()) * dtype_size(result.out.dtype);
  result.bytes.assign(size + 1, 0xa5);
  if (in_place >= 0) {
    Tensor& over = in[static_cast<size_t>(in_place)];
    if (size > 0) std::memcpy(result.bytes.data(), over.data, size);
    over.data = result.bytes.data();
  }
  result.out.data = result.bytes.data();
  const size_t scratch = op->scratch_bytes(in.data(), n_in, &result.out, 1, threads);
  void* memory = nullptr;
  if (scratch > 0 && posix_memalign(&memory, 64, scratch) != 0) {
    result.status = error(Code::kOutOfMemory, "scratch of %zu bytes", scratch);
    return result;
  }
  ThreadPool pool(threads);
  result.status = op->run(RunArgs{in.data(), n_in, &result.out, 1, memory, pool});
  std::free(memory);
  CHECK(result.bytes[size] == 0xa5);  // nothing written behind the output
  result.bytes.resize(size);
  return result;
}

// Every instruction set that this build and CPU have.
inline std::vector<Isa> test_isas() {
  std::vector<Isa> isas;
  for (Isa isa : compiled_isas()) {
    if (isa_available(isa)) isas.push_back(isa);
  }
  return isas;
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_TEST_OP_H_
