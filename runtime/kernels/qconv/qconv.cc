// qconv and qconv_dyadic (docs/format.md section 2): 2-D convolution of u8 codes, NHWC, with fused requantization and residual.
#include <algorithm>

#include "kernels/qgemm/gemm_op.h"

namespace netsuke {
namespace {

using qgemm::Extent;
using qgemm::Geometry;

constexpr int64_t kMaxAttribute = 1 << 24;  // strides, dilations and pads; keeps every product below 2^63

class QConv final : public qgemm::GemmOp {
 public:
  explicit QConv(bool dyadic) : GemmOp(dyadic ? "qconv_dyadic" : "qconv", dyadic) {}

  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(qgemm::check_weights(op_.c_str(), args.inputs, 4));
    const int64_t* w = args.inputs[1].shape.dim;
    Geometry g;
    NETSUKE_TRY(args.attrs.get_or("groups", int64_t{1}, &g.groups));
    g.out_channels = w[0];
    if (g.groups < 1 || g.out_channels % g.groups != 0) {
      return error(Code::kInvalidArgument, "%s: groups is %lld, it must divide the %lld output channels", op_.c_str(),
                   static_cast<long long>(g.groups), static_cast<long long>(g.out_channels));
    }
    g.kh = w[1];
    g.kw = w[2];
    g.in_channels = w[3] * g.groups;
    NETSUKE_TRY(read_window(args.attrs, &g));
    return build_layer(args, g);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_inputs(in, n_in, n_out));
    const Geometry& g = layer_.geometry();
    const Shape& x = in[0].shape;
    if (x.rank != 4 || x.dim[3] != g.in_channels) {
      return error(Code::kInvalidArgument, "%s: x has rank %d and %lld channels; it must be [N, H, W, %lld]", op_.c_str(), x.rank,
                   static_cast<long long>(x.rank > 0 ? x.dim[x.rank - 1] : 0), static_cast<long long>(g.in_channels));
    }
    Extent e;
    e.n = x.dim[0];
    e.h = x.dim[1];
    e.w = x.dim[2];
    const Status status = qgemm::output_extent(g, &e);
    if (!status.ok()) return error(status.code(), "%s: %s", op_.c_str(), status.message().c_str());
    out[0].dtype = layer_.requant().out_f32 ? DType::kF32 : DType::kU8;
    out[0].shape.rank = 4;
    const int64_t dims[4] = {e.n, e.oh, e.ow, g.out_channels};
    std::copy(dims, dims + 4, out[0].shape.dim);
    return check_residual(in, n_in, out[0]);
  }

 protected:
  Extent extent(const Tensor& x, const Tensor& out) const override {
    return {x.shape.dim[0], x.shape.dim[1], x.shape.dim[2], out.shape.dim[1], out.shape.dim[2]};
  }

 private:
  Status read_list(const Attrs& attrs, const char* key, bool required, size_t count, int64_t least, std::vector<int64_t>* out) const {
    NETSUKE_TRY(required ? attrs.get(key, out) : attrs.get_or(key, std::vector<int64_t>(count, 1), out));
    bool good = out->size() == count;
    for (int64_t v : *out) good = good && v >= least && v <= kMaxAttribute;
    if (good) return Status();
    return error(Code::kInvalidArgument, "%s: %s must be %zu integers from %lld to %lld", op_.c_str(), key, count, static_cast<long long>(least),
                 static_cast<long long>(kMaxAttribute));
  }

  Status read_window(const Attrs& attrs, Geometry* g) const {
    std::vector<int64_t> strides, pads, dilations;
    NETSUKE_TRY(read_list(attrs, "strides", true, 2, 1, &strides));
    NETSUKE_TRY(read_list(attrs, "pads", true, 4, 0, &pads));
    NETSUKE_TRY(read_list(attrs, "dilations", false, 2, 1, &dilations));
    g->stride_h = strides[0];
    g->stride_w = strides[1];
    g->pad_top = pads[0];
    g->pad_left = pads[1];
    g->pad_bottom = pads[2];
    g->pad_right = pads[3];
    g->dil_h = dilations[0];
    g->dil_w = dilations[1];
    return Status();
  }
};

}  // namespace

std::unique_ptr<Op> make_qconv() { return std::make_unique<QConv>(false); }
std::unique_ptr<Op> make_qconv_dyadic() { return std::make_unique<QConv>(true); }

}  // namespace netsuke
