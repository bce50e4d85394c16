// matmul: batched products of two activations. b is packed in scratch at every run, or once at load when it is constant. compute = bf16
// rounds both operands (numerics.md section 8): a is then copied in pairs too.
#include <atomic>
#include <cstring>

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/fgemm/bf16.h"
#include "kernels/fgemm/fgemm.h"

namespace netsuke {
namespace {

constexpr int64_t kConvertChunk = 4096;  // floats of a converted in one task, about

struct Layout {
  int64_t m, k, n;
  int64_t depth;               // 32-bit words of one row of a as the kernels read it: k, or pairs
  Shape batch;                 // of the output
  int64_t batches, b_batches;  // matrices in the output and in b
  int64_t a_rows;              // rows of one product: with a single b all of a is one tall matrix
  bool merged;
  int64_t products() const { return merged ? 1 : batches; }
};

// Scratch of one thread, and that of one product where its operands are not read in place.
struct Workspace {
  void* pointers;
  void* pairs;  // for packing
};
struct Operands {
  float* a;  // in pairs
  float* b;  // packed
};

// Smallest exponent fields found by several threads, see bf16_may_flush.
void lower(std::atomic<uint32_t>* least, uint32_t value) {
  uint32_t now = least->load(std::memory_order_relaxed);
  while (value < now && !least->compare_exchange_weak(now, value, std::memory_order_relaxed)) {
  }
}

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
    std::string compute;
    NETSUKE_TRY(args.attrs.get_or("compute", "f32", &compute));
    if (compute != "f32" && compute != "bf16") return error(Code::kInvalidArgument, "compute is '%s', allowed: f32, bf16", compute.c_str());
    bf16_ = compute == "bf16";
    kernels_ = bf16_ ? &fgemm_bf16_kernels(args.isa) : &fgemm_kernels(args.isa);
    kernel_ = "matmul_" + compute + "_" + kernels_->name;
    const Tensor& b = args.inputs[1];
    if (b.data == nullptr) return Status();
    NETSUKE_TRY(expect_dtype(b, "b", {DType::kF32}));
    if (b.shape.rank < 2) return error(Code::kInvalidArgument, "b has shape %s, expected at least two dimensions", shape_text(b.shape).c_str());
    const int64_t k = b_dim(b.shape, 0), n = b_dim(b.shape, 1), batches = product(b.shape, 0, b.shape.rank - 2);
    const size_t floats = fgemm_packed_floats(*kernels_, n, depth_of(k));
    NETSUKE_TRY(constant_.allocate(floats * static_cast<size_t>(batches) * sizeof(float)));
    Buffer pairs;
    NETSUKE_TRY(pairs.allocate(fgemm_pack_bf16_bytes(*kernels_, k, trans_b_ != 0)));
    for (int64_t i = 0; i < batches; ++i) {
      float* packed = reinterpret_cast<float*>(constant_.data()) + floats * static_cast<size_t>(i);
      const uint32_t least = pack(b.as<float>() + i * k * n, k, n, packed, 0, fgemm_panels(*kernels_, n), pairs.data());
      constant_least_ = least < constant_least_ ? least : constant_least_;
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
    return work_bytes(l) * static_cast<size_t>(threads) + operand_bytes(l) * static_cast<size_t>(spread(l, threads) ? threads : l.products());
  }

  Status run(const RunArgs& args) const override {
    const Layout l = layout(args.in[0].shape, args.in[1].shape, args.out[0].shape);
    if (l.batches * l.m * l.n == 0) return Status();
    if (spread(l, args.pool.threads())) {
      args.pool.parallel_for(l.products(), [&](int64_t i, int thread) { whole(args, l, i, thread); });
    } else {
      cut(args, l);
    }
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
  // Many small products are spread over threads whole; few large ones are all cut up.
  static bool spread(const Layout& l, int threads) { return l.products() >= 2 * threads || threads == 1; }
  int64_t depth_of(int64_t k) const { return bf16_ ? (k + 1) / 2 : k; }
  // Returns the smallest exponent field where operands are rounded to bfloat16.
  uint32_t pack(const float* b, int64_t k, int64_t n, float* packed, int64_t panel, int64_t panel_end, void* pairs) const {
    if (bf16_) return fgemm_pack_bf16(*kernels_, b, n, k, trans_b_ != 0, packed, panel, panel_end, pairs);
    fgemm_pack(*kernels_, b, n, k, trans_b_ ? k : 1, trans_b_ ? 1 : n, packed, panel, panel_end);
    return 255;
  }
  Layout layout(const Shape& a, const Shape& b, const Shape& y) const {
    Layout l;
    l.m = y.dim[y.rank - 2];
    l.k = a.dim[a.rank - 1];
    l.n = y.dim[y.rank - 1];
    l.depth = depth_of(l.k);
    l.batch = y;
    l.batch.rank -= 2;
    l.batches = l.batch.elements();
    l.b_batches = product(b, 0, b.rank - 2);
    l.merged = l.b_batches == 1 && product(a, 0, a.rank - 2) == l.batches;
    l.a_rows = l.merged ? l.batches * l.m : l.m;
    return l;
  }
  size_t pointer_bytes(const Layout& l) const { return align_up(fgemm_scratch_bytes(l.a_rows, 1)); }
  size_t work_bytes(const Layout& l) const {
    return pointer_bytes(l) + (bf16_ ? align_up(fgemm_pack_bf16_bytes(*kernels_, l.k, trans_b_ != 0)) : 0);
  }
  size_t a_bytes(const Layout& l) const { return bf16_ ? align_up(static_cast<size_t>(l.a_rows * l.depth) * sizeof(float)) : 0; }
  size_t operand_bytes(const Layout& l) const {
    return a_bytes(l) + (is_constant_ ? 0 : align_up(fgemm_packed_floats(*kernels_, l.n, l.depth) * sizeof(float)));
  }
  Workspace workspace(const RunArgs& args, const Layout& l, int thread) const {
    uint8_t* start = static_cast<uint8_t*>(args.scratch) + work_bytes(l) * static_cast<size_t>(thread);
    return {start, start + pointer_bytes(l)};
  }
  Operands operands(const RunArgs& args, const Layout& l, int64_t number) const {
    uint8_t* start = static_cast<uint8_t*>(args.scratch) + work_bytes(l) * static_cast<size_t>(args.pool.threads());
    start += operand_bytes(l) * static_cast<size_t>(number);
    return {reinterpret_cast<float*>(start), reinterpret_cast<float*>(start + a_bytes(l))};
  }
  const float* a_of(const RunArgs& args, const Layout& l, int64_t i) const {
    return args.in[0].as<float>() + (l.merged ? 0 : batch_of(l.batch, args.in[0].shape, i)) * l.m * l.k;
  }
  const float* b_of(const RunArgs& args, const Layout& l, int64_t i) const {
    return args.in[1].as<float>() + batch_of(l.batch, args.in[1].shape, l.merged ? 0 : i) * l.k * l.n;
  }
  const float* constant_of(const RunArgs& args, const Layout& l, int64_t i) const {
    const size_t at = static_cast<size_t>(batch_of(l.batch, args.in[1].shape, l.merged ? 0 : i));
    return reinterpret_cast<const float*>(constant_.data()) + fgemm_packed_floats(*kernels_, l.n, l.depth) * at;
  }
  FgemmJob job_of(const RunArgs& args, const Layout& l, int64_t i) const {
    FgemmJob job;
    job.kernels = kernels_;
    job.rows = l.a_rows;
    job.cols = job.ldc = l.n;
    job.channels = l.depth;
    job.bf16 = bf16_;
    job.c = args.out[0].as<float>() + i * l.m * l.n;
    job.scale = alpha_;
    job.pointers = fgemm_row_pointers;
    return job;
  }
  void whole(const RunArgs& args, const Layout& l, int64_t i, int thread) const {
    const Workspace work = workspace(args, l, thread);
    const Operands made = operands(args, l, thread);
    FgemmJob job = job_of(args, l, i);
    FgemmRows rows = {a_of(args, l, i), l.k};
    uint32_t a_least = 255, b_least = constant_least_;
    if (bf16_) {
      a_least = kernels_->to_bf16(rows.base, l.a_rows, l.k, reinterpret_cast<uint32_t*>(made.a));
      rows = {made.a, l.depth};
    }
    if (!is_constant_) b_least = pack(b_of(args, l, i), l.k, l.n, made.b, 0, fgemm_panels(*kernels_, l.n), work.pairs);
    job.b = is_constant_ ? constant_of(args, l, i) : made.b;
    job.context = &rows;
    job.flush = bf16_ && bf16_may_flush(a_least, b_least);
    const int64_t tasks = fgemm_plan(&job, 1);
    for (int64_t t = 0; t < tasks; ++t) fgemm_task(job, t, work.pointers);
  }

  // Two passes over all products: operands, then tiles.
  void cut(const RunArgs& args, const Layout& l) const {
    const int64_t chunk = kConvertChunk / (l.k > 0 ? l.k : 1) + 1, chunks = bf16_ ? (l.a_rows + chunk - 1) / chunk : 0;
    const int64_t panels = is_constant_ ? 0 : fgemm_panels(*kernels_, l.n), parts = chunks + panels;
    std::atomic<uint32_t> a_least{255}, b_least{constant_least_};
    args.pool.parallel_for(parts * l.products(), [&](int64_t task, int thread) {
      const int64_t i = task / parts, part = task % parts;
      const Operands made = operands(args, l, i);
      if (part < panels) {
        lower(&b_least, pack(b_of(args, l, i), l.k, l.n, made.b, part, part + 1, workspace(args, l, thread).pairs));
        return;
      }
      const int64_t begin = (part - panels) * chunk, count = l.a_rows - begin < chunk ? l.a_rows - begin : chunk;
      uint32_t* to = reinterpret_cast<uint32_t*>(made.a) + begin * l.depth;
      lower(&a_least, kernels_->to_bf16(a_of(args, l, i) + begin * l.k, count, l.k, to));
    });
    FgemmJob first = job_of(args, l, 0);
    first.flush = bf16_ && bf16_may_flush(a_least.load(), b_least.load());
    const int64_t tasks = fgemm_plan(&first, args.pool.threads());
    args.pool.parallel_for(tasks * l.products(), [&](int64_t task, int thread) {
      const int64_t i = task / tasks;
      const Operands made = operands(args, l, i);
      const FgemmRows rows = bf16_ ? FgemmRows{made.a, l.depth} : FgemmRows{a_of(args, l, i), l.k};
      FgemmJob job = first;
      job.c += i * l.m * l.n;
      job.b = is_constant_ ? constant_of(args, l, i) : made.b;
      job.context = &rows;
      fgemm_task(job, task % tasks, workspace(args, l, thread).pointers);
    });
  }

  int64_t trans_b_ = 0;
  float alpha_ = 1;
  bool bf16_ = false;
  const FgemmKernels* kernels_ = nullptr;
  Buffer constant_;
  bool is_constant_ = false;
  uint32_t constant_least_ = 255;  // exponent field of the smallest constant
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_matmul() { return std::make_unique<MatmulOp>(); }

}  // namespace netsuke
