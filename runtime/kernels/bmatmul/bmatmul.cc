// bmatmul (docs/format.md section 2): rows of a against rows of packed b, or numbers of b added and subtracted by the bits of a.
#include "kernels/bmatmul/bmatmul.h"

#include <algorithm>
#include <cmath>

#include "base/arena.h"
#include "kernels/base/codes.h"

namespace netsuke {
namespace {

class BMatmul final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 2));
    std::string levels, out;
    int64_t threshold = 0, relative = 0;
    NETSUKE_TRY(args.attrs.get_or("columns", int64_t{0}, &columns_));
    NETSUKE_TRY(args.attrs.get("channels", &channels_));
    NETSUKE_TRY(args.attrs.get_or("levels", "sign", &levels));
    NETSUKE_TRY(args.attrs.get_or("out", "f32", &out));
    NETSUKE_TRY(args.attrs.get_or("mult", 1.0f, &mult_));
    NETSUKE_TRY(args.attrs.get_or("threshold", int64_t{0}, &threshold));
    NETSUKE_TRY(args.attrs.get_or("relative", int64_t{0}, &relative));
    if (channels_ < 1 || channels_ > (int64_t{1} << 24)) {
      return error(Code::kInvalidArgument, "bmatmul: channels is %lld, expected 1 to 2^24", static_cast<long long>(channels_));
    }
    if ((levels != "sign" && levels != "bool") || (out != "f32" && out != "bits") || relative < 0 || relative > 1) {
      return error(Code::kInvalidArgument, "bmatmul: levels is sign or bool, out f32 or bits, relative 0 or 1");
    }
    if ((out == "bits") != (columns_ > 0)) return error(Code::kInvalidArgument, "bmatmul: columns belongs to out bits, at least 1");
    if (!std::isfinite(mult_) || threshold != static_cast<int32_t>(threshold)) {
      return error(Code::kInvalidArgument, "bmatmul: mult must be finite, threshold within int32");
    }
    zero_one_ = levels == "bool";
    bits_ = out == "bits";
    relative_ = relative == 1;
    threshold_ = threshold;
    kernels_ = &bmatmul_kernels(args.isa);
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(expect_dtype(in[0], "a", {DType::kI64}));
    NETSUKE_TRY(expect_dtype(in[1], "b", {DType::kI64, DType::kF32}));
    const Shape &a = in[0].shape, &b = in[1].shape;
    const bool packed = in[1].dtype == DType::kI64;
    bool fits = n_in == 2 && n_out == 1 && a.rank >= 2 && a.rank == b.rank && a.dim[a.rank - 1] == words();
    for (int i = 0; fits && i + 2 < a.rank; ++i) fits = a.dim[i] == b.dim[i];
    fits = fits && (packed ? b.dim[b.rank - 1] == words() : b.dim[b.rank - 2] == channels_ && !bits_);
    const int64_t n = fits ? b.dim[b.rank - (packed ? 2 : 1)] : 0;
    fits = fits && (!bits_ || n == columns_);
    if (!fits) {
      return error(Code::kInvalidArgument, "bmatmul: a %s and %s b %s do not multiply over %lld channels to %s", shape_text(a).c_str(),
                   packed ? "packed" : "f32", shape_text(b).c_str(), static_cast<long long>(channels_), bits_ ? "bits" : "f32");
    }
    out[0].dtype = bits_ ? DType::kI64 : DType::kF32;
    out[0].shape = a;
    out[0].shape.dim[a.rank - 1] = bits_ ? (n + 63) / 64 : n;
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor*, int, int threads) const override {
    return in[1].dtype == DType::kI64 ? row_bytes(in[1].shape) * static_cast<size_t>(threads) : 0;
  }

  Status run(const RunArgs& args) const override {
    const Shape &a = args.in[0].shape, &b = args.in[1].shape;
    const bool packed = args.in[1].dtype == DType::kI64;
    const int64_t m = a.dim[a.rank - 2], n = b.dim[b.rank - (packed ? 2 : 1)], rows = product(a, 0, a.rank - 1);
    if (rows == 0 || n == 0) return Status();
    const int64_t matrix = packed ? n * words() : channels_ * n, wide = bits_ ? (n + 63) / 64 : n;
    // A task of rows takes about as long as 16,384 elementwise operations.
    const int64_t work = std::max<int64_t>(1, packed ? n * words() : channels_ * n / 8), chunk = std::max<int64_t>(1, kElementsPerTask / work);
    args.pool.parallel_for((rows + chunk - 1) / chunk, [&](int64_t task, int thread) {
      int32_t* acc = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(args.scratch) + (packed ? row_bytes(b) * static_cast<size_t>(thread) : 0));
      for (int64_t row = task * chunk; row < std::min(rows, (task + 1) * chunk); ++row) {
        const uint64_t* left = args.in[0].as<const uint64_t>() + row * words();
        const int64_t at = row / m * matrix;
        if (packed) {
          kernels_->counts(left, args.in[1].as<const uint64_t>() + at, n, words(), channels_, zero_one_, acc);
          bits_ ? pack(acc, n, args.out[0].as<uint64_t>() + row * wide) : scale(acc, n, args.out[0].as<float>() + row * wide);
        } else {
          float* y = args.out[0].as<float>() + row * n;
          kernels_->sums(left, args.in[1].as<const float>() + at, channels_, n, zero_one_, y);
          for (int64_t j = 0; mult_ != 1.0f && j < n; ++j) y[j] *= mult_;
        }
      }
    });
    return Status();
  }

  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override {
    Cost cost = Op::cost(in, n_in, out, n_out);
    const Shape& b = in[1].shape;
    cost.macs = product(in[0].shape, 0, in[0].shape.rank - 1) * b.dim[b.rank - (in[1].dtype == DType::kI64 ? 2 : 1)] * channels_;
    return cost;
  }
  const char* kernel_name() const override { return kernels_->name; }

 private:
  int64_t words() const { return (channels_ + 63) / 64; }
  size_t row_bytes(const Shape& b) const { return align_up(static_cast<size_t>(b.dim[b.rank - 2]) * sizeof(int32_t)); }
  void scale(const int32_t* acc, int64_t n, float* y) const {
    for (int64_t j = 0; j < n; ++j) y[j] = static_cast<float>(acc[j]) * mult_;
  }
  void pack(const int32_t* acc, int64_t n, uint64_t* y) const {
    const int64_t limit = threshold_ + (relative_ ? *std::max_element(acc, acc + n) : 0);
    for (int64_t j = 0; j < n; j += 64) {
      uint64_t word = 0;
      for (int64_t i = j; i < std::min(n, j + 64); ++i) word |= static_cast<uint64_t>(acc[i] >= limit) << (i - j);
      *y++ = word;
    }
  }

  int64_t channels_ = 0, columns_ = 0, threshold_ = 0;
  float mult_ = 1;
  bool zero_one_ = false, bits_ = false, relative_ = false;
  const BMatmulKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_bmatmul() { return std::make_unique<BMatmul>(); }

}  // namespace netsuke
