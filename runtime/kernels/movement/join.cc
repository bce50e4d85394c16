// concat and split: runs of whole inner blocks, gathered or scattered along one axis.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/movement/common.h"

namespace netsuke {
namespace {

using namespace movement;

constexpr int64_t kBytesPerTask = 64 << 10;

// Rows of `joined` bytes on one side are the parts' rows one after the other on the other side.
struct Part {
  uint8_t* data;
  int64_t row;     // bytes of a row
  int64_t offset;  // of the row inside the joined row
};

void move_rows(uint8_t* joined, int64_t joined_row, const std::vector<Part>& parts, int64_t rows, bool join, ThreadPool& pool) {
  const int64_t per_task = std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, joined_row));
  const int64_t groups = (rows + per_task - 1) / per_task;
  // With few long rows (concat along the first axis) the parts are the tasks, with many short ones the rows are.
  const bool by_part = groups < pool.threads();
  const auto n = static_cast<int64_t>(parts.size());
  pool.parallel_for(by_part ? n : groups, [&](int64_t task, int) {
    const int64_t begin = by_part ? 0 : task * per_task, end = by_part ? rows : std::min(rows, begin + per_task);
    const int64_t first = by_part ? task : 0, last = by_part ? task + 1 : n;
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t p = first; p < last; ++p) {
        const Part& part = parts[static_cast<size_t>(p)];
        uint8_t* whole = joined + row * joined_row + part.offset;
        uint8_t* piece = part.data + row * part.row;
        std::memcpy(join ? whole : piece, join ? piece : whole, static_cast<size_t>(part.row));
      }
    }
  });
}

class Concat final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, args.inputs.size(), args.inputs.size()));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    return args.attrs.get("axis", &axis_);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int) const override {
    int axis = 0;
    NETSUKE_TRY(resolve_axis(axis_, in[0].shape.rank, &axis));
    Shape joined = in[0].shape;
    for (int i = 1; i < n_in; ++i) {
      if (in[i].dtype != in[0].dtype) return error(Code::kInvalidArgument, "inputs of different dtypes");
      bool fits = in[i].shape.rank == joined.rank;
      for (int d = 0; fits && d < joined.rank; ++d) fits = d == axis || in[i].shape.dim[d] == joined.dim[d];
      if (!fits || __builtin_add_overflow(joined.dim[axis], in[i].shape.dim[axis], &joined.dim[axis])) {
        return error(Code::kInvalidArgument, "input %d differs from the first outside of axis %d", i, axis);
      }
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = joined;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Shape& shape = args.out[0].shape;
    int axis = 0;
    NETSUKE_TRY(resolve_axis(axis_, shape.rank, &axis));
    const auto element = static_cast<int64_t>(dtype_size(args.out[0].dtype));
    std::vector<Part> parts;
    int64_t offset = 0;
    for (int i = 0; i < args.n_in; ++i) {
      const int64_t row = extent(args.in[i].shape, axis, shape.rank) * element;
      if (row > 0) parts.push_back({args.in[i].as<uint8_t>(), row, offset});
      offset += row;
    }
    move_rows(args.out[0].as<uint8_t>(), offset, parts, extent(shape, 0, axis), true, args.pool);
    return Status();
  }

  const char* kernel_name() const override { return "movement_concat"; }

 private:
  int64_t axis_ = 0;
};

class Split final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 1, 2));
    return args.attrs.get("axis", &axis_);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    int axis = 0;
    NETSUKE_TRY(resolve_axis(axis_, in[0].shape.rank, &axis));
    const int64_t size = in[0].shape.dim[axis];
    std::vector<int64_t> sizes;
    if (given(in, n_in, 1)) {
      NETSUKE_TRY(read_known(in[1], "sizes", &sizes));
    } else {  // equal parts, the last one smaller when they do not divide
      const int64_t part = size / n_out + (size % n_out != 0 ? 1 : 0);
      sizes.assign(static_cast<size_t>(n_out), part);
      sizes.back() = size - part * (n_out - 1);
    }
    if (static_cast<int>(sizes.size()) != n_out) return error(Code::kInvalidArgument, "%zu sizes for %d outputs", sizes.size(), n_out);
    int64_t left = size;
    for (int i = 0; i < n_out; ++i) {
      const int64_t part = sizes[static_cast<size_t>(i)];
      if (part < 0 || part > left) return error(Code::kInvalidArgument, "sizes do not add up to %lld", static_cast<long long>(size));
      left -= part;
      out[i].dtype = in[0].dtype;
      out[i].shape = in[0].shape;
      out[i].shape.dim[axis] = part;
    }
    if (left != 0) return error(Code::kInvalidArgument, "sizes do not add up to %lld", static_cast<long long>(size));
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Shape& shape = args.in[0].shape;
    int axis = 0;
    NETSUKE_TRY(resolve_axis(axis_, shape.rank, &axis));
    const auto element = static_cast<int64_t>(dtype_size(args.in[0].dtype));
    std::vector<Part> parts;
    int64_t offset = 0;
    for (int i = 0; i < args.n_out; ++i) {
      const int64_t row = extent(args.out[i].shape, axis, shape.rank) * element;
      if (row > 0) parts.push_back({args.out[i].as<uint8_t>(), row, offset});
      offset += row;
    }
    move_rows(args.in[0].as<uint8_t>(), offset, parts, extent(shape, 0, axis), false, args.pool);
    return Status();
  }

  const char* kernel_name() const override { return "movement_split"; }

 private:
  int64_t axis_ = 0;
};

}  // namespace

std::unique_ptr<Op> make_concat() { return std::make_unique<Concat>(); }
std::unique_ptr<Op> make_split() { return std::make_unique<Split>(); }

}  // namespace netsuke
