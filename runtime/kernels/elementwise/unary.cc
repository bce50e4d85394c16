// The operator `unary`: a function of every element.
#include <cmath>
#include <cstring>

#include "kernels/base/shapes.h"
#include "kernels/elementwise/unary.h"

namespace netsuke {
namespace {

constexpr int64_t kChunk = 16384;  // elements of one task
constexpr int64_t kBuffer = 512;   // floats quantized at a time

class UnaryOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 1, 1));
    NETSUKE_TRY(args.attrs.get("fn", &fn_));
    NETSUKE_TRY(read_output_quant(args.attrs, &quant_));
    kernels_ = &unary_kernels(args.isa);
    kernel_ = "unary_" + fn_ + (quant_.on ? "_u8_" : "_") + isa_name(args.isa);
    if (fn_ == "not" || fn_ == "isnan") {
      if (quant_.on) return error(Code::kInvalidArgument, "fn %s gives bool, which cannot be quantized", fn_.c_str());
      return Status();
    }
    NETSUKE_TRY(read_activation(args.attrs, "fn", &act_));
    row_ = kernels_->rows[static_cast<int>(act_.fn)];
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {fn_ == "not" ? DType::kBool : DType::kF32}));
    out[0].dtype = row_ == nullptr ? DType::kBool : (quant_.on ? DType::kU8 : DType::kF32);
    out[0].shape = in[0].shape;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const int64_t n = args.in[0].shape.elements();
    args.pool.parallel_for((n + kChunk - 1) / kChunk, [&](int64_t task, int) {
      const int64_t begin = task * kChunk, count = n - begin < kChunk ? n - begin : kChunk;
      chunk(args, begin, count);
    });
    return Status();
  }

  const char* kernel_name() const override { return kernel_.c_str(); }
  bool in_place(int i) const override { return i == 0 && row_ != nullptr && !quant_.on; }

 private:
  void chunk(const RunArgs& args, int64_t begin, int64_t count) const {
    const float* x = args.in[0].as<float>() + begin;
    uint8_t* codes = args.out[0].as<uint8_t>() + begin;
    if (fn_ == "not") {
      const uint8_t* b = args.in[0].as<uint8_t>() + begin;
      for (int64_t i = 0; i < count; ++i) codes[i] = b[i] == 0;
    } else if (fn_ == "isnan") {
      for (int64_t i = 0; i < count; ++i) codes[i] = x[i] != x[i];
    } else if (!quant_.on) {
      row_(x, args.out[0].as<float>() + begin, count, act_.alpha, act_.beta);
    } else {
      float buffer[kBuffer];
      for (int64_t i = 0; i < count; i += kBuffer) {
        const int64_t n = count - i < kBuffer ? count - i : kBuffer;
        row_(x + i, buffer, n, act_.alpha, act_.beta);
        kernels_->quantize(buffer, codes + i, n, quant_.scale, quant_.zero);
      }
    }
  }

  std::string fn_, kernel_;
  Activation act_;
  OutputQuant quant_;
  const UnaryKernels* kernels_ = nullptr;
  UnaryRow row_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_unary() { return std::make_unique<UnaryOp>(); }

}  // namespace netsuke
