// reduce: a fold over any set of axes. Dimensions are merged first; then it is rows (reduced part contiguous), columns (kept
// part innermost) or, for interleaved axes, rows gathered through a table of offsets.
#include "kernels/reduce/reduce.h"

#include <cmath>
#include <type_traits>

#include "base/arena.h"
#include "kernels/base/shapes.h"

namespace netsuke {
namespace {

constexpr int64_t kTask = 8192;       // elements of one task, about
constexpr int64_t kTaskColumns = 64;  // columns of one task

enum class ReduceFn : int { mean, sum, max, min, prod, l1, l2, sumsq, logsumexp, any, all, count };
constexpr const char* kNames[] = {"mean", "sum", "max", "min", "prod", "l1", "l2", "sumsq", "logsumexp", "any", "all"};

Fold fold_of(ReduceFn fn) {
  switch (fn) {
    case ReduceFn::max: return Fold::largest;
    case ReduceFn::min: return Fold::smallest;
    case ReduceFn::prod: return Fold::product;
    case ReduceFn::l1: return Fold::sum_abs;
    case ReduceFn::l2:
    case ReduceFn::sumsq: return Fold::sum_squares;
    default: return Fold::sum;
  }
}

// x seen as kept and reduced dimensions, neighbours of the same kind merged, dimensions of one element dropped.
struct Layout {
  int n = 0;
  int64_t size[kMaxRank], stride[kMaxRank];
  bool reduced[kMaxRank];
  int64_t kept_elements = 1, reduced_elements = 1;

  Layout(const Shape& x, uint32_t axes) {
    int64_t step = 1;
    for (int d = x.rank - 1; d >= 0; --d) {  // innermost first
      const bool r = axes >> d & 1;
      (r ? reduced_elements : kept_elements) *= x.dim[d];
      if (x.dim[d] == 1) continue;
      if (n > 0 && reduced[n - 1] == r) {
        size[n - 1] *= x.dim[d];
      } else {
        size[n] = x.dim[d];
        stride[n] = step;
        reduced[n++] = r;
      }
      step *= x.dim[d];
    }
  }
  bool rows() const { return n == 0 || (reduced[0] && n <= 2) || (n == 1 && !reduced[0]); }
  bool columns() const { return !reduced[0] && n >= 2 && n <= 3; }
  // Offset of element `index` of the kept (or reduced) elements, counted row-major.
  int64_t offset(int64_t index, bool of_reduced) const {
    int64_t at = 0;
    for (int d = 0; d < n; ++d) {
      if (reduced[d] != of_reduced) continue;
      at += index % size[d] * stride[d];
      index /= size[d];
    }
    return at;
  }
};

template <typename T>
T fold_integers(ReduceFn fn, const T* x, const int64_t* offsets, int64_t n) {
  using U = std::make_unsigned_t<T>;
  if (fn == ReduceFn::any || fn == ReduceFn::all) {
    bool result = fn == ReduceFn::all;
    for (int64_t i = 0; i < n; ++i) result = fn == ReduceFn::all ? result && x[offsets[i]] : result || x[offsets[i]];
    return result;
  }
  U y = fn == ReduceFn::prod;
  if (fn == ReduceFn::max || fn == ReduceFn::min) y = static_cast<U>(x[offsets[0]]);
  for (int64_t i = 0; i < n; ++i) {
    const T v = x[offsets[i]], so_far = static_cast<T>(y);
    switch (fn) {
      case ReduceFn::sum: y += static_cast<U>(v); break;
      case ReduceFn::prod: y *= static_cast<U>(v); break;
      case ReduceFn::max: y = static_cast<U>(v > so_far ? v : so_far); break;
      default: y = static_cast<U>(v < so_far ? v : so_far); break;
    }
  }
  return static_cast<T>(y);
}

class ReduceOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 1, 1));
    std::string name, names;
    NETSUKE_TRY(args.attrs.get("fn", &name));
    NETSUKE_TRY(args.attrs.get("axes", &axes_));
    NETSUKE_TRY(args.attrs.get_or("keepdims", int64_t{1}, &keepdims_));
    int found = -1;
    for (int i = 0; i < static_cast<int>(ReduceFn::count); ++i) {
      if (name == kNames[i]) found = i;
      names += (i ? " " : "") + std::string(kNames[i]);
    }
    if (found < 0) return error(Code::kUnsupported, "fn is %s, expected one of %s", name.c_str(), names.c_str());
    fn_ = static_cast<ReduceFn>(found);
    kernels_ = &reduce_kernels(args.isa);
    kernel_ = "reduce_" + name + "_" + kernels_->name;
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    const Shape& x = in[0].shape;
    const bool logical = fn_ == ReduceFn::any || fn_ == ReduceFn::all;
    const bool exact = fn_ == ReduceFn::sum || fn_ == ReduceFn::max || fn_ == ReduceFn::min || fn_ == ReduceFn::prod;
    if (logical) NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kBool}));
    else if (exact) NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32, DType::kI64}));
    else NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    uint32_t axes;
    NETSUKE_TRY(axes_of(x, &axes));
    Shape y;
    int64_t reduced = 1;
    for (int d = 0; d < x.rank; ++d) {
      const bool r = axes >> d & 1;
      if (r) reduced *= x.dim[d];
      if (!r || keepdims_) y.dim[y.rank++] = r ? 1 : x.dim[d];
    }
    if (reduced == 0 && (fn_ == ReduceFn::max || fn_ == ReduceFn::min)) return error(Code::kInvalidArgument, "%s over no elements", kernel_.c_str());
    out[0].dtype = in[0].dtype;
    out[0].shape = y;
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor* out, int, int threads) const override {
    const Layout l = layout(in[0].shape);
    const size_t n = static_cast<size_t>(l.reduced_elements);
    if (in[0].dtype != DType::kF32) return n * sizeof(int64_t);
    if (l.rows()) return 0;
    if (l.columns()) return align_up(static_cast<size_t>(l.kept_elements) * sizeof(float));  // the shifts of logsumexp
    return align_up(n * sizeof(int64_t)) + static_cast<size_t>(threads) * align_up(n * sizeof(float));
  }

  Status run(const RunArgs& args) const override {
    const Layout l = layout(args.in[0].shape);
    if (args.in[0].dtype == DType::kI64) integers<int64_t>(args, l);
    else if (args.in[0].dtype == DType::kBool) integers<uint8_t>(args, l);
    else if (l.rows()) rows(args, l);
    else if (l.columns()) columns(args, l);
    else gathered(args, l);
    return Status();
  }
  const char* kernel_name() const override { return kernel_.c_str(); }

 private:
  Status axes_of(const Shape& x, uint32_t* out) const {
    *out = axes_.empty() ? (1u << x.rank) - 1 : 0;
    for (int64_t axis : axes_) {
      int a;
      NETSUKE_TRY(normalize_axis(axis, x.rank, &a));
      *out |= 1u << a;
    }
    return Status();
  }
  Layout layout(const Shape& x) const {
    uint32_t axes = 0;
    const Status status = axes_of(x, &axes);  // infer() has accepted them
    (void)status;
    return Layout(x, axes);
  }

  float fold_row(const float* x, int64_t n) const {
    if (fn_ != ReduceFn::logsumexp) return finish(kernels_->rows[static_cast<int>(fold_of(fn_))](x, n, 0), n);
    const float top = kernels_->rows[static_cast<int>(Fold::largest)](x, n, 0), shift = std::isfinite(top) ? top : 0.0f;
    float y = kernels_->rows[static_cast<int>(Fold::sum_exp)](x, n, shift);
    kernels_->log(&y, &y, 1);
    return y + shift;
  }
  float finish(float v, int64_t n) const {
    if (fn_ == ReduceFn::mean) return v / static_cast<float>(n);
    return fn_ == ReduceFn::l2 ? std::sqrt(v) : v;
  }

  void rows(const RunArgs& args, const Layout& l) const {
    const int64_t n = l.reduced_elements, per_task = n >= kTask || n == 0 ? 1 : kTask / n;
    args.pool.parallel_for((l.kept_elements + per_task - 1) / per_task, [&](int64_t task, int) {
      for (int64_t r = task * per_task; r < l.kept_elements && r < (task + 1) * per_task; ++r) {
        args.out[0].as<float>()[r] = fold_row(args.in[0].as<float>() + r * n, n);
      }
    });
  }

  void columns(const RunArgs& args, const Layout& l) const {
    const int64_t width = l.size[0], n = l.size[1], outer = l.kept_elements == 0 ? 0 : l.kept_elements / width;
    const int64_t blocks = (width + kTaskColumns - 1) / kTaskColumns;
    args.pool.parallel_for(outer * blocks, [&](int64_t task, int) {
      const int64_t o = task / blocks, c = task % blocks * kTaskColumns, count = width - c < kTaskColumns ? width - c : kTaskColumns;
      const float* x = args.in[0].as<float>() + o * n * width + c;
      float *y = args.out[0].as<float>() + o * width + c, *shift = static_cast<float*>(args.scratch) + o * width + c;
      if (fn_ != ReduceFn::logsumexp) {
        kernels_->columns[static_cast<int>(fold_of(fn_))](x, n, width, nullptr, y, count);
        for (int64_t i = 0; i < count; ++i) y[i] = finish(y[i], n);
        return;
      }
      kernels_->columns[static_cast<int>(Fold::largest)](x, n, width, nullptr, shift, count);
      for (int64_t i = 0; i < count; ++i) shift[i] = std::isfinite(shift[i]) ? shift[i] : 0.0f;
      kernels_->columns[static_cast<int>(Fold::sum_exp)](x, n, width, shift, y, count);
      kernels_->log(y, y, count);
      for (int64_t i = 0; i < count; ++i) y[i] += shift[i];
    });
  }

  static const int64_t* offsets(const RunArgs& args, const Layout& l) {
    int64_t* table = static_cast<int64_t*>(args.scratch);
    for (int64_t i = 0; i < l.reduced_elements; ++i) table[i] = l.offset(i, true);
    return table;
  }

  void gathered(const RunArgs& args, const Layout& l) const {
    const int64_t n = l.reduced_elements, per_task = n >= kTask || n == 0 ? 1 : kTask / n;
    const int64_t* table = offsets(args, l);
    const size_t bytes = align_up(static_cast<size_t>(n) * sizeof(float));
    uint8_t* buffers = static_cast<uint8_t*>(args.scratch) + align_up(static_cast<size_t>(n) * sizeof(int64_t));
    args.pool.parallel_for((l.kept_elements + per_task - 1) / per_task, [&](int64_t task, int thread) {
      float* buffer = reinterpret_cast<float*>(buffers + bytes * static_cast<size_t>(thread));
      for (int64_t r = task * per_task; r < l.kept_elements && r < (task + 1) * per_task; ++r) {
        const float* x = args.in[0].as<float>() + l.offset(r, false);
        for (int64_t i = 0; i < n; ++i) buffer[i] = x[table[i]];
        args.out[0].as<float>()[r] = fold_row(buffer, n);
      }
    });
  }

  template <typename T>
  void integers(const RunArgs& args, const Layout& l) const {
    const int64_t* table = offsets(args, l);
    for (int64_t r = 0; r < l.kept_elements; ++r) {
      args.out[0].as<T>()[r] = fold_integers<T>(fn_, args.in[0].as<T>() + l.offset(r, false), table, l.reduced_elements);
    }
  }

  ReduceFn fn_ = ReduceFn::sum;
  std::vector<int64_t> axes_;
  int64_t keepdims_ = 1;
  const ReduceKernels* kernels_ = nullptr;
  std::string kernel_;
};

class ArgmaxOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 1, 1));
    NETSUKE_TRY(args.attrs.get("axis", &axis_));
    return args.attrs.get_or("keepdims", int64_t{1}, &keepdims_);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32, DType::kU8}));
    const Shape& x = in[0].shape;
    int axis;
    NETSUKE_TRY(normalize_axis(axis_, x.rank, &axis));
    if (x.dim[axis] == 0) return error(Code::kInvalidArgument, "argmax over no elements");
    Shape y;
    for (int d = 0; d < x.rank; ++d) {
      if (d != axis || keepdims_) y.dim[y.rank++] = d == axis ? 1 : x.dim[d];
    }
    out[0].dtype = DType::kI64;
    out[0].shape = y;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Tensor& x = args.in[0];
    return x.dtype == DType::kU8 ? run_on<uint8_t>(args, x) : run_on<float>(args, x);
  }
  const char* kernel_name() const override { return "argmax_portable"; }

 private:
  template <typename T>
  Status run_on(const RunArgs& args, const Tensor& x) const {
    const int axis = static_cast<int>(axis_ < 0 ? axis_ + x.shape.rank : axis_);
    const int64_t outer = product(x.shape, 0, axis), n = x.shape.dim[axis], inner = product(x.shape, axis + 1, x.shape.rank);
    const int64_t rows = outer * inner, per_task = n >= kTask ? 1 : kTask / n;
    args.pool.parallel_for((rows + per_task - 1) / per_task, [&](int64_t task, int) {
      for (int64_t r = task * per_task; r < rows && r < (task + 1) * per_task; ++r) {
        const T* from = x.as<T>() + r / inner * n * inner + r % inner;
        args.out[0].as<int64_t>()[r] = first_largest(from, n, inner);
      }
    });
    return Status();
  }
  // The first of the largest elements; a NaN counts as larger than all.
  template <typename T>
  static int64_t first_largest(const T* x, int64_t n, int64_t stride) {
    int64_t best = 0;
    T top = x[0];
    for (int64_t i = 1; i < n && top == top; ++i) {
      const T v = x[i * stride];
      if (v > top || v != v) {
        top = v;
        best = i;
      }
    }
    return best;
  }

  int64_t axis_ = 0, keepdims_ = 1;
};

}  // namespace

std::unique_ptr<Op> make_reduce() { return std::make_unique<ReduceOp>(); }
std::unique_ptr<Op> make_argmax() { return std::make_unique<ArgmaxOp>(); }

}  // namespace netsuke
