// conv_transpose, gathered: the outputs whose position has the same remainder by the stride (a phase) use the same taps, so each phase is
// a plain convolution with its own packed weights. No scattering, and every output is one fma chain over (kh, kw, channel).
#include <cstring>
#include <vector>

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/conv/geometry.h"
#include "kernels/fgemm/fgemm.h"

namespace netsuke {
namespace {

struct Phase {
  std::vector<int64_t> kx;  // the taps along the width
  std::vector<int64_t> ky;
  Buffer packed;
};

// One line of one phase: outputs (n, oy, first + i * stride).
struct Line {
  const Phase* phase;
  const float *x, *zero;
  int64_t h, w, channels, n, oy, first;  // oy and first with the padding added
  int64_t sh, sw, dh, dw;
};

void line_pointers(const void* context, int64_t row, int64_t count, const float** out) {
  const Line& l = *static_cast<const Line*>(context);
  for (int64_t i = row; i < row + count; ++i) {
    for (int64_t ky : l.phase->ky) {
      const int64_t y = (l.oy - ky * l.dh) / l.sh;  // exact: the phase was chosen so; negative ones are caught by the sign below
      const bool inside = l.oy >= ky * l.dh && y < l.h;
      for (int64_t kx : l.phase->kx) {
        const int64_t at = l.first + i * l.sw - kx * l.dw, x = at / l.sw;
        *out++ = inside && at >= 0 && x < l.w ? l.x + ((l.n * l.h + y) * l.w + x) * l.channels : l.zero;
      }
    }
  }
}

class ConvTransposeOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 3));
    const Tensor& w = args.inputs[1];
    NETSUKE_TRY(expect_dtype(w, "w", {DType::kF32}));
    NETSUKE_TRY(read_conv_attrs(args.attrs, &attrs_));
    NETSUKE_TRY(read_activation(args.attrs, "act", &act_));
    std::vector<int64_t> extra;
    NETSUKE_TRY(args.attrs.get_or("output_padding", std::vector<int64_t>{0, 0}, &extra));
    if (extra.size() != 2 || extra[0] < 0 || extra[1] < 0 || extra[0] > 1 << 24 || extra[1] > 1 << 24) {
      return error(Code::kInvalidArgument, "output_padding must be two numbers of at least 0");
    }
    extra_[0] = extra[0];
    extra_[1] = extra[1];
    const Shape& s = w.shape;
    if (w.data == nullptr || s.rank != 4 || s.dim[0] % attrs_.groups != 0 || s.dim[1] < 1 || s.dim[2] < 1) {
      return error(Code::kInvalidArgument, "w must be a constant [I, kh, kw, O / groups] with I divisible by groups %lld, got %s",
                   static_cast<long long>(attrs_.groups), shape_text(s).c_str());
    }
    c_ = s.dim[0];
    kh_ = s.dim[1];
    kw_ = s.dim[2];
    og_ = s.dim[3];
    kernels_ = &fgemm_kernels(args.isa);
    float lo, hi;
    act_row_ = act_.clamp(&lo, &hi) ? nullptr : unary_kernels(args.isa).rows[static_cast<int>(act_.fn)];
    kernel_ = std::string("conv_transpose_f32_") + kernels_->name;
    NETSUKE_TRY(zero_.allocate(static_cast<size_t>(c_) * sizeof(float)));
    memset(zero_.data(), 0, zero_.bytes());
    NETSUKE_TRY(pack_phases(w.as<float>()));
    return args.inputs.size() > 2 && args.inputs[2].present ? pack_bias(args.inputs[2]) : Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    const Shape& x = in[0].shape;
    if (x.rank != 4 || x.dim[3] != c_) return error(Code::kInvalidArgument, "x has shape %s, expected [N, H, W, %lld]", shape_text(x).c_str(), static_cast<long long>(c_));
    const int64_t oh = out_size(x.dim[1], 0, kh_), ow = out_size(x.dim[2], 1, kw_);
    if (x.dim[1] < 1 || x.dim[2] < 1 || oh < 1 || ow < 1) return error(Code::kInvalidArgument, "x has shape %s: the padding leaves no output", shape_text(x).c_str());
    out[0].dtype = DType::kF32;
    out[0].shape = make_shape({x.dim[0], oh, ow, og_ * attrs_.groups});
    return Status();
  }

  size_t scratch_bytes(const Tensor*, int, const Tensor* out, int, int threads) const override {
    return static_cast<size_t>(threads) * table_bytes(out[0].shape.dim[2]);
  }

  Status run(const RunArgs& args) const override {
    const Shape &x = args.in[0].shape, &y = args.out[0].shape;
    const int64_t oh = y.dim[1], ow = y.dim[2], o = y.dim[3];
    args.pool.parallel_for(y.dim[0] * oh, [&](int64_t task, int thread) {
      const int64_t oy = task % oh + attrs_.pad[0];
      for (int64_t rx = 0; rx < attrs_.stride[1]; ++rx) {
        // The first output of this phase: (ox + left) % stride == rx.
        const int64_t ox = ((rx - attrs_.pad[1]) % attrs_.stride[1] + attrs_.stride[1]) % attrs_.stride[1];
        if (ox >= ow) continue;
        const Phase& phase = phases_[static_cast<size_t>(oy % attrs_.stride[0] * attrs_.stride[1] + rx)];
        const Line line = {&phase, args.in[0].as<float>(), reinterpret_cast<const float*>(zero_.data()), x.dim[1], x.dim[2], c_, task / oh, oy,
                           ox + attrs_.pad[1], attrs_.stride[0], attrs_.stride[1], attrs_.dilation[0], attrs_.dilation[1]};
        FgemmJob job = job_of(phase, (ow - ox + attrs_.stride[1] - 1) / attrs_.stride[1]);
        job.c = args.out[0].as<float>() + (task * ow + ox) * o;
        job.ldc = attrs_.stride[1] * o;
        job.context = &line;
        const int64_t tasks = fgemm_plan(&job, 1);
        for (int64_t t = 0; t < tasks; ++t) fgemm_task(job, t, static_cast<uint8_t*>(args.scratch) + table_bytes(ow) * static_cast<size_t>(thread));
      }
    });
    return Status();
  }

  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override {
    Cost cost = Op::cost(in, n_in, out, n_out);
    cost.macs = in[0].shape.elements() * kh_ * kw_ * og_;
    return cost;
  }
  const char* kernel_name() const override { return kernel_.c_str(); }
  bool packed_constant(int i) const override { return i == 1 || i == 2; }
  size_t packed_bytes() const override {
    size_t bytes = bias_.bytes() + zero_.bytes();
    for (const Phase& phase : phases_) bytes += phase.packed.bytes();
    return bytes;
  }

 private:
  int64_t out_size(int64_t size, int axis, int64_t k) const {
    return (size - 1) * attrs_.stride[axis] + (k - 1) * attrs_.dilation[axis] + 1 + extra_[axis] - attrs_.pad[axis] - attrs_.pad[axis + 2];
  }
  size_t table_bytes(int64_t ow) const { return align_up(fgemm_scratch_bytes(ow, kh_ * kw_)); }

  Status pack_phases(const float* w) {
    const int64_t sh = attrs_.stride[0], sw = attrs_.stride[1], ig = c_ / attrs_.groups;
    if (sh * sw > 4096) return error(Code::kUnsupported, "strides %lld x %lld", static_cast<long long>(sh), static_cast<long long>(sw));
    phases_.resize(static_cast<size_t>(sh * sw));
    std::vector<float> matrix;  // [taps * ig, og] of one phase and group
    for (int64_t p = 0; p < sh * sw; ++p) {
      Phase& phase = phases_[static_cast<size_t>(p)];
      for (int64_t k = 0; k < kh_; ++k) {
        if (k * attrs_.dilation[0] % sh == p / sw) phase.ky.push_back(k);
      }
      for (int64_t k = 0; k < kw_; ++k) {
        if (k * attrs_.dilation[1] % sw == p % sw) phase.kx.push_back(k);
      }
      const int64_t k = static_cast<int64_t>(phase.ky.size() * phase.kx.size()) * ig;
      const size_t floats = fgemm_packed_floats(*kernels_, og_, k);
      NETSUKE_TRY(phase.packed.allocate(floats * static_cast<size_t>(attrs_.groups) * sizeof(float)));
      for (int64_t g = 0; g < attrs_.groups; ++g) {
        matrix.clear();
        for (int64_t ky : phase.ky) {
          for (int64_t kx : phase.kx) {
            for (int64_t i = g * ig; i < (g + 1) * ig; ++i) {
              const float* from = w + ((i * kh_ + ky) * kw_ + kx) * og_;
              matrix.insert(matrix.end(), from, from + og_);
            }
          }
        }
        float* to = reinterpret_cast<float*>(phase.packed.data()) + floats * static_cast<size_t>(g);
        fgemm_pack(*kernels_, matrix.data(), og_, k, 1, og_, to, 0, fgemm_panels(*kernels_, og_));
      }
    }
    return Status();
  }

  Status pack_bias(const Tensor& bias) {
    NETSUKE_TRY(expect_dtype(bias, "bias", {DType::kF32}));
    if (bias.data == nullptr || bias.shape.elements() != og_ * attrs_.groups) {
      return error(Code::kInvalidArgument, "bias must be a constant of %lld elements", static_cast<long long>(og_ * attrs_.groups));
    }
    const size_t padded = fgemm_padded_cols(*kernels_, og_);
    NETSUKE_TRY(bias_.allocate(padded * static_cast<size_t>(attrs_.groups) * sizeof(float)));
    memset(bias_.data(), 0, bias_.bytes());
    for (int64_t g = 0; g < attrs_.groups; ++g) {
      memcpy(reinterpret_cast<float*>(bias_.data()) + padded * static_cast<size_t>(g), bias.as<float>() + g * og_, static_cast<size_t>(og_) * sizeof(float));
    }
    return Status();
  }

  FgemmJob job_of(const Phase& phase, int64_t rows) const {
    FgemmJob job;
    job.kernels = kernels_;
    job.rows = rows;
    job.cols = og_;
    job.taps = static_cast<int64_t>(phase.ky.size() * phase.kx.size());
    job.channels = c_ / attrs_.groups;
    job.groups = attrs_.groups;
    job.b = reinterpret_cast<const float*>(phase.packed.data());
    job.bias = reinterpret_cast<const float*>(bias_.data());
    job.act = act_;
    job.act_row = act_row_;
    job.pointers = line_pointers;
    return job;
  }

  ConvAttrs attrs_;
  int64_t extra_[2] = {0, 0};
  Activation act_;
  UnaryRow act_row_ = nullptr;
  int64_t c_ = 0, kh_ = 0, kw_ = 0, og_ = 0;
  const FgemmKernels* kernels_ = nullptr;
  std::vector<Phase> phases_;  // [stride_h * stride_w]
  Buffer bias_, zero_;
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_conv_transpose() { return std::make_unique<ConvTransposeOp>(); }

}  // namespace netsuke
