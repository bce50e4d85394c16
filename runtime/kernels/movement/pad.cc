// pad: constant, reflect (without repeating the edge) and edge padding.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/movement/common.h"

namespace netsuke {
namespace {

using namespace movement;

constexpr int64_t kBytesPerTask = 64 << 10;

enum class Mode { kConstant, kReflect, kEdge };

// The index of x behind index i of the padded dimension; -1 for constant padding.
int64_t source_index(Mode mode, int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  if (mode == Mode::kConstant) return -1;
  if (mode == Mode::kEdge) return i < 0 ? 0 : size - 1;
  return i < 0 ? -i : 2 * (size - 1) - i;
}

void fill(uint8_t* to, int64_t bytes, const uint8_t* value, int64_t element) {
  const bool same = std::all_of(value, value + element, [&](uint8_t byte) { return byte == value[0]; });
  if (same) {
    std::memset(to, value[0], static_cast<size_t>(bytes));
    return;
  }
  for (int64_t i = 0; i < bytes; i += element) std::memcpy(to + i, value, static_cast<size_t>(element));
}

class Pad final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 3));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    std::string mode;
    NETSUKE_TRY(args.attrs.get_or("mode", "constant", &mode));
    if (mode != "constant" && mode != "reflect" && mode != "edge") {
      return error(Code::kCorruptFile, "attribute 'mode' is none of constant, reflect, edge");
    }
    mode_ = mode == "constant" ? Mode::kConstant : mode == "reflect" ? Mode::kReflect : Mode::kEdge;
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int) const override {
    const Shape& x = in[0].shape;
    std::vector<int64_t> pads, dims;
    NETSUKE_TRY(read_known(in[1], "pads", &pads));
    if (static_cast<int>(pads.size()) != 2 * x.rank) {
      return error(Code::kInvalidArgument, "%zu pads for a tensor of rank %d", pads.size(), x.rank);
    }
    for (int d = 0; d < x.rank; ++d) {
      const int64_t before = pads[static_cast<size_t>(d)], after = pads[static_cast<size_t>(d + x.rank)];
      if (before < 0 || after < 0) return error(Code::kInvalidArgument, "negative pads");
      const int64_t longest = mode_ == Mode::kReflect ? x.dim[d] - 1 : x.dim[d] == 0 && mode_ == Mode::kEdge ? 0 : INT64_MAX;
      if (std::max(before, after) > std::max<int64_t>(longest, 0)) {
        return error(Code::kInvalidArgument, "padding of dimension %d is longer than the dimension allows", d);
      }
      int64_t dim = 0;
      if (__builtin_add_overflow(before, after, &dim) || __builtin_add_overflow(dim, x.dim[d], &dim)) dim = -1;
      dims.push_back(dim);
    }
    if (given(in, n_in, 2) && (in[2].dtype != in[0].dtype || in[2].shape.elements() != 1)) {
      return error(Code::kInvalidArgument, "the value is not one element of the dtype of x");
    }
    return set_output(in[0].dtype, dims, &out[0]);
  }

  Status run(const RunArgs& args) const override {
    const Job job = plan(args);
    const int64_t rows = extent(job.out, 0, job.axis);
    const int64_t row_bytes = job.out.dim[job.axis] * job.block;
    const int64_t per_task = std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, row_bytes));
    args.pool.parallel_for((rows + per_task - 1) / per_task, [&](int64_t task, int) {
      const int64_t end = std::min(rows, (task + 1) * per_task);
      for (int64_t row = task * per_task; row < end; ++row) pad_row(job, row, job.to + row * row_bytes);
    });
    return Status();
  }

  const char* kernel_name() const override { return "movement_pad"; }

 private:
  // Dimensions behind the last padded one are joined into blocks of bytes; `axis` is that last padded dimension.
  struct Job {
    Shape in, out;
    int64_t before[kMaxRank];
    int axis;
    int64_t block, element;
    const uint8_t* from;
    uint8_t* to;
    uint8_t value[8];
  };

  Job plan(const RunArgs& args) const {
    Job job;
    job.in = args.in[0].shape;
    job.out = args.out[0].shape;
    job.element = static_cast<int64_t>(dtype_size(args.in[0].dtype));
    std::memset(job.value, 0, sizeof job.value);
    if (given(args.in, args.n_in, 2)) std::memcpy(job.value, args.in[2].data, static_cast<size_t>(job.element));
    if (job.in.rank == 0) {  // a scalar is a row of one block
      job.in.rank = job.out.rank = 1;
      job.in.dim[0] = job.out.dim[0] = 1;
      job.before[0] = 0;
    } else {
      std::copy_n(args.in[1].as<const int64_t>(), job.in.rank, job.before);
    }
    job.axis = job.in.rank - 1;
    job.block = job.element;
    for (; job.axis > 0 && job.in.dim[job.axis] == job.out.dim[job.axis]; --job.axis) job.block *= job.in.dim[job.axis];
    job.from = args.in[0].as<const uint8_t>();
    job.to = args.out[0].as<uint8_t>();
    return job;
  }

  void pad_row(const Job& job, int64_t row, uint8_t* to) const {
    int64_t source = 0, step = 1;
    for (int d = job.axis - 1; d >= 0; --d) {
      const int64_t at = source_index(mode_, row % job.out.dim[d] - job.before[d], job.in.dim[d]);
      row /= job.out.dim[d];
      if (at < 0) return fill(to, job.out.dim[job.axis] * job.block, job.value, job.element);
      source += at * step;
      step *= job.in.dim[d];
    }
    const int64_t size = job.in.dim[job.axis], width = job.out.dim[job.axis], before = job.before[job.axis];
    const uint8_t* from = job.from + source * size * job.block;
    if (size > 0) std::memcpy(to + before * job.block, from, static_cast<size_t>(size * job.block));
    pad_side(job, from, to, 0, before);
    pad_side(job, from, to, before + size, width);
  }

  void pad_side(const Job& job, const uint8_t* from, uint8_t* to, int64_t begin, int64_t end) const {
    if (mode_ == Mode::kConstant) return fill(to + begin * job.block, (end - begin) * job.block, job.value, job.element);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = source_index(mode_, i - job.before[job.axis], job.in.dim[job.axis]);
      std::memcpy(to + i * job.block, from + at * job.block, static_cast<size_t>(job.block));
    }
  }

  Mode mode_ = Mode::kConstant;
};

}  // namespace

std::unique_ptr<Op> make_pad() { return std::make_unique<Pad>(); }

}  // namespace netsuke
