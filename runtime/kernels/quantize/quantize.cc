#include "kernels/quantize/quantize.h"

namespace netsuke {
namespace {

class Quantize : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(read_finite(args.attrs, "scale", true, &scale_));
    NETSUKE_TRY(read_codes(args.attrs, false, &codes_));
    kernels_ = &quantize_kernels(args.isa);
    return Status();
  }
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("quantize", in, n_in, {DType::kF32}));
    out[0].dtype = DType::kU8;
    out[0].shape = in[0].shape;
    return Status();
  }
  Status run(const RunArgs& args) const override {
    const float* x = args.in[0].as<const float>();
    uint8_t* y = args.out[0].as<uint8_t>();
    for_ranges(args.pool, args.in[0].shape.elements(), kElementsPerTask, 64, [&](int64_t begin, int64_t end) {
      kernels_->quantize(x + begin, y + begin, end - begin, scale_, codes_);
    });
    return Status();
  }
  const char* kernel_name() const override { return kernels_->quantize_name; }

 private:
  float scale_ = 1.0f;
  Codes codes_;
  const QuantizeKernels* kernels_ = nullptr;
};

class Dequantize : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(read_finite(args.attrs, "scale", true, &scale_));
    NETSUKE_TRY(read_zero(args.attrs, "zero", &zero_));
    kernels_ = &quantize_kernels(args.isa);
    return Status();
  }
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("dequantize", in, n_in, {DType::kU8}));
    out[0].dtype = DType::kF32;
    out[0].shape = in[0].shape;
    return Status();
  }
  Status run(const RunArgs& args) const override {
    const uint8_t* x = args.in[0].as<const uint8_t>();
    float* y = args.out[0].as<float>();
    for_ranges(args.pool, args.in[0].shape.elements(), kElementsPerTask, 64, [&](int64_t begin, int64_t end) {
      kernels_->dequantize(x + begin, y + begin, end - begin, scale_, zero_);
    });
    return Status();
  }
  const char* kernel_name() const override { return kernels_->dequantize_name; }

 private:
  float scale_ = 1.0f;
  int32_t zero_ = 0;
  const QuantizeKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_quantize() { return std::make_unique<Quantize>(); }
std::unique_ptr<Op> make_dequantize() { return std::make_unique<Dequantize>(); }

}  // namespace netsuke
