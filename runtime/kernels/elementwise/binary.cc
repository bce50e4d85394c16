// The operator `binary`: a function of two broadcast tensors.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/scalar_math.h"
#include "kernels/base/shapes.h"
#include "kernels/elementwise/binary.h"
#include "kernels/elementwise/broadcast.h"
#include "kernels/elementwise/unary.h"

namespace netsuke {
namespace {

constexpr const char* kNames[] = {"add", "sub", "mul", "div", "min", "max", "equal", "less", "less_equal", "greater", "greater_equal",
                                  "pow", "mod", "and", "or", "xor"};
static_assert(sizeof(kNames) / sizeof(kNames[0]) == static_cast<size_t>(BinaryFn::count), "one name a function");

bool is_compare(BinaryFn fn) { return fn >= BinaryFn::equal && fn <= BinaryFn::greater_equal; }
bool is_logical(BinaryFn fn) { return fn >= BinaryFn::logical_and; }

// Integers wrap around; division truncates as in C, mod takes the sign of the divisor. A zero divisor and a negative exponent are
// errors, found before any row runs.
template <typename T>
T integer_pow(T a, T b) {
  using U = std::make_unsigned_t<T>;
  U result = 1, base = static_cast<U>(a);
  for (; b > 0; b >>= 1, base *= base) {
    if (b & 1) result *= base;
  }
  return static_cast<T>(result);
}

template <typename T>
T integer_of(BinaryFn fn, T a, T b) {
  using U = std::make_unsigned_t<T>;
  const bool overflows = b == -1;  // the smallest number / -1
  switch (fn) {
    case BinaryFn::add: return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    case BinaryFn::sub: return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
    case BinaryFn::mul: return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
    case BinaryFn::div: return overflows ? static_cast<T>(U{0} - static_cast<U>(a)) : a / b;
    case BinaryFn::mod: {
      if (overflows) return 0;
      const T r = a % b;
      return r != 0 && (r < 0) != (b < 0) ? r + b : r;
    }
    case BinaryFn::pow: return integer_pow(a, b);
    case BinaryFn::min: return a < b ? a : b;
    case BinaryFn::max: return a > b ? a : b;
    default: return 0;
  }
}

template <typename T>
uint8_t compare_of(BinaryFn fn, T a, T b) {
  switch (fn) {
    case BinaryFn::equal: return a == b;
    case BinaryFn::less: return a < b;
    case BinaryFn::less_equal: return a <= b;
    case BinaryFn::greater: return a > b;
    case BinaryFn::greater_equal: return a >= b;
    case BinaryFn::logical_and: return a && b;
    case BinaryFn::logical_or: return a || b;
    case BinaryFn::logical_xor: return !a != !b;
    default: return 0;
  }
}

class BinaryOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 2));
    std::string name, names;
    NETSUKE_TRY(args.attrs.get("fn", &name));
    NETSUKE_TRY(read_output_quant(args.attrs, &quant_));
    int found = -1;
    for (int i = 0; i < static_cast<int>(BinaryFn::count); ++i) {
      if (name == kNames[i]) found = i;
      names += (i ? " " : "") + std::string(kNames[i]);
    }
    if (found < 0) return error(Code::kUnsupported, "fn is %s, expected one of %s", name.c_str(), names.c_str());
    fn_ = static_cast<BinaryFn>(found);
    if (quant_.on && (is_compare(fn_) || is_logical(fn_))) return error(Code::kInvalidArgument, "fn %s gives bool, which cannot be quantized", name.c_str());
    kernels_ = &binary_kernels(args.isa);
    unary_ = &unary_kernels(args.isa);
    kernel_ = "binary_" + name + (quant_.on ? "_u8_" : "_") + isa_name(args.isa);
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    if (in[0].dtype != in[1].dtype) return error(Code::kInvalidArgument, "a has dtype %s, b %s", dtype_name(in[0].dtype), dtype_name(in[1].dtype));
    if (is_logical(fn_)) NETSUKE_TRY(expect_dtype(in[0], "a", {DType::kBool}));
    else if (quant_.on) NETSUKE_TRY(expect_dtype(in[0], "a", {DType::kF32}));
    else if (fn_ == BinaryFn::equal) NETSUKE_TRY(expect_dtype(in[0], "a", {DType::kF32, DType::kI64, DType::kI32, DType::kBool}));
    else NETSUKE_TRY(expect_dtype(in[0], "a", {DType::kF32, DType::kI64, DType::kI32}));
    NETSUKE_TRY(broadcast(in[0].shape, in[1].shape, &out[0].shape));
    out[0].dtype = is_compare(fn_) || is_logical(fn_) ? DType::kBool : (quant_.on ? DType::kU8 : in[0].dtype);
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const Shape shapes[2] = {args.in[0].shape, args.in[1].shape};
    if (args.in[0].dtype == DType::kI64) NETSUKE_TRY(check_integers<int64_t>(args.in[1]));
    if (args.in[0].dtype == DType::kI32) NETSUKE_TRY(check_integers<int32_t>(args.in[1]));
    const BroadcastRows rows(shapes, 2, args.out[0].shape);
    rows.run(args.pool, [&](const int64_t* at, int64_t to, int64_t n) {
      switch (args.in[0].dtype) {
        case DType::kF32: return quant_.on ? quantized(args, rows, at, to, n) : floats(args, rows, at, to, n);
        case DType::kI64: return integers<int64_t>(args, rows, at, to, n);
        case DType::kI32: return integers<int32_t>(args, rows, at, to, n);
        default: return logical<uint8_t>(args, rows, at, to, n);
      }
    });
    return Status();
  }

  const char* kernel_name() const override { return kernel_.c_str(); }
  bool in_place(int) const override { return !quant_.on && !is_compare(fn_) && !is_logical(fn_); }

 private:
  template <typename T>
  Status check_integers(const Tensor& b) const {
    if (fn_ != BinaryFn::div && fn_ != BinaryFn::mod && fn_ != BinaryFn::pow) return Status();
    const int64_t n = b.shape.elements();
    for (int64_t i = 0; i < n; ++i) {
      const T v = b.as<T>()[i];
      if (fn_ == BinaryFn::pow ? v < 0 : v == 0) return error(Code::kInvalidArgument, fn_ == BinaryFn::pow ? "integer power with a negative exponent" : "integer division by zero");
    }
    return Status();
  }
  void float_row(const float* a, const float* b, float* y, int64_t n, int step_a, int step_b) const {
    const int fn = static_cast<int>(fn_);
    if (fn < kArithmeticFns) return kernels_->arithmetic[fn](a, b, y, n, step_a, step_b);
    for (int64_t i = 0; i < n; ++i) {
      const float u = a[i * step_a], v = b[i * step_b];
      y[i] = fn_ == BinaryFn::mod ? std::fmod(u, v) : (v == 2.0f ? u * u : pow_f32(u, v));  // fmod is exact everywhere
    }
  }
  void floats(const RunArgs& args, const BroadcastRows& rows, const int64_t* at, int64_t to, int64_t n) const {
    const float *a = args.in[0].as<float>() + at[0], *b = args.in[1].as<float>() + at[1];
    if (!is_compare(fn_)) return float_row(a, b, args.out[0].as<float>() + to, n, rows.step[0], rows.step[1]);
    const int fn = static_cast<int>(fn_) - static_cast<int>(BinaryFn::equal);
    kernels_->compare[fn](a, b, args.out[0].as<uint8_t>() + to, n, rows.step[0], rows.step[1]);
  }
  void quantized(const RunArgs& args, const BroadcastRows& rows, const int64_t* at, int64_t to, int64_t n) const {
    float buffer[512];
    for (int64_t i = 0; i < n; i += 512) {
      const int64_t count = n - i < 512 ? n - i : 512;
      float_row(args.in[0].as<float>() + at[0] + i * rows.step[0], args.in[1].as<float>() + at[1] + i * rows.step[1], buffer, count, rows.step[0], rows.step[1]);
      unary_->quantize(buffer, args.out[0].as<uint8_t>() + to + i, count, quant_.scale, quant_.zero);
    }
  }
  template <typename T>
  void logical(const RunArgs& args, const BroadcastRows& rows, const int64_t* at, int64_t to, int64_t n) const {
    const T *a = args.in[0].as<T>() + at[0], *b = args.in[1].as<T>() + at[1];
    uint8_t* y = args.out[0].as<uint8_t>() + to;
    for (int64_t i = 0; i < n; ++i) y[i] = compare_of<T>(fn_, a[i * rows.step[0]], b[i * rows.step[1]]);
  }
  template <typename T>
  void integers(const RunArgs& args, const BroadcastRows& rows, const int64_t* at, int64_t to, int64_t n) const {
    if (is_compare(fn_)) return logical<T>(args, rows, at, to, n);
    const T *a = args.in[0].as<T>() + at[0], *b = args.in[1].as<T>() + at[1];
    T* y = args.out[0].as<T>() + to;
    for (int64_t i = 0; i < n; ++i) y[i] = integer_of<T>(fn_, a[i * rows.step[0]], b[i * rows.step[1]]);
  }

  BinaryFn fn_ = BinaryFn::add;
  OutputQuant quant_;
  const BinaryKernels* kernels_ = nullptr;
  const UnaryKernels* unary_ = nullptr;
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_binary() { return std::make_unique<BinaryOp>(); }

}  // namespace netsuke
