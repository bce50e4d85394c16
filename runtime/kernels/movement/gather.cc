// gather: y[..., i, ...] = x[..., indices[i], ...] along one axis. Indices are data, so they are checked in every run.
#include <algorithm>
#include <cstring>

#include "kernels/movement/common.h"

namespace netsuke {
namespace {

using namespace movement;

constexpr int64_t kBytesPerTask = 64 << 10;

class Gather final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 2));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    return args.attrs.get_or("axis", int64_t{0}, &axis_);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    int axis = 0;
    NETSUKE_TRY(resolve_axis(axis_, in[0].shape.rank, &axis));
    if (in[1].dtype != DType::kI64) return error(Code::kInvalidArgument, "indices have dtype %s, expected i64", dtype_name(in[1].dtype));
    std::vector<int64_t> dims(in[0].shape.dim, in[0].shape.dim + axis);
    dims.insert(dims.end(), in[1].shape.dim, in[1].shape.dim + in[1].shape.rank);
    dims.insert(dims.end(), in[0].shape.dim + axis + 1, in[0].shape.dim + in[0].shape.rank);
    return set_output(in[0].dtype, dims, &out[0]);
  }

  Status run(const RunArgs& args) const override {
    const Shape& x = args.in[0].shape;
    int axis = 0;
    NETSUKE_TRY(resolve_axis(axis_, x.rank, &axis));
    const auto* indices = args.in[1].as<const int64_t>();
    const int64_t count = args.in[1].shape.elements(), size = x.dim[axis];
    for (int64_t i = 0; i < count; ++i) {
      if (indices[i] < -size || indices[i] >= size) {
        return error(Code::kInvalidArgument, "index %lld is outside of a dimension of %lld", static_cast<long long>(indices[i]),
                     static_cast<long long>(size));
      }
    }
    const int64_t row = extent(x, axis + 1, x.rank) * static_cast<int64_t>(dtype_size(args.in[0].dtype));
    const int64_t total = extent(x, 0, axis) * count;
    const auto* from = args.in[0].as<const uint8_t>();
    auto* to = args.out[0].as<uint8_t>();
    const int64_t per_task = std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, row));
    args.pool.parallel_for((total + per_task - 1) / per_task, [&](int64_t task, int) {
      const int64_t end = std::min(total, (task + 1) * per_task);
      for (int64_t i = task * per_task; i < end; ++i) {
        const int64_t index = indices[i % count];
        const int64_t source = i / count * size + (index < 0 ? index + size : index);
        std::memcpy(to + i * row, from + source * row, static_cast<size_t>(row));
      }
    });
    return Status();
  }

  const char* kernel_name() const override { return "movement_gather"; }

  Cost cost(const Tensor* in, int, const Tensor* out, int) const override {
    Cost cost;  // only the gathered rows are read, not the whole table
    cost.bytes_written = out[0].shape.elements() * static_cast<int64_t>(dtype_size(out[0].dtype));
    cost.bytes_read = cost.bytes_written + in[1].shape.elements() * 8;
    return cost;
  }

 private:
  int64_t axis_ = 0;
};

}  // namespace

std::unique_ptr<Op> make_gather() { return std::make_unique<Gather>(); }

}  // namespace netsuke
