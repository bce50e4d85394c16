// qlinear and qlinear_dyadic (docs/format.md section 2): y[..., N] = x[..., K] w[N, K]^T with fused requantization and residual,
// run as a 1x1 convolution over the rows of x.
#include "kernels/qgemm/gemm_op.h"

namespace netsuke {
namespace {

using qgemm::Extent;
using qgemm::Geometry;

class QLinear final : public qgemm::GemmOp {
 public:
  explicit QLinear(bool dyadic) : GemmOp(dyadic ? "qlinear_dyadic" : "qlinear", dyadic) {}

  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(qgemm::check_weights(op_.c_str(), args.inputs, 2));
    Geometry g;
    g.out_channels = args.inputs[1].shape.dim[0];
    g.in_channels = args.inputs[1].shape.dim[1];
    return build_layer(args, g);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_inputs(in, n_in, n_out));
    const Geometry& g = layer_.geometry();
    const Shape& x = in[0].shape;
    if (x.rank < 1 || x.dim[x.rank - 1] != g.in_channels) {
      return error(Code::kInvalidArgument, "%s: the last dimension of x is %lld, the weights have K = %lld", op_.c_str(),
                   static_cast<long long>(x.rank > 0 ? x.dim[x.rank - 1] : 0), static_cast<long long>(g.in_channels));
    }
    out[0].dtype = layer_.requant().out_f32 ? DType::kF32 : DType::kU8;
    out[0].shape = x;
    out[0].shape.dim[x.rank - 1] = g.out_channels;
    int64_t rows = 1;
    for (int i = 0; i + 1 < x.rank; ++i) {
      if (!checked_mul(rows, x.dim[i], &rows)) return error(Code::kInvalidArgument, "%s: x has too many rows", op_.c_str());
    }
    return check_residual(in, n_in, out[0]);
  }

 protected:
  Extent extent(const Tensor& x, const Tensor&) const override {
    int64_t rows = 1;
    for (int i = 0; i + 1 < x.shape.rank; ++i) rows *= x.shape.dim[i];
    return {1, 1, rows, 1, rows};
  }
};

}  // namespace

std::unique_ptr<Op> make_qlinear() { return std::make_unique<QLinear>(false); }
std::unique_ptr<Op> make_qlinear_dyadic() { return std::make_unique<QLinear>(true); }

}  // namespace netsuke
