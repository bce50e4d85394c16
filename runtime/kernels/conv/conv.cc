// conv: y = act(x * w + bias + r), NHWC. Three ways, chosen by shape alone:
//   depthwise  groups of 1, 2 or 4 channels
//   merged     few channels: a row of the kernel is kw * C neighbouring floats, so a tap is a whole row; only windows that reach over the left or
//              right border need a padded copy
//   indirect   any other; a 1x1 convolution without stride and padding is a plain matrix product
#include <cstring>

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/conv/depthwise_weights.h"
#include "kernels/conv/geometry.h"
#include "kernels/fgemm/weights.h"

namespace netsuke {
namespace {

// Up to here the loop over one tap's channels is so short that its set-up (one pointer a row) costs more than padding x.
constexpr int64_t kMergedFloats = 32;

class ConvOp final : public Op {
 public:
  Status build(const BuildArgs& args) override;
  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override;
  size_t scratch_bytes(const Tensor* in, int n_in, const Tensor* out, int n_out, int threads) const override;
  Status run(const RunArgs& args) const override;
  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override;
  const char* kernel_name() const override { return depthwise_ ? depthwise_weights_.kernel_name() : weights_.kernel_name(); }
  bool packed_constant(int i) const override { return i == 1 || i == 2; }
  bool reads_bf16(int i) const override { return i == 0 && (depthwise_ ? depthwise_weights_.bf16() : weights_.reads_bf16()); }
  bool writes_bf16() const override { return depthwise_ ? depthwise_weights_.writes_bf16() : weights_.writes_bf16(); }
  size_t packed_bytes() const override { return weights_.packed_bytes() + depthwise_weights_.packed_bytes() + zero_.bytes(); }

 private:
  ConvGeometry geometry(const Shape& x) const;
  void copy_edges(const ConvEdges& edges, const ConvGeometry& g, const float* x, float* to, ThreadPool& pool) const;
  const float* zeros() const { return reinterpret_cast<const float*>(zero_.data()); }

  ConvAttrs attrs_;
  Activation act_;
  int64_t o_ = 0, kh_ = 0, kw_ = 0, c_ = 0;
  bool depthwise_ = false, merged_ = false;
  FgemmWeights weights_;
  Buffer zero_;  // what a padded tap reads
  Depthwise depthwise_weights_;
};

Status ConvOp::build(const BuildArgs& args) {
  NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 4));
  const Tensor& w = args.inputs[1];
  NETSUKE_TRY(expect_dtype(w, "w", {DType::kF32, DType::kBF16}));
  NETSUKE_TRY(read_conv_attrs(args.attrs, &attrs_));
  NETSUKE_TRY(read_activation(args.attrs, "act", &act_));
  const Shape& s = w.shape;
  if (w.data == nullptr || s.rank != 4) return error(Code::kInvalidArgument, "w must be a constant [O, kh, kw, I / groups]");
  o_ = s.dim[0];
  kh_ = s.dim[1];
  kw_ = s.dim[2];
  c_ = s.dim[3] * attrs_.groups;
  if (o_ % attrs_.groups != 0 || kh_ < 1 || kw_ < 1) {
    return error(Code::kInvalidArgument, "w has shape %s, which does not fit groups %lld", shape_text(s).c_str(), static_cast<long long>(attrs_.groups));
  }
  const Tensor* bias = args.inputs.size() > 2 ? &args.inputs[2] : nullptr;
  depthwise_ = attrs_.groups > 1 && Depthwise::takes(s.dim[3], o_ / attrs_.groups);
  if (depthwise_) return depthwise_weights_.build(w, bias, act_, args.isa);
  NETSUKE_TRY(weights_.build(w, bias, attrs_.groups, o_ / attrs_.groups, kh_ * kw_, s.dim[3], act_, args.isa, "conv"));
  merged_ = kw_ > 1 && attrs_.groups == 1 && attrs_.dilation[1] == 1 && weights_.pixel_floats() <= kMergedFloats;
  NETSUKE_TRY(zero_.allocate(static_cast<size_t>(weights_.pixel_floats() * (merged_ ? kw_ : 1)) * sizeof(float)));
  memset(zero_.data(), 0, zero_.bytes());
  return Status();
}

ConvGeometry ConvOp::geometry(const Shape& x) const {
  ConvGeometry g;
  const Status status = conv_geometry(attrs_, kh_, kw_, x, &g);  // infer() has accepted this shape
  (void)status;
  return g;
}

Status ConvOp::infer(const Tensor* in, int n_in, Tensor* out, int) const {
  NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
  const Shape& x = in[0].shape;
  if (x.rank != 4 || x.dim[3] != c_) {
    return error(Code::kInvalidArgument, "x has shape %s, expected [N, H, W, %lld]", shape_text(x).c_str(), static_cast<long long>(c_));
  }
  ConvGeometry g;
  NETSUKE_TRY(conv_geometry(attrs_, kh_, kw_, x, &g));
  out[0].dtype = DType::kF32;
  out[0].shape = make_shape({g.n, g.oh, g.ow, o_});
  return FgemmWeights::check_residual(n_in > 3 ? &in[3] : nullptr, out[0].shape);
}

size_t ConvOp::scratch_bytes(const Tensor* in, int, const Tensor* out, int, int threads) const {
  const ConvGeometry g = geometry(in[0].shape);
  if (depthwise_) return depthwise_weights_.scratch_bytes(in[0], threads);
  size_t bytes = weights_.scratch_bytes(g.n * g.oh * g.ow, merged_ ? kh_ : kh_ * kw_, out[0], threads) + weights_.input_bytes(in[0], g.n * g.h * g.w);
  if (merged_) bytes += static_cast<size_t>(g.n * g.h * conv_edges(g).pixels * weights_.pixel_floats()) * sizeof(float);
  return bytes;
}

void ConvOp::copy_edges(const ConvEdges& e, const ConvGeometry& g, const float* x, float* to, ThreadPool& pool) const {
  const int64_t pixel = weights_.pixel_floats();
  pool.parallel_for(e.pixels == 0 ? 0 : g.n * g.h, [&](int64_t row, int) {
    float* out = to + row * e.pixels * pixel;
    for (int64_t i = 0; i < e.pixels; ++i, out += pixel) {
      const int64_t at = i < e.left_pixels ? i - g.left : e.right * g.sw - g.left + i - e.left_pixels;
      if (at >= 0 && at < g.w) memcpy(out, x + (row * g.w + at) * pixel, static_cast<size_t>(pixel) * sizeof(float));
      else memset(out, 0, static_cast<size_t>(pixel) * sizeof(float));
    }
  });
}

Status ConvOp::run(const RunArgs& args) const {
  const ConvGeometry g = geometry(args.in[0].shape);
  const float* r = args.n_in > 3 && args.in[3].present ? args.in[3].as<float>() : nullptr;
  if (depthwise_) {
    depthwise_weights_.run(g, args.in[0], r, args.out[0], args.scratch, args.pool);
    return Status();
  }
  const int64_t rows = g.n * g.oh * g.ow, pixel = weights_.pixel_floats();
  FgemmJob job = weights_.job(rows, args.out[0]);
  job.ldr = o_;
  job.r = r;
  if (merged_) {
    job.taps = kh_;
    job.channels *= kw_;
  }
  uint8_t* scratch = static_cast<uint8_t*>(args.scratch);
  uint8_t* next = scratch + weights_.scratch_bytes(rows, job.taps, args.out[0], args.pool.threads());
  const float* x = weights_.input(args.in[0], g.n * g.h * g.w, next, args.pool, &job.flush);
  next += weights_.input_bytes(args.in[0], g.n * g.h * g.w);
  if (merged_) {
    float* edges = reinterpret_cast<float*>(next);
    const ConvRowPointers context = {g, conv_edges(g), x, edges, zeros(), pixel};
    copy_edges(context.edges, g, x, edges, args.pool);
    job.pointers = conv_row_pointers;
    job.context = &context;
    weights_.run(&job, scratch, args.pool);
    return Status();
  }
  const bool plain = kh_ * kw_ == 1 && g.sh * g.sw == 1 && g.oh == g.h && g.ow == g.w && g.top + g.left == 0;
  const FgemmRows matrix = {x, pixel};
  const ConvPointers image = {g, x, zeros(), pixel};
  job.pointers = plain ? fgemm_row_pointers : conv_pointers;
  job.context = plain ? static_cast<const void*>(&matrix) : &image;
  weights_.run(&job, scratch, args.pool);
  return Status();
}

Cost ConvOp::cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const {
  Cost cost = Op::cost(in, n_in, out, n_out);
  cost.macs = out[0].shape.elements() * kh_ * kw_ * (c_ / attrs_.groups);
  return cost;
}

}  // namespace

std::unique_ptr<Op> make_conv() { return std::make_unique<ConvOp>(); }

}  // namespace netsuke
