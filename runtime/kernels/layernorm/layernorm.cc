// layernorm over axis ... end.
#include "kernels/layernorm/layernorm.h"

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/elementwise/unary.h"

namespace netsuke {
namespace {

constexpr int64_t kTask = 8192;  // elements of one task, about

class LayernormOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 1, 3));
    NETSUKE_TRY(args.attrs.get("axis", &axis_));
    NETSUKE_TRY(args.attrs.get("eps", &eps_));
    if (!(eps_ >= 0)) return error(Code::kInvalidArgument, "eps is %g, expected at least 0", static_cast<double>(eps_));
    NETSUKE_TRY(read_output_quant(args.attrs, &quant_));
    kernels_ = &layernorm_kernels(args.isa);
    unary_ = &unary_kernels(args.isa);
    kernel_ = std::string("layernorm_") + (quant_.on ? "u8_" : "f32_") + kernels_->name;
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    const Shape& x = in[0].shape;
    int axis;
    NETSUKE_TRY(normalize_axis(axis_, x.rank, &axis));
    Shape inner;
    for (int i = axis; i < x.rank; ++i) inner.dim[inner.rank++] = x.dim[i];
    for (int i = 1; i < n_in; ++i) {
      if (!in[i].present) continue;
      const char* name = i == 1 ? "gamma" : "beta";
      NETSUKE_TRY(expect_dtype(in[i], name, {DType::kF32}));
      if (!(in[i].shape == inner)) return error(Code::kInvalidArgument, "%s has shape %s, expected %s", name, shape_text(in[i].shape).c_str(), shape_text(inner).c_str());
    }
    out[0].dtype = quant_.on ? DType::kU8 : DType::kF32;
    out[0].shape = x;
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor*, int, int threads) const override {
    return quant_.on ? static_cast<size_t>(threads) * row_bytes(row_length(in[0].shape)) : 0;
  }

  Status run(const RunArgs& args) const override {
    const Shape& x = args.in[0].shape;
    const int64_t n = row_length(x), rows = product(x, 0, x.rank - axes(x)), per_task = n >= kTask || n == 0 ? 1 : kTask / n;
    if (n == 0) return Status();
    const float* gamma = args.n_in > 1 && args.in[1].present ? args.in[1].as<float>() : nullptr;
    const float* beta = args.n_in > 2 && args.in[2].present ? args.in[2].as<float>() : nullptr;
    args.pool.parallel_for((rows + per_task - 1) / per_task, [&](int64_t task, int thread) {
      for (int64_t r = task * per_task; r < rows && r < (task + 1) * per_task; ++r) {
        const float* from = args.in[0].as<float>() + r * n;
        if (!quant_.on) {
          kernels_->row(from, gamma, beta, args.out[0].as<float>() + r * n, n, eps_);
          continue;
        }
        float* buffer = reinterpret_cast<float*>(static_cast<uint8_t*>(args.scratch) + row_bytes(n) * static_cast<size_t>(thread));
        kernels_->row(from, gamma, beta, buffer, n, eps_);
        unary_->quantize(buffer, args.out[0].as<uint8_t>() + r * n, n, quant_.scale, quant_.zero);
      }
    });
    return Status();
  }
  const char* kernel_name() const override { return kernel_.c_str(); }
  bool in_place(int i) const override { return i == 0 && !quant_.on; }

 private:
  int axes(const Shape& x) const { return static_cast<int>(axis_ < 0 ? -axis_ : x.rank - axis_); }
  int64_t row_length(const Shape& x) const { return product(x, x.rank - axes(x), x.rank); }
  static size_t row_bytes(int64_t n) { return align_up(static_cast<size_t>(n) * sizeof(float)); }

  int64_t axis_ = 0;
  float eps_ = 0;
  OutputQuant quant_;
  const LayernormKernels* kernels_ = nullptr;
  const UnaryKernels* unary_ = nullptr;
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_layernorm() { return std::make_unique<LayernormOp>(); }

}  // namespace netsuke
