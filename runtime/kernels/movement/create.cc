// Operators that make tensors from shapes and numbers: shape, range, constant_of_shape.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/movement/common.h"

namespace netsuke {
namespace {

using namespace movement;

class ShapeOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 1, 1));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    NETSUKE_TRY(args.attrs.get_or("start", int64_t{0}, &start_));
    return args.attrs.get_or("end", INT64_MAX, &end_);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    int begin = 0, end = 0;
    range(in[0].shape.rank, &begin, &end);
    return set_output(DType::kI64, {std::max(0, end - begin)}, &out[0]);
  }

  Status run(const RunArgs& args) const override {
    int begin = 0, end = 0;
    range(args.in[0].shape.rank, &begin, &end);
    for (int d = begin; d < end; ++d) args.out[0].as<int64_t>()[d - begin] = args.in[0].shape.dim[d];
    return Status();
  }

  const char* kernel_name() const override { return "movement_shape"; }

 private:
  void range(int rank, int* begin, int* end) const {
    const auto place = [&](int64_t at) {
      return static_cast<int>(std::min<int64_t>(std::max<int64_t>(at < 0 ? at + rank : at, 0), rank));
    };
    *begin = place(start_);
    *end = place(end_);
  }

  int64_t start_ = 0, end_ = 0;
};

class Range final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 3, 3));
    return check_outputs(args, 1, 1);
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    int64_t numbers[3];
    static const char* const names[] = {"start", "limit", "delta"};
    for (int i = 0; i < 3; ++i) {
      std::vector<int64_t> known;
      NETSUKE_TRY(read_known(in[i], names[i], &known));
      if (known.size() != 1) return error(Code::kInvalidArgument, "%s is not one number", names[i]);
      numbers[i] = known[0];
    }
    const __int128 span = static_cast<__int128>(numbers[1]) - numbers[0], delta = numbers[2];
    if (delta == 0) return error(Code::kInvalidArgument, "a delta of 0");
    const __int128 length = delta > 0 ? span : -span, step = delta > 0 ? delta : -delta;
    const __int128 count = length <= 0 ? 0 : (length - 1) / step + 1;
    if (count > (__int128{1} << 31)) return error(Code::kInvalidArgument, "a range of more than 2^31 numbers");
    return set_output(DType::kI64, {static_cast<int64_t>(count)}, &out[0]);
  }

  Status run(const RunArgs& args) const override {
    const int64_t start = args.in[0].as<const int64_t>()[0], delta = args.in[2].as<const int64_t>()[0];
    for (int64_t i = 0; i < args.out[0].shape.elements(); ++i) args.out[0].as<int64_t>()[i] = start + i * delta;
    return Status();
  }

  const char* kernel_name() const override { return "movement_range"; }
};

class ConstantOfShape final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(check_inputs(args, 1, 1));
    NETSUKE_TRY(check_outputs(args, 1, 1));
    float value = 0;
    std::string dtype;
    NETSUKE_TRY(args.attrs.get("value", &value));
    NETSUKE_TRY(args.attrs.get("dtype", &dtype));
    if (dtype == "f32") return set(DType::kF32, &value);
    if (dtype == "bool") {
      const uint8_t flag = value != 0 ? 1 : 0;
      return set(DType::kBool, &flag);
    }
    if (dtype == "u8") return integer<uint8_t>(DType::kU8, value, 0.0f, 255.0f);
    if (dtype == "s8") return integer<int8_t>(DType::kS8, value, -128.0f, 127.0f);
    // The largest f32 below 2^31 and 2^63.
    if (dtype == "i32") return integer<int32_t>(DType::kI32, value, -2147483648.0f, 2147483520.0f);
    if (dtype == "i64") return integer<int64_t>(DType::kI64, value, -9223372036854775808.0f, 9223371487098961920.0f);
    return error(Code::kCorruptFile, "attribute 'dtype' is none of f32 u8 s8 i32 i64 bool");
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    std::vector<int64_t> dims;
    NETSUKE_TRY(read_known(in[0], "shape", &dims));
    return set_output(dtype_, dims, &out[0]);
  }

  Status run(const RunArgs& args) const override {
    const size_t element = dtype_size(dtype_);
    const auto bytes = static_cast<size_t>(args.out[0].shape.elements()) * element;
    for (size_t at = 0; at < bytes; at += element) std::memcpy(args.out[0].as<uint8_t>() + at, value_, element);
    return Status();
  }

  const char* kernel_name() const override { return "movement_fill"; }

 private:
  template <typename T>
  Status set(DType dtype, const T* value) {
    dtype_ = dtype;
    std::memcpy(value_, value, sizeof(T));
    return Status();
  }

  template <typename T>
  Status integer(DType dtype, float value, float low, float high) {
    if (!(std::trunc(value) >= low && std::trunc(value) <= high)) {
      return error(Code::kCorruptFile, "attribute 'value' does not fit %s", dtype_name(dtype));
    }
    const T whole = static_cast<T>(value);
    return set(dtype, &whole);
  }

  DType dtype_ = DType::kF32;
  uint8_t value_[8] = {};
};

}  // namespace

std::unique_ptr<Op> make_shape_op() { return std::make_unique<ShapeOp>(); }
std::unique_ptr<Op> make_range() { return std::make_unique<Range>(); }
std::unique_ptr<Op> make_constant_of_shape() { return std::make_unique<ConstantOfShape>(); }

}  // namespace netsuke
