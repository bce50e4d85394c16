// where (choose by a mask), prelu (a slope per channel) and cast.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/base/shapes.h"
#include "kernels/elementwise/broadcast.h"

namespace netsuke {
namespace {

class WhereOp final : public Op {
 public:
  Status build(const BuildArgs& args) override { return expect_inputs(static_cast<int>(args.inputs.size()), 3, 3); }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "c", {DType::kBool}));
    if (in[1].dtype != in[2].dtype) return error(Code::kInvalidArgument, "a has dtype %s, b %s", dtype_name(in[1].dtype), dtype_name(in[2].dtype));
    Shape shape;
    NETSUKE_TRY(broadcast(in[0].shape, in[1].shape, &shape));
    NETSUKE_TRY(broadcast(shape, in[2].shape, &out[0].shape));
    out[0].dtype = in[1].dtype;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Shape shapes[3] = {args.in[0].shape, args.in[1].shape, args.in[2].shape};
    const BroadcastRows rows(shapes, 3, args.out[0].shape);
    rows.run(args.pool, [&](const int64_t* at, int64_t to, int64_t n) {
      switch (dtype_size(args.out[0].dtype)) {
        case 1: return row<uint8_t>(args, rows, at, to, n);
        case 2: return row<uint16_t>(args, rows, at, to, n);
        case 4: return row<uint32_t>(args, rows, at, to, n);
        default: return row<uint64_t>(args, rows, at, to, n);
      }
    });
    return Status();
  }
  const char* kernel_name() const override { return "where_portable"; }

 private:
  template <typename T>
  static void row(const RunArgs& args, const BroadcastRows& rows, const int64_t* at, int64_t to, int64_t n) {
    const uint8_t* c = args.in[0].as<uint8_t>() + at[0];
    const T *a = args.in[1].as<T>() + at[1], *b = args.in[2].as<T>() + at[2];
    T* y = args.out[0].as<T>() + to;
    for (int64_t i = 0; i < n; ++i) y[i] = c[i * rows.step[0]] ? a[i * rows.step[1]] : b[i * rows.step[2]];
  }
};

template <int kStepX, int kStepSlope>
inline void prelu_row(const float* x, const float* slope, float* y, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i * kStepX], scaled = v * slope[i * kStepSlope];
    y[i] = v < 0.0f ? scaled : v;
  }
}

class PreluOp final : public Op {
 public:
  Status build(const BuildArgs& args) override { return expect_inputs(static_cast<int>(args.inputs.size()), 2, 2); }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    NETSUKE_TRY(expect_dtype(in[1], "slope", {DType::kF32}));
    const Shape &x = in[0].shape, &slope = in[1].shape;
    const int64_t channels = x.rank > 0 ? x.dim[x.rank - 1] : 1;
    if (slope.rank > 1 || (slope.elements() != 1 && slope.elements() != channels)) {
      return error(Code::kInvalidArgument, "slope has shape %s, expected [1] or [%lld] for x %s", shape_text(slope).c_str(), static_cast<long long>(channels), shape_text(x).c_str());
    }
    out[0].dtype = DType::kF32;
    out[0].shape = x;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Shape shapes[2] = {args.in[0].shape, args.in[1].shape};
    const BroadcastRows rows(shapes, 2, args.out[0].shape);
    rows.run(args.pool, [&](const int64_t* at, int64_t to, int64_t n) {
      const float *x = args.in[0].as<float>() + at[0], *slope = args.in[1].as<float>() + at[1];
      float* y = args.out[0].as<float>() + to;
      // Steps of 1 as constants make vectors of it, as a channel's slope in channels-last has them; y may be x itself, element by element.
      if (rows.step[0] == 1 && rows.step[1] == 1) return prelu_row<1, 1>(x, slope, y, n);
      if (rows.step[0] == 1) return prelu_row<1, 0>(x, slope, y, n);
      for (int64_t i = 0; i < n; ++i) prelu_row<0, 0>(x + i * rows.step[0], slope + i * rows.step[1], y + i, 1);
    });
    return Status();
  }
  const char* kernel_name() const override { return "prelu_portable"; }
  bool in_place(int i) const override { return i == 0; }
};

// Float to integer truncates and saturates, NaN gives 0; an integer to a narrower one wraps; bool is x != 0.
template <typename To>
To to_integer(float v) {
  if (v != v) return 0;
  constexpr To kLow = std::numeric_limits<To>::min(), kHigh = std::numeric_limits<To>::max();
  if (v < static_cast<float>(kLow)) return kLow;
  if (v >= static_cast<float>(kHigh)) return kHigh;  // 2^31 - 1 and 2^63 - 1 round up to a power of two as floats
  return static_cast<To>(v);
}

template <typename From, typename To>
void cast_row(const void* x, void* y, int64_t n) {
  const From* from = static_cast<const From*>(x);
  To* to = static_cast<To*>(y);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<From, float> && std::is_integral_v<To>) to[i] = to_integer<To>(from[i]);
    else to[i] = static_cast<To>(from[i]);
  }
}
template <typename From>
void to_bool_row(const void* x, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint8_t*>(y)[i] = static_cast<const From*>(x)[i] != 0;
}

using CastRow = void (*)(const void* x, void* y, int64_t n);

template <typename From>
CastRow cast_to(DType to) {
  switch (to) {
    case DType::kF32: return cast_row<From, float>;
    case DType::kU8: return cast_row<From, uint8_t>;
    case DType::kS8: return cast_row<From, int8_t>;
    case DType::kI32: return cast_row<From, int32_t>;
    case DType::kI64: return cast_row<From, int64_t>;
    case DType::kBool: return to_bool_row<From>;
    default: return nullptr;
  }
}

CastRow cast_of(DType from, DType to) {
  switch (from) {
    case DType::kF32: return cast_to<float>(to);
    case DType::kU8: return cast_to<uint8_t>(to);
    case DType::kS8: return cast_to<int8_t>(to);
    case DType::kI32: return cast_to<int32_t>(to);
    case DType::kI64: return cast_to<int64_t>(to);
    case DType::kBool: return to == DType::kBool ? to_bool_row<uint8_t> : cast_to<uint8_t>(to);
    default: return nullptr;
  }
}

class CastOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 1, 1));
    std::string to;
    NETSUKE_TRY(args.attrs.get("to", &to));
    for (DType dtype : {DType::kF32, DType::kU8, DType::kS8, DType::kI32, DType::kI64, DType::kBool}) {
      if (to != dtype_name(dtype)) continue;
      to_ = dtype;
      return Status();
    }
    return error(Code::kUnsupported, "to is %s, expected f32, u8, s8, i32, i64 or bool", to.c_str());
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32, DType::kU8, DType::kS8, DType::kI32, DType::kI64, DType::kBool}));
    out[0].dtype = to_;
    out[0].shape = in[0].shape;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Tensor &x = args.in[0], &y = args.out[0];
    const CastRow row = cast_of(x.dtype, to_);
    constexpr int64_t kChunk = 16384;
    const int64_t n = x.shape.elements(), in_size = static_cast<int64_t>(dtype_size(x.dtype)), out_size = static_cast<int64_t>(dtype_size(to_));
    args.pool.parallel_for((n + kChunk - 1) / kChunk, [&](int64_t task, int) {
      const int64_t begin = task * kChunk, count = n - begin < kChunk ? n - begin : kChunk;
      row(x.as<uint8_t>() + begin * in_size, y.as<uint8_t>() + begin * out_size, count);
    });
    return Status();
  }
  const char* kernel_name() const override { return "cast_portable"; }

 private:
  DType to_ = DType::kF32;
};

}  // namespace

std::unique_ptr<Op> make_where() { return std::make_unique<WhereOp>(); }
std::unique_ptr<Op> make_prelu() { return std::make_unique<PreluOp>(); }
std::unique_ptr<Op> make_cast() { return std::make_unique<CastOp>(); }

}  // namespace netsuke
