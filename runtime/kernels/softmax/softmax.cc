// softmax along one axis. Rows that are not contiguous are gathered into scratch first.
#include "kernels/softmax/softmax.h"

#include <cstring>

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/elementwise/unary.h"

namespace netsuke {
namespace {

constexpr int64_t kTask = 8192;  // elements of one task, about

class SoftmaxOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 1, 1));
    NETSUKE_TRY(args.attrs.get("axis", &axis_));
    NETSUKE_TRY(args.attrs.get_or("log", int64_t{0}, &log_));
    NETSUKE_TRY(read_output_quant(args.attrs, &quant_));
    kernels_ = &softmax_kernels(args.isa);
    kernel_ = std::string(log_ ? "log_softmax_" : "softmax_") + (quant_.on ? "u8_" : "f32_") + kernels_->name;
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    int axis;
    NETSUKE_TRY(normalize_axis(axis_, in[0].shape.rank, &axis));
    out[0].dtype = quant_.on ? DType::kU8 : DType::kF32;
    out[0].shape = in[0].shape;
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor*, int, int threads) const override {
    return static_cast<size_t>(threads) * row_bytes(layout(in[0].shape).n);
  }

  Status run(const RunArgs& args) const override {
    const Layout l = layout(args.in[0].shape);
    const int64_t rows = l.outer * l.inner, per_task = l.n >= kTask || l.n == 0 ? 1 : kTask / l.n;
    args.pool.parallel_for((rows + per_task - 1) / per_task, [&](int64_t task, int thread) {
      float* buffer = reinterpret_cast<float*>(static_cast<uint8_t*>(args.scratch) + row_bytes(l.n) * static_cast<size_t>(thread));
      const int64_t begin = task * per_task, end = begin + per_task < rows ? begin + per_task : rows;
      if (l.inner == 1) return contiguous(args, l, begin, end - begin, buffer);
      for (int64_t r = begin; r < end; ++r) gathered(args, l, r, buffer);
    });
    return Status();
  }
  const char* kernel_name() const override { return kernel_.c_str(); }
  bool in_place(int) const override { return !quant_.on; }

 private:
  struct Layout {
    int64_t outer, n, inner;
  };
  Layout layout(const Shape& x) const {
    const int axis = static_cast<int>(axis_ < 0 ? axis_ + x.rank : axis_);
    return {product(x, 0, axis), x.dim[axis], product(x, axis + 1, x.rank)};
  }
  size_t row_bytes(int64_t n) const { return align_up(static_cast<size_t>(n * kernels_->together) * sizeof(float)); }

  void contiguous(const RunArgs& args, const Layout& l, int64_t row, int64_t rows, float* buffer) const {
    const float* x = args.in[0].as<float>() + row * l.n;
    if (!quant_.on) return kernels_->rows(x, args.out[0].as<float>() + row * l.n, rows, l.n, log_ != 0);
    kernels_->rows_u8(x, buffer, args.out[0].as<uint8_t>() + row * l.n, rows, l.n, log_ != 0, quant_.scale, quant_.zero);
  }

  void gathered(const RunArgs& args, const Layout& l, int64_t r, float* buffer) const {
    const int64_t base = r / l.inner * l.n * l.inner + r % l.inner;
    const float* x = args.in[0].as<float>() + base;
    for (int64_t i = 0; i < l.n; ++i) buffer[i] = x[i * l.inner];
    if (!quant_.on) {
      kernels_->rows(buffer, buffer, 1, l.n, log_ != 0);
      float* y = args.out[0].as<float>() + base;
      for (int64_t i = 0; i < l.n; ++i) y[i * l.inner] = buffer[i];
      return;
    }
    uint8_t* y = args.out[0].as<uint8_t>() + base;
    uint8_t* codes = reinterpret_cast<uint8_t*>(buffer);  // a code is written after its float was read
    kernels_->rows_u8(buffer, buffer, codes, 1, l.n, log_ != 0, quant_.scale, quant_.zero);
    for (int64_t i = 0; i < l.n; ++i) y[i * l.inner] = codes[i];
  }

  int64_t axis_ = 0, log_ = 0;
  OutputQuant quant_;
  const SoftmaxKernels* kernels_ = nullptr;
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_softmax() { return std::make_unique<SoftmaxOp>(); }

}  // namespace netsuke
