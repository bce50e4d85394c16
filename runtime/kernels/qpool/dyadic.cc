// qmean_dyadic, section 6 of docs/numerics.md: sums of H * W codes, then one integer multiplication and one shift. The division by
// the number of positions is part of m / 2^e, so the node is made for one number of positions and refuses another.
#include "kernels/qpool/qpool.h"

namespace netsuke {
namespace {

class QMeanDyadic : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(read_zero(args.attrs, "x_zero", &x_zero_));
    NETSUKE_TRY(read_dyadic(args.attrs, "m", "e", &m_, &e_));
    NETSUKE_TRY(args.attrs.get("count", &count_));
    if (count_ < 1 || count_ > kMostPositions) {
      return error(Code::kInvalidArgument, "attribute count is %lld, allowed 1 to %lld", static_cast<long long>(count_),
                   static_cast<long long>(kMostPositions));
    }
    return read_codes(args.attrs, false, &codes_);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("qmean_dyadic", in, n_in, {DType::kU8}));
    const Shape& x = in[0].shape;
    if (x.rank != 4 || x.dim[1] < 1 || x.dim[2] < 1 || x.dim[1] > count_ / x.dim[2] || x.dim[1] * x.dim[2] != count_) {
      return error(Code::kInvalidArgument, "qmean_dyadic: x has shape %s, allowed [N, H, W, C] with H * W = %lld", shape_text(x).c_str(),
                   static_cast<long long>(count_));
    }
    out[0].dtype = DType::kU8;
    out[0].shape = x;
    out[0].shape.dim[1] = out[0].shape.dim[2] = 1;
    return Status();
  }

  // Tasks are blocks of 64 channels of an image: one cache line of each position.
  Status run(const RunArgs& args) const override {
    const Shape& shape = args.in[0].shape;
    const int64_t channels = shape.dim[3], blocks = (channels + 63) / 64;
    const uint8_t* x = args.in[0].as<const uint8_t>();
    uint8_t* y = args.out[0].as<uint8_t>();
    const int64_t grain = std::max<int64_t>(1, kElementsPerTask / (64 * count_));
    for_ranges(args.pool, shape.dim[0] * blocks, grain, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / blocks, c = task % blocks * 64;
        block(x + image * count_ * channels + c, channels, std::min<int64_t>(64, channels - c), y + image * channels + c);
      }
    });
    return Status();
  }

  const char* kernel_name() const override { return "qmean_dyadic_a8_portable"; }

 private:
  void block(const uint8_t* x, int64_t stride, int64_t n, uint8_t* y) const {
    int32_t sums[64] = {};  // at most 255 * count, which fits (kMostPositions)
    for (int64_t i = 0; i < count_; ++i) {
      for (int64_t c = 0; c < n; ++c) sums[c] += x[i * stride + c];
    }
    for (int64_t c = 0; c < n; ++c) {
      const int64_t sum = sums[c] - x_zero_ * count_;
      const int64_t v = shift_rne(sum * m_, static_cast<int32_t>(e_)) + codes_.zero;
      y[c] = static_cast<uint8_t>(std::min<int64_t>(std::max<int64_t>(v, codes_.lo), codes_.hi));
    }
  }

  int32_t x_zero_ = 0;
  int64_t m_ = 0, e_ = 62, count_ = 1;
  Codes codes_;
};

}  // namespace

std::unique_ptr<Op> make_qmean_dyadic() { return std::make_unique<QMeanDyadic>(); }

}  // namespace netsuke
