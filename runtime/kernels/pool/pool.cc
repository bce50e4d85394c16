#include "kernels/pool/pool.h"

namespace netsuke {
namespace {

template <typename T, typename Row>
void run_rows(const RunArgs& args, const PoolWindow& window, const Row& row) {
  PoolShape shape;
  Shape out;
  (void)pool_shape(window, args.in[0].shape, &shape, &out).ok();  // infer() has accepted it
  const T* x = args.in[0].as<const T>();
  T* y = args.out[0].as<T>();
  for_pool_rows(args.pool, shape, [&](int64_t image, int64_t out_row) {
    row(window, shape, x + image * shape.h * shape.w * shape.c, out_row, y + (image * shape.out_h + out_row) * shape.out_w * shape.c);
  });
}

class MaxPool : public Op {
 public:
  Status build(const BuildArgs& args) override {
    kernels_ = &pool_kernels(args.isa);
    return read_window(args.attrs, true, false, &window_);
  }
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    if (n_in != 1) return error(Code::kInvalidArgument, "maxpool has %d inputs, allowed 1", n_in);
    if (in[0].dtype != DType::kU8 && in[0].dtype != DType::kF32) {
      return error(Code::kInvalidArgument, "maxpool: x is %s, allowed f32 or u8", dtype_name(in[0].dtype));
    }
    PoolShape shape;
    out[0].dtype = in[0].dtype;
    return pool_shape(window_, in[0].shape, &shape, &out[0].shape);
  }
  Status run(const RunArgs& args) const override {
    if (args.in[0].dtype == DType::kU8) run_rows<uint8_t>(args, window_, kernels_->max_u8);
    else run_rows<float>(args, window_, kernels_->max_f32);
    return Status();
  }
  const char* kernel_name() const override { return kernels_->max_name; }

 private:
  PoolWindow window_;
  const PoolKernels* kernels_ = nullptr;
};

class AvgPool : public Op {
 public:
  Status build(const BuildArgs& args) override {
    kernels_ = &pool_kernels(args.isa);
    return read_window(args.attrs, false, true, &window_);
  }
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("avgpool", in, n_in, {DType::kF32}));
    PoolShape shape;
    out[0].dtype = DType::kF32;
    return pool_shape(window_, in[0].shape, &shape, &out[0].shape);
  }
  Status run(const RunArgs& args) const override {
    run_rows<float>(args, window_, kernels_->avg_f32);
    return Status();
  }
  const char* kernel_name() const override { return kernels_->avg_name; }

 private:
  PoolWindow window_;
  const PoolKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_maxpool() { return std::make_unique<MaxPool>(); }
std::unique_ptr<Op> make_avgpool() { return std::make_unique<AvgPool>(); }

}  // namespace netsuke
