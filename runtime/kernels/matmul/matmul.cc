// matmul: batched products of two activations. b is packed in scratch at every run, or once at load when it is constant.
#include <cstring>

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/fgemm/fgemm.h"

namespace netsuke {
namespace {

struct Layout {
  int64_t m, k, n;
  Shape batch;                 // of the output
  int64_t batches, b_batches;  // matrices in the output and in b
  int64_t a_rows;              // rows of one product: with a single b all of a is one tall matrix
  bool merged;
};

// Index of batch element `index` of `out` in a tensor whose leading dimensions broadcast to it.
int64_t batch_of(const Shape& out, const Shape& in, int64_t index) {
  const int in_rank = in.rank - 2;
  int64_t at = 0, step = 1;
  for (int d = out.rank - 1; d >= 0; --d) {
    const int i = d - (out.rank - in_rank);
    const int64_t position = index % out.dim[d];
    index /= out.dim[d];
    if (i < 0) continue;
    if (in.dim[i] != 1) at += position * step;
    step *= in.dim[i];
  }
  return at;
}

class MatmulOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 2));
    NETSUKE_TRY(args.attrs.get_or("trans_b", int64_t{0}, &trans_b_));
    NETSUKE_TRY(args.attrs.get_or("alpha", 1.0f, &alpha_));
    kernels_ = &fgemm_kernels(args.isa);
    kernel_ = std::string("matmul_f32_") + kernels_->name;
    const Tensor& b = args.inputs[1];
    if (b.data == nullptr) return Status();
    NETSUKE_TRY(expect_dtype(b, "b", {DType::kF32}));
    if (b.shape.rank < 2) return error(Code::kInvalidArgument, "b has shape %s, expected at least two dimensions", shape_text(b.shape).c_str());
    const int64_t k = b_dim(b.shape, 0), n = b_dim(b.shape, 1), batches = product(b.shape, 0, b.shape.rank - 2);
    const size_t floats = fgemm_packed_floats(*kernels_, n, k);
    NETSUKE_TRY(constant_.allocate(floats * static_cast<size_t>(batches) * sizeof(float)));
    for (int64_t i = 0; i < batches; ++i) {
      pack(b.as<float>() + i * k * n, k, n, reinterpret_cast<float*>(constant_.data()) + floats * static_cast<size_t>(i), 0, fgemm_panels(*kernels_, n));
    }
    is_constant_ = true;
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "a", {DType::kF32}));
    NETSUKE_TRY(expect_dtype(in[1], "b", {DType::kF32}));
    const Shape &a = in[0].shape, &b = in[1].shape;
    if (a.rank < 2 || b.rank < 2 || a.dim[a.rank - 1] != b_dim(b, 0)) {
      return error(Code::kInvalidArgument, "a %s and b %s%s do not multiply", shape_text(a).c_str(), shape_text(b).c_str(), trans_b_ ? " (transposed)" : "");
    }
    Shape ba = a, bb = b, y;
    ba.rank -= 2;
    bb.rank -= 2;
    NETSUKE_TRY(broadcast(ba, bb, &y));
    y.dim[y.rank++] = a.dim[a.rank - 2];
    y.dim[y.rank++] = b_dim(b, 1);
    out[0].dtype = DType::kF32;
    out[0].shape = y;
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor* out, int, int threads) const override {
    const Layout l = layout(in[0].shape, in[1].shape, out[0].shape);
    const size_t pointers = align_up(fgemm_scratch_bytes(l.a_rows, 1)) * static_cast<size_t>(threads);
    return pointers + (is_constant_ ? 0 : packed_bytes_of(l) * static_cast<size_t>(threads));
  }

  Status run(const RunArgs& args) const override {
    const Layout l = layout(args.in[0].shape, args.in[1].shape, args.out[0].shape);
    if (l.batches * l.m * l.n == 0) return Status();
    const int64_t products = l.merged ? 1 : l.batches;
    // Many small products are spread over threads whole; few large ones are each cut up.
    const bool whole = products >= 2 * args.pool.threads() || args.pool.threads() == 1;
    if (whole) {
      args.pool.parallel_for(products, [&](int64_t i, int thread) {
        FgemmJob job = job_of(args, l, i);
        const FgemmRows rows = rows_of(args, l, i);
        job.context = &rows;
        float* packed = packed_scratch(args, l, thread);
        job.b = is_constant_ ? constant_of(args, l, i) : packed;
        if (!is_constant_) pack(b_of(args, l, i), l.k, l.n, packed, 0, fgemm_panels(*kernels_, l.n));
        const int64_t tasks = fgemm_plan(&job, 1);
        for (int64_t t = 0; t < tasks; ++t) fgemm_task(job, t, pointer_scratch(args, l, thread));
      });
      return Status();
    }
    for (int64_t i = 0; i < products; ++i) cut(args, l, i);
    return Status();
  }

  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override {
    Cost cost = Op::cost(in, n_in, out, n_out);
    cost.macs = out[0].shape.elements() * in[0].shape.dim[in[0].shape.rank - 1];
    return cost;
  }
  const char* kernel_name() const override { return kernel_.c_str(); }
  bool packed_constant(int i) const override { return i == 1 && is_constant_; }
  size_t packed_bytes() const override { return constant_.bytes(); }

 private:
  int64_t b_dim(const Shape& b, int i) const { return b.dim[b.rank - 2 + (trans_b_ ? 1 - i : i)]; }
  void pack(const float* b, int64_t k, int64_t n, float* packed, int64_t panel, int64_t panel_end) const {
    fgemm_pack(*kernels_, b, n, k, trans_b_ ? k : 1, trans_b_ ? 1 : n, packed, panel, panel_end);
  }
  Layout layout(const Shape& a, const Shape& b, const Shape& y) const {
    Layout l;
    l.m = y.dim[y.rank - 2];
    l.k = a.dim[a.rank - 1];
    l.n = y.dim[y.rank - 1];
    l.batch = y;
    l.batch.rank -= 2;
    l.batches = l.batch.elements();
    l.b_batches = product(b, 0, b.rank - 2);
    l.merged = l.b_batches == 1 && product(a, 0, a.rank - 2) == l.batches;
    l.a_rows = l.merged ? l.batches * l.m : l.m;
    return l;
  }
  size_t packed_bytes_of(const Layout& l) const { return align_up(fgemm_packed_floats(*kernels_, l.n, l.k) * sizeof(float)); }
  void* pointer_scratch(const RunArgs& args, const Layout& l, int thread) const {
    return static_cast<uint8_t*>(args.scratch) + align_up(fgemm_scratch_bytes(l.a_rows, 1)) * static_cast<size_t>(thread);
  }
  float* packed_scratch(const RunArgs& args, const Layout& l, int thread) const {
    uint8_t* start = static_cast<uint8_t*>(pointer_scratch(args, l, args.pool.threads()));
    return reinterpret_cast<float*>(start + packed_bytes_of(l) * static_cast<size_t>(thread));
  }
  FgemmRows rows_of(const RunArgs& args, const Layout& l, int64_t i) const {
    const int64_t at = l.merged ? 0 : batch_of(l.batch, args.in[0].shape, i);
    return {args.in[0].as<float>() + at * l.m * l.k, l.k};
  }
  const float* b_of(const RunArgs& args, const Layout& l, int64_t i) const {
    return args.in[1].as<float>() + batch_of(l.batch, args.in[1].shape, l.merged ? 0 : i) * l.k * l.n;
  }
  const float* constant_of(const RunArgs& args, const Layout& l, int64_t i) const {
    const size_t at = static_cast<size_t>(batch_of(l.batch, args.in[1].shape, l.merged ? 0 : i));
    return reinterpret_cast<const float*>(constant_.data()) + fgemm_packed_floats(*kernels_, l.n, l.k) * at;
  }
  FgemmJob job_of(const RunArgs& args, const Layout& l, int64_t i) const {
    FgemmJob job;
    job.kernels = kernels_;
    job.rows = l.a_rows;
    job.cols = job.ldc = l.n;
    job.channels = l.k;
    job.c = args.out[0].as<float>() + i * l.m * l.n;
    job.scale = alpha_;
    job.pointers = fgemm_row_pointers;
    return job;
  }
  void cut(const RunArgs& args, const Layout& l, int64_t i) const {
    FgemmJob job = job_of(args, l, i);
    const FgemmRows rows = rows_of(args, l, i);
    job.context = &rows;
    job.b = is_constant_ ? constant_of(args, l, i) : packed_scratch(args, l, 0);
    if (!is_constant_) {
      args.pool.parallel_for(fgemm_panels(*kernels_, l.n), [&](int64_t panel, int) {
        pack(b_of(args, l, i), l.k, l.n, packed_scratch(args, l, 0), panel, panel + 1);
      });
    }
    const int64_t tasks = fgemm_plan(&job, args.pool.threads());
    args.pool.parallel_for(tasks, [&](int64_t t, int thread) { fgemm_task(job, t, pointer_scratch(args, l, thread)); });
  }

  int64_t trans_b_ = 0;
  float alpha_ = 1;
  const FgemmKernels* kernels_ = nullptr;
  Buffer constant_;
  bool is_constant_ = false;
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_matmul() { return std::make_unique<MatmulOp>(); }

}  // namespace netsuke
