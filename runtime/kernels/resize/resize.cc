// resize of NHWC images: coordinates in double, weights rounded to float once (docs/numerics.md section 6).
#include "kernels/resize/resize.h"

#include <cmath>
#include <cstring>

#include "base/arena.h"
#include "kernels/base/shapes.h"

namespace netsuke {
namespace {

constexpr int64_t kTask = 16384;  // output elements of one task, about
constexpr double kLargest = 1 << 24;

// Where one output index reads: positions lower and upper, and the weight of the upper one.
struct Tap {
  int64_t lower, upper;
  float weight;
};

enum class Coord { half_pixel, align_corners, asymmetric, pytorch_half_pixel };
enum class Nearest { floor, ceil, round_prefer_floor, round_prefer_ceil };

template <typename E>
Status read_word(const Attrs& attrs, const char* key, const char* fallback, std::initializer_list<const char*> words, E* out) {
  std::string word, all;
  NETSUKE_TRY(attrs.get_or(key, fallback, &word));
  int i = 0;
  for (const char* w : words) {
    if (word == w) {
      *out = static_cast<E>(i);
      return Status();
    }
    all += (i++ ? " " : "") + std::string(w);
  }
  return error(Code::kUnsupported, "%s is %s, expected one of %s", key, word.c_str(), all.c_str());
}

class ResizeOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 2, 3));
    NETSUKE_TRY(read_word(args.attrs, "mode", "nearest", {"nearest", "linear"}, &linear_));
    NETSUKE_TRY(read_word(args.attrs, "coord", "half_pixel", {"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"}, &coord_));
    NETSUKE_TRY(read_word(args.attrs, "nearest", "round_prefer_floor", {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}, &nearest_));
    kernels_ = &resize_kernels(args.isa);
    kernel_ = std::string(linear_ ? "resize_linear_" : "resize_nearest_") + kernels_->name;
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32, DType::kU8}));
    const Shape& x = in[0].shape;
    if (x.rank != 4 || x.dim[1] < 1 || x.dim[2] < 1) return error(Code::kInvalidArgument, "x has shape %s, expected [N, H, W, C] with at least one position", shape_text(x).c_str());
    const bool sizes = in[1].present, scales = n_in > 2 && in[2].present;
    if (sizes == scales) return error(Code::kInvalidArgument, "exactly one of sizes and scales must be given");
    const Tensor& given = in[sizes ? 1 : 2];
    NETSUKE_TRY(expect_dtype(given, sizes ? "sizes" : "scales", {sizes ? DType::kI64 : DType::kF32}));
    if (given.data == nullptr || given.shape.elements() != 2) return error(Code::kInvalidArgument, "sizes or scales must be two known numbers");
    int64_t size[2];
    for (int axis = 0; axis < 2; ++axis) {
      const double wanted = sizes ? static_cast<double>(given.as<int64_t>()[axis]) : std::floor(static_cast<double>(x.dim[1 + axis]) * static_cast<double>(given.as<float>()[axis]));
      if (!(wanted >= 1 && wanted <= kLargest)) return error(Code::kInvalidArgument, "the output would have %g positions along an axis, expected 1 ... 2^24", wanted);
      size[axis] = static_cast<int64_t>(wanted);
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = make_shape({x.dim[0], size[0], size[1], x.dim[3]});
    return Status();
  }

  size_t scratch_bytes(const Tensor*, int, const Tensor* out, int, int) const override {
    return static_cast<size_t>(out[0].shape.dim[1] + out[0].shape.dim[2]) * sizeof(Tap);
  }

  Status run(const RunArgs& args) const override {
    const Shape &x = args.in[0].shape, &y = args.out[0].shape;
    const float* scales = args.in[1].present ? nullptr : args.in[2].as<float>();
    Tap *rows = static_cast<Tap*>(args.scratch), *cols = rows + y.dim[1];
    taps(x.dim[1], y.dim[1], scales == nullptr ? nullptr : scales, rows);
    taps(x.dim[2], y.dim[2], scales == nullptr ? nullptr : scales + 1, cols);
    const int64_t lines = y.dim[0] * y.dim[1], line = y.dim[2] * y.dim[3], per_task = line >= kTask || line == 0 ? 1 : kTask / line;
    args.pool.parallel_for((lines + per_task - 1) / per_task, [&](int64_t task, int) {
      for (int64_t i = task * per_task; i < lines && i < (task + 1) * per_task; ++i) {
        const Tap& row = rows[i % y.dim[1]];
        if (args.in[0].dtype == DType::kF32) one_line<float>(args, i, row, cols);
        else one_line<uint8_t>(args, i, row, cols);
      }
    });
    return Status();
  }
  const char* kernel_name() const override { return kernel_.c_str(); }

 private:
  double position(int64_t i, int64_t size, int64_t out, double scale) const {
    const double at = static_cast<double>(i);
    if (coord_ == Coord::align_corners) return out > 1 ? at * (static_cast<double>(size - 1) / static_cast<double>(out - 1)) : 0.0;
    if (coord_ == Coord::asymmetric) return at / scale;
    if (coord_ == Coord::pytorch_half_pixel && out == 1) return 0.0;
    return (at + 0.5) / scale - 0.5;
  }
  double rounded(double v) const {
    switch (nearest_) {
      case Nearest::floor: return std::floor(v);
      case Nearest::ceil: return std::ceil(v);
      case Nearest::round_prefer_floor: return std::ceil(v - 0.5);
      default: return std::floor(v + 0.5);
    }
  }
  void taps(int64_t size, int64_t out, const float* given, Tap* to) const {
    const double scale = given == nullptr ? static_cast<double>(out) / static_cast<double>(size) : static_cast<double>(*given);
    const double last = static_cast<double>(size - 1);
    for (int64_t i = 0; i < out; ++i) {
      double v = position(i, size, out, scale);
      if (!linear_) v = rounded(v);
      v = v > 0.0 ? v : 0.0;
      v = v < last ? v : last;
      const int64_t lower = static_cast<int64_t>(v);
      to[i] = {lower, lower + 1 < size ? lower + 1 : size - 1, static_cast<float>(v - static_cast<double>(lower))};
    }
  }

  template <typename T>
  void one_line(const RunArgs& args, int64_t line, const Tap& row, const Tap* cols) const {
    const Shape &x = args.in[0].shape, &y = args.out[0].shape;
    const int64_t channels = x.dim[3], width = x.dim[2] * channels;
    const T* image = args.in[0].as<T>() + line / y.dim[1] * x.dim[1] * width;
    const T *upper = image + row.lower * width, *lower = image + row.upper * width;
    T* to = args.out[0].as<T>() + line * y.dim[2] * channels;
    for (int64_t i = 0; i < y.dim[2]; ++i, to += channels) {
      const int64_t left = cols[i].lower * channels, right = cols[i].upper * channels;
      if (!linear_) {
        memcpy(to, upper + left, static_cast<size_t>(channels) * sizeof(T));
        continue;
      }
      const ResizePixel<T> pixel = {upper + left, upper + right, lower + left, lower + right, cols[i].weight, row.weight, to, channels};
      if constexpr (sizeof(T) == 1) kernels_->linear_u8(pixel);
      else kernels_->linear_f32(pixel);
    }
  }

  bool linear_ = false;
  Coord coord_ = Coord::half_pixel;
  Nearest nearest_ = Nearest::floor;
  const ResizeKernels* kernels_ = nullptr;
  std::string kernel_;
};

}  // namespace

std::unique_ptr<Op> make_resize() { return std::make_unique<ResizeOp>(); }

}  // namespace netsuke
