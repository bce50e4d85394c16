// linear: y = act(x w^T + bias + r), weights packed at load. bfloat16 weights: see numerics.md section 8.
#include <cstring>
#include <vector>

#include "kernels/base/shapes.h"
#include "kernels/fgemm/fgemm.h"
#include "kernels/fgemm/weights.h"

namespace netsuke {
namespace {

class LinearOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 4));
    const Tensor& w = args.inputs[1];
    NETSUKE_TRY(expect_dtype(w, "w", {DType::kF32, DType::kBF16}));
    if (w.data == nullptr || w.shape.rank != 2) return error(Code::kInvalidArgument, "w must be a constant [N, K]");
    n_ = w.shape.dim[0];
    k_ = w.shape.dim[1];
    NETSUKE_TRY(read_activation(args.attrs, "act", &act_));
    return weights_.build(w, args.inputs.size() > 2 ? &args.inputs[2] : nullptr, 1, n_, 1, k_, act_, args.isa, "linear");
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    const Shape& x = in[0].shape;
    if (x.rank < 1 || x.dim[x.rank - 1] != k_) {
      return error(Code::kInvalidArgument, "x has shape %s, its last dimension must be %lld as w has", shape_text(x).c_str(), static_cast<long long>(k_));
    }
    out[0].dtype = DType::kF32;
    out[0].shape = x;
    out[0].shape.dim[x.rank - 1] = n_;
    return weights_.check_residual(n_in > 3 ? &in[3] : nullptr, out[0].shape);
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor* out, int, int threads) const override {
    const int64_t rows = product(in[0].shape, 0, in[0].shape.rank - 1);
    return weights_.scratch_bytes(rows, 1, out[0], threads) + weights_.input_bytes(in[0], rows);
  }

  Status run(const RunArgs& args) const override {
    const Tensor& x = args.in[0];
    const int64_t rows = product(x.shape, 0, x.shape.rank - 1);
    uint8_t* scratch = static_cast<uint8_t*>(args.scratch);
    FgemmJob job = weights_.job(rows, args.out[0]);
    void* converted = scratch + weights_.scratch_bytes(rows, 1, args.out[0], args.pool.threads());
    const FgemmRows context = {weights_.input(x, rows, converted, args.pool, &job.flush), weights_.pixel_floats()};
    if (args.n_in > 3 && args.in[3].present) {
      job.r = args.in[3].as<float>();
      job.ldr = n_;
    }
    job.pointers = fgemm_row_pointers;
    job.context = &context;
    weights_.run(&job, scratch, args.pool);
    return Status();
  }

  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override {
    Cost cost = Op::cost(in, n_in, out, n_out);
    cost.macs = out[0].shape.elements() * k_;
    return cost;
  }
  const char* kernel_name() const override { return weights_.kernel_name(); }
  bool packed_constant(int i) const override { return i == 1 || i == 2; }
  bool reads_bf16(int i) const override { return i == 0 && weights_.reads_bf16(); }
  bool writes_bf16() const override { return weights_.writes_bf16(); }
  size_t packed_bytes() const override { return weights_.packed_bytes(); }

 private:
  int64_t n_ = 0, k_ = 0;
  Activation act_;
  FgemmWeights weights_;
};

}  // namespace

std::unique_ptr<Op> make_linear() { return std::make_unique<LinearOp>(); }

}  // namespace netsuke
