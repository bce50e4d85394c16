// Operators that are one strided copy: transpose, slice, expand, tile, depth_to_space, space_to_depth.
#include <algorithm>
#include <string>
#include <vector>

#include "kernels/movement/common.h"
#include "kernels/movement/strided.h"

namespace netsuke {
namespace {

using namespace movement;

// layout() gives the copy; source_offset the element of x it starts at.
class Rearrange : public Op {
 public:
  Status run(const RunArgs& args) const override {
    Strided copy;
    int64_t offset = 0;
    NETSUKE_TRY(layout(args.in, args.n_in, args.out[0].shape, &copy, &offset));
    const size_t element = dtype_size(args.in[0].dtype);
    const auto* from = args.in[0].as<const uint8_t>() + offset * static_cast<int64_t>(element);
    strided_copy(from, args.out[0].data, copy, element, args.pool);
    return Status();
  }
  const char* kernel_name() const override { return "movement_strided"; }

 protected:
  virtual Status layout(const Tensor* in, int n_in, const Shape& out, Strided* copy, int64_t* offset) const = 0;
};

class Transpose final : public Rearrange {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 1, 1));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    NETSUKE_TRY(args.attrs.get("perm", &perm_));
    std::vector<bool> seen(perm_.size(), false);
    for (int64_t axis : perm_) {
      if (axis < 0 || axis >= static_cast<int64_t>(perm_.size()) || seen[static_cast<size_t>(axis)]) {
        return error(Code::kCorruptFile, "attribute 'perm' is no permutation");
      }
      seen[static_cast<size_t>(axis)] = true;
    }
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    if (static_cast<int>(perm_.size()) != in[0].shape.rank) {
      return error(Code::kInvalidArgument, "perm has %zu axes, x has rank %d", perm_.size(), in[0].shape.rank);
    }
    out[0].dtype = in[0].dtype;
    out[0].shape.rank = in[0].shape.rank;
    for (int d = 0; d < in[0].shape.rank; ++d) out[0].shape.dim[d] = in[0].shape.dim[perm_[static_cast<size_t>(d)]];
    return Status();
  }

 protected:
  Status layout(const Tensor* in, int, const Shape& out, Strided* copy, int64_t*) const override {
    int64_t strides[kMaxRank];
    dense_strides(in[0].shape, strides);
    for (int d = 0; d < out.rank; ++d) copy->add(out.dim[d], strides[perm_[static_cast<size_t>(d)]]);
    return Status();
  }

 private:
  std::vector<int64_t> perm_;
};

// One dimension of a slice: `count` elements from `first` on, `step` apart.
struct Cut {
  int64_t first = 0, step = 1, count = 0;
};

// NumPy's x[start:end:step] for a dimension of `size` (ONNX clamps in the same way).
Cut cut(int64_t size, int64_t start, int64_t end, int64_t step) {
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto place = [&](int64_t at) { return std::min(std::max(at < 0 ? at + size : at, low), high); };
  Cut out;
  out.first = place(start);
  out.step = step;
  const int64_t span = step > 0 ? place(end) - out.first : out.first - place(end);
  const int64_t stride = step > 0 ? step : step == INT64_MIN ? INT64_MAX : -step;
  out.count = span <= 0 ? 0 : (span - 1) / stride + 1;
  if (out.count <= 1) out.step = 0;  // never used; keeps products of huge steps out
  if (out.count == 0) out.first = 0;
  return out;
}

class Slice final : public Rearrange {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 3, 5));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int) const override {
    Cut cuts[kMaxRank];
    NETSUKE_TRY(read(in, n_in, cuts));
    std::vector<int64_t> dims;
    for (int d = 0; d < in[0].shape.rank; ++d) dims.push_back(cuts[d].count);
    return set_output(in[0].dtype, dims, &out[0]);
  }

 protected:
  Status layout(const Tensor* in, int n_in, const Shape& out, Strided* copy, int64_t* offset) const override {
    Cut cuts[kMaxRank];
    NETSUKE_TRY(read(in, n_in, cuts));
    int64_t strides[kMaxRank];
    dense_strides(in[0].shape, strides);
    for (int d = 0; d < out.rank; ++d) {
      copy->add(out.dim[d], strides[d] * cuts[d].step);
      *offset += strides[d] * cuts[d].first;
    }
    return Status();
  }

 private:
  static Status read(const Tensor* in, int n_in, Cut* cuts) {
    std::vector<int64_t> starts, ends, axes, steps;
    NETSUKE_TRY(read_known(in[1], "starts", &starts));
    NETSUKE_TRY(read_known(in[2], "ends", &ends));
    if (given(in, n_in, 3)) {
      NETSUKE_TRY(read_known(in[3], "axes", &axes));
    } else {
      for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
    }
    steps.assign(starts.size(), 1);
    if (given(in, n_in, 4)) NETSUKE_TRY(read_known(in[4], "steps", &steps));
    if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) {
      return error(Code::kInvalidArgument, "starts, ends, axes and steps have different lengths");
    }
    for (int d = 0; d < in[0].shape.rank; ++d) cuts[d] = cut(in[0].shape.dim[d], 0, in[0].shape.dim[d], 1);
    for (size_t i = 0; i < starts.size(); ++i) {
      int axis = 0;
      NETSUKE_TRY(resolve_axis(axes[i], in[0].shape.rank, &axis));
      if (steps[i] == 0) return error(Code::kInvalidArgument, "a step of 0");
      cuts[axis] = cut(in[0].shape.dim[axis], starts[i], ends[i], steps[i]);
    }
    return Status();
  }
};

class Expand final : public Rearrange {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 2));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    std::vector<int64_t> wanted;
    NETSUKE_TRY(read_known(in[1], "shape", &wanted));
    if (wanted.size() > kMaxRank) return error(Code::kInvalidArgument, "a shape of rank above 8");
    const Shape& x = in[0].shape;
    const int rank = std::max(x.rank, static_cast<int>(wanted.size()));
    std::vector<int64_t> dims(static_cast<size_t>(rank), 1);
    for (int d = 0; d < rank; ++d) {
      const int from_x = d - (rank - x.rank), from_shape = d - (rank - static_cast<int>(wanted.size()));
      const int64_t a = from_x < 0 ? 1 : x.dim[from_x];
      const int64_t b = from_shape < 0 ? 1 : wanted[static_cast<size_t>(from_shape)];
      if (a != b && a != 1 && b != 1) {
        return error(Code::kInvalidArgument, "dimension %d: %lld does not broadcast to %lld", d, static_cast<long long>(a),
                     static_cast<long long>(b));
      }
      dims[static_cast<size_t>(d)] = a == 1 ? b : a;
    }
    return set_output(in[0].dtype, dims, &out[0]);
  }

 protected:
  Status layout(const Tensor* in, int, const Shape& out, Strided* copy, int64_t*) const override {
    int64_t strides[kMaxRank];
    dense_strides(in[0].shape, strides);
    for (int d = 0; d < out.rank; ++d) {
      const int from = d - (out.rank - in[0].shape.rank);
      copy->add(out.dim[d], from < 0 || in[0].shape.dim[from] == 1 ? 0 : strides[from]);
    }
    return Status();
  }
};

class Tile final : public Rearrange {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 2));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    std::vector<int64_t> repeats, dims;
    NETSUKE_TRY(read_known(in[1], "repeats", &repeats));
    if (static_cast<int>(repeats.size()) != in[0].shape.rank) {
      return error(Code::kInvalidArgument, "%zu repeats for a tensor of rank %d", repeats.size(), in[0].shape.rank);
    }
    for (int d = 0; d < in[0].shape.rank; ++d) {
      int64_t dim = 0;
      if (repeats[static_cast<size_t>(d)] < 0 || __builtin_mul_overflow(in[0].shape.dim[d], repeats[static_cast<size_t>(d)], &dim)) {
        return error(Code::kInvalidArgument, "repeats that are negative or overflow");
      }
      dims.push_back(dim);
    }
    return set_output(in[0].dtype, dims, &out[0]);
  }

 protected:
  Status layout(const Tensor* in, int, const Shape& out, Strided* copy, int64_t*) const override {
    int64_t strides[kMaxRank];
    dense_strides(in[0].shape, strides);
    for (int d = 0; d < out.rank; ++d) {
      const int64_t dim = in[0].shape.dim[d];
      copy->add(dim == 0 ? 0 : out.dim[d] / dim, 0);
      copy->add(dim, strides[d]);
    }
    return Status();
  }
};

// depth_to_space: channel (by, bx, c) with DCR, (c, by, bx) with CRD, goes to pixel (y * b + by, x * b + bx), channel c.
// space_to_depth is its inverse.
class Blocks final : public Rearrange {
 public:
  explicit Blocks(bool to_space) : to_space_(to_space) {}

  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 1, 1));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    NETSUKE_TRY(args.attrs.get("block", &block_));
    if (block_ < 1 || block_ > 32768) return error(Code::kCorruptFile, "attribute 'block' is not between 1 and 32768");
    std::string mode;
    NETSUKE_TRY(args.attrs.get_or("mode", "DCR", &mode));
    if (mode != "DCR" && mode != "CRD") return error(Code::kCorruptFile, "attribute 'mode' is neither DCR nor CRD");
    depth_first_ = mode == "DCR";
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    const Shape& x = in[0].shape;
    if (x.rank != 4) return error(Code::kInvalidArgument, "x has rank %d, expected [N, H, W, C]", x.rank);
    const int64_t b = block_;
    if (to_space_ ? x.dim[3] % (b * b) != 0 : x.dim[1] % b != 0 || x.dim[2] % b != 0) {
      return error(Code::kInvalidArgument, "%s not divisible by block %lld%s", to_space_ ? "channels" : "height or width",
                   static_cast<long long>(b), to_space_ ? " squared" : "");
    }
    int64_t h = x.dim[1] / b, w = x.dim[2] / b, c = 0;
    if (to_space_) {
      c = x.dim[3] / (b * b);
      if (__builtin_mul_overflow(x.dim[1], b, &h) || __builtin_mul_overflow(x.dim[2], b, &w)) h = -1;
    } else if (__builtin_mul_overflow(x.dim[3], b * b, &c)) {
      c = -1;
    }
    return set_output(in[0].dtype, {x.dim[0], h, w, c}, &out[0]);
  }

 protected:
  Status layout(const Tensor* in, int, const Shape& out, Strided* copy, int64_t*) const override {
    const Shape& x = in[0].shape;
    const int64_t b = block_;
    const int64_t row = x.dim[2] * x.dim[3], pixel = x.dim[3];
    copy->add(x.dim[0], x.dim[1] * row);
    if (to_space_) {
      const int64_t c = out.dim[3];
      copy->add(x.dim[1], row);
      copy->add(b, depth_first_ ? b * c : b);
      copy->add(x.dim[2], pixel);
      copy->add(b, depth_first_ ? c : 1);
      copy->add(c, depth_first_ ? 1 : b * b);
      return Status();
    }
    copy->add(out.dim[1], b * row);
    copy->add(out.dim[2], b * pixel);
    if (!depth_first_) copy->add(x.dim[3], 1);
    copy->add(b, row);
    copy->add(b, pixel);
    if (depth_first_) copy->add(x.dim[3], 1);
    return Status();
  }

 private:
  bool to_space_;
  bool depth_first_ = true;
  int64_t block_ = 1;
};

}  // namespace

std::unique_ptr<Op> make_transpose() { return std::make_unique<Transpose>(); }
std::unique_ptr<Op> make_slice() { return std::make_unique<Slice>(); }
std::unique_ptr<Op> make_expand() { return std::make_unique<Expand>(); }
std::unique_ptr<Op> make_tile() { return std::make_unique<Tile>(); }
std::unique_ptr<Op> make_depth_to_space() { return std::make_unique<Blocks>(true); }
std::unique_ptr<Op> make_space_to_depth() { return std::make_unique<Blocks>(false); }

}  // namespace netsuke
