// bconv (docs/format.md section 2): 2-D convolution of packed signs with packed signs, fused with all that follows.
#include <algorithm>

#include "kernels/bgemm/binary_op.h"

namespace netsuke {
namespace {

using bgemm::Extent;
using bgemm::Geometry;

constexpr int64_t kMaxAttribute = 1 << 24;  // as for qconv

Status read_list(const Attrs& attrs, const char* key, bool required, size_t count, int64_t least, std::vector<int64_t>* out) {
  NETSUKE_TRY(required ? attrs.get(key, out) : attrs.get_or(key, std::vector<int64_t>(count, 1), out));
  bool good = out->size() == count;
  for (int64_t v : *out) good = good && v >= least && v <= kMaxAttribute;
  if (good) return Status();
  return error(Code::kInvalidArgument, "bconv: %s must be %zu integers from %lld to %lld", key, count, static_cast<long long>(least),
               static_cast<long long>(kMaxAttribute));
}

class BConv final : public bgemm::BinaryOp {
 public:
  BConv() : BinaryOp("bconv") {}

  Status build(const BuildArgs& args) override {
    Geometry g;
    int64_t pad_value = 0;
    NETSUKE_TRY(args.attrs.get_or("groups", int64_t{1}, &g.groups));
    NETSUKE_TRY(args.attrs.get_or("pad_value", int64_t{0}, &pad_value));
    if (pad_value < -1 || pad_value > 1) return error(Code::kInvalidArgument, "bconv: pad_value is %lld, allowed are -1, 0, 1", static_cast<long long>(pad_value));
    NETSUKE_TRY(bgemm::check_words("bconv", args, 4, g.groups, &g.in_channels));
    const int64_t* w = args.inputs[1].shape.dim;
    g.out_channels = w[0];
    g.kh = w[1];
    g.kw = w[2];
    std::vector<int64_t> strides, pads, dilations;
    NETSUKE_TRY(read_list(args.attrs, "strides", true, 2, 1, &strides));
    NETSUKE_TRY(read_list(args.attrs, "pads", true, 4, 0, &pads));
    NETSUKE_TRY(read_list(args.attrs, "dilations", false, 2, 1, &dilations));
    g.stride_h = strides[0];
    g.stride_w = strides[1];
    g.pad_top = pads[0];
    g.pad_left = pads[1];
    g.pad_bottom = pads[2];
    g.pad_right = pads[3];
    g.dil_h = dilations[0];
    g.dil_w = dilations[1];
    return build_layer(args, g, static_cast<int>(pad_value), 4);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    const Geometry& g = layer_.geometry();
    const Shape& x = in[0].shape;
    const int64_t words = bgemm::words_of(g.in_channels);
    if (n_in < 2 || in[0].dtype != DType::kI64 || x.rank != 4 || x.dim[3] != words) {
      return error(Code::kInvalidArgument, "bconv: x must be i64 [N, H, W, %lld]", static_cast<long long>(words));
    }
    Extent e;
    e.n = x.dim[0];
    e.h = x.dim[1];
    e.w = x.dim[2];
    const Status status = qgemm::output_extent(g, &e);
    if (!status.ok()) return error(status.code(), "bconv: %s", status.message().c_str());
    const int64_t dims[3] = {e.n, e.oh, e.ow};
    std::copy(dims, dims + 3, out[0].shape.dim);
    return finish_infer(in, n_in, out, n_out, 4);
  }

 protected:
  Extent extent(const Tensor& x, const Tensor& out) const override {
    return {x.shape.dim[0], x.shape.dim[1], x.shape.dim[2], out.shape.dim[1], out.shape.dim[2]};
  }
};

}  // namespace

std::unique_ptr<Op> make_bconv() { return std::make_unique<BConv>(); }

}  // namespace netsuke
