// Builds and runs one operator outside a program: for tests and benchmarks.
#ifndef NETSUKE_KERNELS_BASE_OP_RUNNER_H_
#define NETSUKE_KERNELS_BASE_OP_RUNNER_H_

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "graph/attrs.h"
#include "kernels/base/shapes.h"
#include "kernels/op.h"

namespace netsuke {

// A tensor that owns its bytes. `constant` ones are given to build() with their data.
struct TestTensor {
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<uint8_t> bytes;
  bool constant = false, present = true;

  TestTensor() : present(false) {}
  TestTensor(DType type, const Shape& s, bool is_constant = false)
      : dtype(type), shape(s), bytes(static_cast<size_t>(s.elements()) * dtype_size(type)), constant(is_constant) {}
  template <typename T> T* data() { return reinterpret_cast<T*>(bytes.data()); }
  template <typename T> const T* data() const { return reinterpret_cast<const T*>(bytes.data()); }
  int64_t size() const { return shape.elements(); }
};

inline TestTensor floats(const Shape& shape, const std::vector<float>& values, bool constant = false) {
  TestTensor t(DType::kF32, shape, constant);
  if (!values.empty()) std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
  return t;
}

// The definition of numerics.md section 8, for tests: nearest, halves to even, NaN a NaN, subnormals to zero.
inline uint16_t rounded_to_bf16(float v) {
  uint32_t b;
  std::memcpy(&b, &v, 4);
  if (v != v) return static_cast<uint16_t>(b >> 16 | 0x40);
  const uint32_t half = (b + 0x7fff + (b >> 16 & 1)) >> 16;
  return static_cast<uint16_t>(half & 0x7f80 ? half : half & 0x8000);
}

class OpRunner {
 public:
  // `attrs` is JSON text. status() tells whether building worked.
  OpRunner(const char* op, const char* attrs, const std::vector<TestTensor>& inputs, int n_outputs, Isa isa, int threads)
      : pool_(threads), threads_(threads) {
    status_ = build(op, attrs, inputs, n_outputs, isa);
  }
  const Status& status() const { return status_; }
  const Op& op() const { return *op_; }
  std::string unread() const { return attrs_->unread(); }
  // As the executor stores what Op::reads_bf16 and Op::writes_bf16 allow: inputs that are bfloat16 and no constants are f32 to infer().
  bool store_bf16 = false;

  Status prepare(const std::vector<TestTensor>& inputs, std::vector<TestTensor>* outputs) {
    inputs_.clear();
    for (const TestTensor& t : inputs) {
      inputs_.push_back(view(t, t.constant || t.dtype == DType::kI64));
      if (!t.constant && t.dtype == DType::kBF16) inputs_.back().dtype = DType::kF32;
    }
    outputs_.assign(static_cast<size_t>(n_outputs_), Tensor());
    NETSUKE_TRY(op_->infer(inputs_.data(), n_in(), outputs_.data(), n_outputs_));
    for (size_t i = 0; i < inputs.size(); ++i) inputs_[i] = view(inputs[i], true);
    if (store_bf16) outputs_[0].dtype = DType::kBF16;
    outputs->clear();
    for (Tensor& t : outputs_) {
      outputs->emplace_back(t.dtype, t.shape);
      std::fill(outputs->back().bytes.begin(), outputs->back().bytes.end(), uint8_t{0xcd});
    }
    for (size_t i = 0; i < outputs->size(); ++i) outputs_[i].data = (*outputs)[i].bytes.data();
    scratch_.assign(op_->scratch_bytes(inputs_.data(), n_in(), outputs_.data(), n_outputs_, threads_) + 64, 0xee);
    return Status();
  }
  Status run() {
    void* scratch = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch_.data()) + 63) & ~uintptr_t{63});
    return op_->run({inputs_.data(), n_in(), outputs_.data(), n_outputs_, scratch, pool_});
  }
  Cost cost() const { return op_->cost(inputs_.data(), n_in(), outputs_.data(), n_outputs_); }
  Status operator()(const std::vector<TestTensor>& inputs, std::vector<TestTensor>* outputs) {
    if (!status_.ok()) return status_;
    NETSUKE_TRY(prepare(inputs, outputs));
    return run();
  }

 private:
  static Tensor view(const TestTensor& t, bool with_data) {
    Tensor v;
    v.dtype = t.dtype;
    v.shape = t.shape;
    v.present = t.present;
    v.data = with_data && t.present ? const_cast<uint8_t*>(t.bytes.data()) : nullptr;
    return v;
  }
  Status build(const char* op, const char* attrs, const std::vector<TestTensor>& inputs, int n_outputs, Isa isa) {
    const OpFactory factory = find_op(op);
    if (factory == nullptr) return error(Code::kUnsupported, "no operator %s", op);
    op_ = factory();
    n_outputs_ = n_outputs;
    NETSUKE_TRY(parse_json(attrs, std::strlen(attrs), 8, &json_));
    attrs_ = std::make_unique<JsonAttrs>(json_);
    NETSUKE_TRY(attrs_->check());
    std::vector<Tensor> views;
    for (const TestTensor& t : inputs) {
      views.push_back(view(t, t.constant));
      if (!t.constant && t.present) views.back().shape.rank = -1;
    }
    NETSUKE_TRY(op_->build({*attrs_, views, n_outputs, isa, threads_}));
    const std::string unread = attrs_->unread();
    return unread.empty() ? Status() : error(Code::kInvalidArgument, "attributes nobody reads: %s", unread.c_str());
  }
  int n_in() const { return static_cast<int>(inputs_.size()); }

  ThreadPool pool_;
  int threads_, n_outputs_ = 1;
  std::unique_ptr<Op> op_;
  Json json_;
  std::unique_ptr<JsonAttrs> attrs_;
  std::vector<Tensor> inputs_, outputs_;
  std::vector<uint8_t> scratch_;
  Status status_;
};

// The instruction sets this CPU can run: portable and everything better.
inline std::vector<Isa> testable_isas() {
  std::vector<Isa> isas;
  for (Isa isa : compiled_isas()) {
    if (isa_available(isa)) isas.push_back(isa);
  }
  return isas;
}

// A small deterministic generator.
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252ull) {}
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 16);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  float unit() { return static_cast<float>(next() >> 8) * 0x1p-23f - 1.0f; }  // [-1, 1)
  TestTensor floats(const Shape& shape, bool constant = false, float scale = 1.0f) {
    TestTensor t(DType::kF32, shape, constant);
    for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] = scale * unit();
    return t;
  }

 private:
  uint64_t state_;
};

// Equal as floats: the same bits, or both NaN (whose bits differ between CPU families).
inline bool same_floats(const TestTensor& a, const TestTensor& b) {
  if (!(a.shape == b.shape) || a.dtype != b.dtype) return false;
  if (a.dtype != DType::kF32) return a.bytes == b.bytes;
  for (int64_t i = 0; i < a.size(); ++i) {
    const float x = a.data<float>()[i], y = b.data<float>()[i];
    if (std::memcmp(&x, &y, 4) != 0 && (x == x || y == y)) return false;
  }
  return true;
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_OP_RUNNER_H_
