// Operators that only rename dimensions: reshape, squeeze, unsqueeze, identity. The executor aliases; nothing is copied.
#include <vector>

#include "base/arena.h"
#include "kernels/movement/common.h"

namespace netsuke {
namespace {

using namespace movement;

class View : public Op {
 public:
  Status run(const RunArgs&) const override { return error(Code::kInternal, "a view was run"); }
  const char* kernel_name() const override { return "movement_view"; }
  bool is_view() const override { return true; }
};

class Reshape final : public View {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 2));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    NETSUKE_TRY(args.attrs.get_or("allowzero", int64_t{0}, &allow_zero_));
    if (allow_zero_ != 0 && allow_zero_ != 1) return error(Code::kCorruptFile, "attribute 'allowzero' is neither 0 nor 1");
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    std::vector<int64_t> dims;
    NETSUKE_TRY(read_known(in[1], "shape", &dims));
    if (dims.size() > kMaxRank) return error(Code::kInvalidArgument, "a shape of rank %zu; at most 8 is possible", dims.size());
    int wild = -1;
    int64_t rest = 1;
    for (size_t d = 0; d < dims.size(); ++d) {
      if (dims[d] == 0 && allow_zero_ == 0) {
        if (static_cast<int>(d) >= in[0].shape.rank) return error(Code::kInvalidArgument, "a 0 copies a dimension that x does not have");
        dims[d] = in[0].shape.dim[d];
      }
      if (dims[d] < -1 || (dims[d] == -1 && wild >= 0)) return error(Code::kInvalidArgument, "not a shape");
      if (dims[d] == -1) {
        wild = static_cast<int>(d);
      } else if (!checked_mul(rest, dims[d], &rest)) {
        return error(Code::kInvalidArgument, "the shape overflows");
      }
    }
    const int64_t elements = in[0].shape.elements();
    if (wild >= 0) {
      if (rest == 0 || elements % rest != 0) return error(Code::kInvalidArgument, "-1 cannot be inferred");
      dims[static_cast<size_t>(wild)] = elements / rest;
      rest = elements;
    }
    if (rest != elements) {
      return error(Code::kInvalidArgument, "%lld elements reshaped to %lld", static_cast<long long>(elements),
                   static_cast<long long>(rest));
    }
    return set_output(in[0].dtype, dims, &out[0]);
  }

 private:
  int64_t allow_zero_ = 0;
};

class Squeeze final : public View {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 2));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    std::vector<int64_t> axes, dims;
    NETSUKE_TRY(read_known(in[1], "axes", &axes));
    bool gone[kMaxRank] = {};
    for (int64_t given_axis : axes) {
      int axis = 0;
      NETSUKE_TRY(resolve_axis(given_axis, in[0].shape.rank, &axis));
      if (in[0].shape.dim[axis] != 1) {
        return error(Code::kInvalidArgument, "squeezed dimension %d is %lld, not 1", axis, static_cast<long long>(in[0].shape.dim[axis]));
      }
      gone[axis] = true;
    }
    for (int d = 0; d < in[0].shape.rank; ++d) {
      if (!gone[d]) dims.push_back(in[0].shape.dim[d]);
    }
    return set_output(in[0].dtype, dims, &out[0]);
  }
};

class Unsqueeze final : public View {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 2, 2));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    std::vector<int64_t> axes;
    NETSUKE_TRY(read_known(in[1], "axes", &axes));
    if (axes.size() + static_cast<size_t>(in[0].shape.rank) > kMaxRank) return error(Code::kInvalidArgument, "a result of rank above 8");
    const int rank = in[0].shape.rank + static_cast<int>(axes.size());
    bool added[kMaxRank] = {};
    for (int64_t given_axis : axes) {
      int axis = 0;
      NETSUKE_TRY(resolve_axis(given_axis, rank, &axis));
      if (added[axis]) return error(Code::kInvalidArgument, "axis %d occurs twice", axis);
      added[axis] = true;
    }
    std::vector<int64_t> dims;
    int from = 0;
    for (int d = 0; d < rank; ++d) dims.push_back(added[d] ? 1 : in[0].shape.dim[from++]);
    return set_output(in[0].dtype, dims, &out[0]);
  }
};

class Identity final : public View {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 1, 1));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return Status();
  }
};

}  // namespace

std::unique_ptr<Op> make_reshape() { return std::make_unique<Reshape>(); }
std::unique_ptr<Op> make_squeeze() { return std::make_unique<Squeeze>(); }
std::unique_ptr<Op> make_unsqueeze() { return std::make_unique<Unsqueeze>(); }
std::unique_ptr<Op> make_identity() { return std::make_unique<Identity>(); }

}  // namespace netsuke
