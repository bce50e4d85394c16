#include "kernels/qpool/qpool.h"

namespace netsuke {
namespace {

Status read_params(const Attrs& attrs, QPoolParams* params) {
  NETSUKE_TRY(read_zero(attrs, "x_zero", &params->x_zero));
  NETSUKE_TRY(read_finite(attrs, "mult", false, &params->mult));
  return read_codes(attrs, false, &params->codes);
}

class QAvgPool : public Op {
 public:
  Status build(const BuildArgs& args) override {
    kernels_ = &qpool_kernels(args.isa);
    NETSUKE_TRY(read_window(args.attrs, false, true, &window_));
    if (window_.kernel[0] * window_.kernel[1] > kMostPositions) {
      return error(Code::kInvalidArgument, "attribute kernel covers %lld positions, allowed up to %lld",
                   static_cast<long long>(window_.kernel[0] * window_.kernel[1]), static_cast<long long>(kMostPositions));
    }
    return read_params(args.attrs, &params_);
  }
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("qavgpool", in, n_in, {DType::kU8}));
    PoolShape shape;
    out[0].dtype = DType::kU8;
    return pool_shape(window_, in[0].shape, &shape, &out[0].shape);
  }
  Status run(const RunArgs& args) const override {
    PoolShape shape;
    Shape out;
    (void)pool_shape(window_, args.in[0].shape, &shape, &out).ok();  // infer() has accepted it
    const uint8_t* x = args.in[0].as<const uint8_t>();
    uint8_t* y = args.out[0].as<uint8_t>();
    for_pool_rows(args.pool, shape, [&](int64_t image, int64_t row) {
      kernels_->avg(window_, shape, x + image * shape.h * shape.w * shape.c, row, params_,
                    y + (image * shape.out_h + row) * shape.out_w * shape.c);
    });
    return Status();
  }
  const char* kernel_name() const override { return kernels_->avg_name; }

 private:
  PoolWindow window_;
  QPoolParams params_;
  const QPoolKernels* kernels_ = nullptr;
};

class QMean : public Op {
 public:
  Status build(const BuildArgs& args) override {
    kernels_ = &qpool_kernels(args.isa);
    return read_params(args.attrs, &params_);
  }
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("qmean", in, n_in, {DType::kU8}));
    const Shape& x = in[0].shape;
    if (x.rank != 4 || x.dim[1] < 1 || x.dim[2] < 1 || x.dim[1] > kMostPositions / x.dim[2]) {
      return error(Code::kInvalidArgument, "qmean: x has shape %s, allowed [N, H, W, C] with 1 to %lld positions H * W", shape_text(x).c_str(),
                   static_cast<long long>(kMostPositions));
    }
    out[0].dtype = DType::kU8;
    out[0].shape = x;
    out[0].shape.dim[1] = out[0].shape.dim[2] = 1;
    return Status();
  }
  // Tasks are blocks of 64 channels of an image: one cache line of each position.
  Status run(const RunArgs& args) const override {
    const Shape& shape = args.in[0].shape;
    const int64_t positions = shape.dim[1] * shape.dim[2], channels = shape.dim[3], blocks = (channels + 63) / 64;
    const uint8_t* x = args.in[0].as<const uint8_t>();
    uint8_t* y = args.out[0].as<uint8_t>();
    const int64_t grain = std::max<int64_t>(1, kElementsPerTask / (64 * positions));
    for_ranges(args.pool, shape.dim[0] * blocks, grain, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / blocks, c = task % blocks * 64;
        kernels_->mean(x + image * positions * channels + c, positions, channels, std::min<int64_t>(64, channels - c), params_,
                       y + image * channels + c);
      }
    });
    return Status();
  }
  const char* kernel_name() const override { return kernels_->mean_name; }

 private:
  QPoolParams params_;
  const QPoolKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_qavgpool() { return std::make_unique<QAvgPool>(); }
std::unique_ptr<Op> make_qmean() { return std::make_unique<QMean>(); }

}  // namespace netsuke
