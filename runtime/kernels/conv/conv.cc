// conv: y = act(x * w + bias + r), NHWC. Three ways, chosen by shape alone:
//   depthwise  one input and one output channel a group
//   merged     few channels: a row of the kernel is kw * C neighbouring floats, so x is padded in width once and a tap is a whole row
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
  size_t packed_bytes() const override { return weights_.packed_bytes() + depthwise_weights_.packed_bytes() + zero_.bytes(); }

 private:
  ConvGeometry geometry(const Shape& x) const;
  int64_t padded_width(const ConvGeometry& g) const;
  bool copies(const ConvGeometry& g) const { return merged_ && (g.left > 0 || padded_width(g) > g.w); }
  void pad_width(const ConvGeometry& g, const float* x, float* padded, ThreadPool& pool) const;
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
  depthwise_ = s.dim[3] == 1 && o_ == attrs_.groups && attrs_.groups > 1 && w.dtype == DType::kF32;
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

int64_t ConvOp::padded_width(const ConvGeometry& g) const {
  const int64_t needed = (g.ow - 1) * g.sw + g.kw, there = g.left + g.w;
  return needed > there ? needed : there;
}

size_t ConvOp::scratch_bytes(const Tensor* in, int, const Tensor*, int, int threads) const {
  const ConvGeometry g = geometry(in[0].shape);
  if (depthwise_) return depthwise_weights_.scratch_bytes(threads);
  size_t bytes = FgemmWeights::scratch_bytes(g.n * g.oh * g.ow, merged_ ? kh_ : kh_ * kw_, threads) + weights_.input_bytes(g.n * g.h * g.w);
  if (copies(g)) bytes += static_cast<size_t>(g.n * g.h * padded_width(g) * weights_.pixel_floats()) * sizeof(float);
  return bytes;
}

void ConvOp::pad_width(const ConvGeometry& g, const float* x, float* padded, ThreadPool& pool) const {
  const int64_t pixel = weights_.pixel_floats(), width = padded_width(g), right = width - g.left - g.w;
  pool.parallel_for(g.n * g.h, [&](int64_t row, int) {
    float* to = padded + row * width * pixel;
    memset(to, 0, static_cast<size_t>(g.left * pixel) * sizeof(float));
    memcpy(to + g.left * pixel, x + row * g.w * pixel, static_cast<size_t>(g.w * pixel) * sizeof(float));
    memset(to + (g.left + g.w) * pixel, 0, static_cast<size_t>(right * pixel) * sizeof(float));
  });
}

Status ConvOp::run(const RunArgs& args) const {
  const ConvGeometry g = geometry(args.in[0].shape);
  const float* r = args.n_in > 3 && args.in[3].present ? args.in[3].as<float>() : nullptr;
  if (depthwise_) {
    depthwise_weights_.run(g, args.in[0].as<float>(), r, args.out[0].as<float>(), args.scratch, args.pool);
    return Status();
  }
  const int64_t rows = g.n * g.oh * g.ow, pixel = weights_.pixel_floats();
  FgemmJob job = weights_.job(rows);
  job.c = args.out[0].as<float>();
  job.ldc = job.ldr = o_;
  job.r = r;
  if (merged_) {
    job.taps = kh_;
    job.channels *= kw_;
  }
  uint8_t* scratch = static_cast<uint8_t*>(args.scratch);
  uint8_t* next = scratch + FgemmWeights::scratch_bytes(rows, job.taps, args.pool.threads());
  const float* x = weights_.input(args.in[0].as<float>(), g.n * g.h * g.w, next, args.pool, &job.flush);
  next += weights_.input_bytes(g.n * g.h * g.w);
  if (merged_) {
    ConvRowPointers context = {g, x, zeros(), pixel, g.w};
    if (copies(g)) {
      pad_width(g, x, reinterpret_cast<float*>(next), args.pool);
      context.x = reinterpret_cast<const float*>(next);
      context.width = padded_width(g);
    }
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
