// blinear (docs/format.md section 2): rows of packed signs times packed signs; a 1x1 convolution over an image of one column.
#include "kernels/bgemm/binary_op.h"

namespace netsuke {
namespace {

class BLinear final : public bgemm::BinaryOp {
 public:
  BLinear() : BinaryOp("blinear") {}

  Status build(const BuildArgs& args) override {
    bgemm::Geometry g;
    NETSUKE_TRY(bgemm::check_words("blinear", args, 2, 1, &g.in_channels));
    g.out_channels = args.inputs[1].shape.dim[0];
    return build_layer(args, g, 0, 2);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    const Shape& x = in[0].shape;
    const int64_t words = bgemm::words_of(layer_.geometry().in_channels);
    if (n_in < 2 || in[0].dtype != DType::kI64 || x.rank < 1 || x.dim[x.rank - 1] != words) {
      return error(Code::kInvalidArgument, "blinear: x must be i64 [..., %lld]", static_cast<long long>(words));
    }
    out[0].shape = x;
    return finish_infer(in, n_in, out, n_out, x.rank);
  }

 protected:
  bgemm::Extent extent(const Tensor& x, const Tensor&) const override {
    int64_t rows = 1;
    for (int i = 0; i + 1 < x.shape.rank; ++i) rows *= x.shape.dim[i];
    return {1, rows, 1, rows, 1};
  }
};

}  // namespace

std::unique_ptr<Op> make_blinear() { return std::make_unique<BLinear>(); }

}  // namespace netsuke
