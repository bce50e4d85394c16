// wlinear (docs/format.md section 2): y[..., N] = x[..., K] w[N, K]^T, weights in groups of k.
#include "kernels/wlinear/wlinear.h"

#include <cmath>
#include <string>

#include "kernels/base/shapes.h"
#include "kernels/fgemm/bf16.h"

namespace netsuke {
namespace {

constexpr int kX = 0, kW = 1, kScale = 2, kZero = 3, kBias = 4;

struct NamedFloat {
  const char* name;
  WlinearFloat form;
  int largest;  // code of the largest finite number
};
constexpr NamedFloat kFloats[] = {{"e4m3", {8, 3, 7}, 0x7e}, {"e5m2", {8, 2, 15}, 0x7b}, {"e3m2", {6, 2, 3}, 0x1f}, {"e2m1", {4, 1, 1}, 0x7}};

class WlinearOp final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 3, 5));
    const Tensor& w = args.inputs[kW];
    if (w.data == nullptr || w.shape.rank != 2 || w.shape.dim[0] < 1 || w.shape.dim[1] < 1) {
      return error(Code::kInvalidArgument, "w must be a constant [N, K], neither 0");
    }
    shape_.n = w.shape.dim[0];
    shape_.k = w.shape.dim[1];
    int64_t group = 0;
    std::string format, compute;
    NETSUKE_TRY(args.attrs.get("group", &group));
    NETSUKE_TRY(args.attrs.get_or("format", "int", &format));
    NETSUKE_TRY(args.attrs.get_or("compute", "f32", &compute));
    if (group < 1 || (group % kWBlock != 0 && group < shape_.k)) {
      return error(Code::kInvalidArgument, "group is %lld; allowed are multiples of %d and K = %lld or more", static_cast<long long>(group), kWBlock,
                   static_cast<long long>(shape_.k));
    }
    shape_.group = group < shape_.k ? group : shape_.k;
    if (compute != "f32" && compute != "bf16" && compute != "s8") {
      return error(Code::kInvalidArgument, "compute is '%.20s', allowed are f32, bf16 and s8", compute.c_str());
    }
    compute_ = compute == "s8" ? WlinearCompute::kS8 : compute == "bf16" ? WlinearCompute::kBf16 : WlinearCompute::kF32;
    const bool s8 = compute_ == WlinearCompute::kS8;
    WlinearFloat form;
    NETSUKE_TRY(read_format(w, format, &form));
    const bool has_zero = present(args, kZero);
    if (form.bits != 0 && (has_zero || s8)) return error(Code::kInvalidArgument, "%s weights take no zero point and compute in f32 or bf16", format.c_str());
    if (s8 && shape_.group > 0x7fffffff / (127 * 255)) {
      return error(Code::kInvalidArgument, "the sum of a group of %lld can leave int32", static_cast<long long>(shape_.group));
    }
    NETSUKE_TRY(check(args, kScale, "scale", DType::kF32, 2));
    if (has_zero) NETSUKE_TRY(check(args, kZero, "zero", DType::kS8, 2));
    const bool has_bias = present(args, kBias);
    if (has_bias) NETSUKE_TRY(check(args, kBias, "bias", DType::kF32, 1));
    const auto* scale = args.inputs[kScale].as<const float>();
    for (int64_t i = 0; i < shape_.n * shape_.groups(); ++i) {
      if (!std::isfinite(scale[i])) return error(Code::kInvalidArgument, "scale %lld is not finite", static_cast<long long>(i));
    }
    kernels_ = &wlinear_kernels(args.isa, compute_);
    NETSUKE_TRY(weights_.pack(shape_, compute_, w.data, form, scale, has_zero ? args.inputs[kZero].as<const int8_t>() : nullptr,
                              has_bias ? args.inputs[kBias].as<const float>() : nullptr, s8 ? kernels_->byte_offset : 128));
    name_ = std::string("wlinear_") + (s8 ? "a8" : compute) + (form.bits != 0 ? format : "w" + std::to_string(weights_.bits())) + "_" + kernels_->name;
    return Status();
  }

  Status infer(const Tensor* in, int, Tensor* out, int) const override {
    NETSUKE_TRY(expect_dtype(in[kX], "x", {DType::kF32}));
    const Shape& x = in[kX].shape;
    if (x.rank < 1 || x.dim[x.rank - 1] != shape_.k) {
      return error(Code::kInvalidArgument, "x has shape %s, its last dimension must be %lld as w has", shape_text(x).c_str(),
                   static_cast<long long>(shape_.k));
    }
    out[0].dtype = DType::kF32;
    out[0].shape = x;
    out[0].shape.dim[x.rank - 1] = shape_.n;
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor*, int, int) const override {
    return wlinear_scratch_bytes(shape_, product(in[kX].shape, 0, in[kX].shape.rank - 1), compute_);
  }

  Status run(const RunArgs& args) const override {
    const Tensor& x = args.in[kX];
    const int64_t rows = product(x.shape, 0, x.shape.rank - 1);
    if (rows > 0) wlinear_run(*kernels_, weights_, compute_, x.as<const float>(), rows, args.out[0].as<float>(), args.scratch, args.pool);
    return Status();
  }

  Cost cost(const Tensor* in, int, const Tensor* out, int) const override {
    Cost cost;
    cost.macs = out[0].shape.elements() * shape_.k;
    cost.bytes_read = in[kX].shape.elements() * 4 + static_cast<int64_t>(weights_.bytes());
    cost.bytes_written = out[0].shape.elements() * 4;
    return cost;
  }
  const char* kernel_name() const override { return name_.c_str(); }
  bool packed_constant(int i) const override { return i >= kW && i <= kBias; }
  size_t packed_bytes() const override { return weights_.bytes(); }

 private:
  static bool present(const BuildArgs& args, int i) { return i < static_cast<int>(args.inputs.size()) && args.inputs[static_cast<size_t>(i)].present; }

  Status check(const BuildArgs& args, int i, const char* what, DType dtype, int rank) const {
    if (!present(args, i)) return error(Code::kInvalidArgument, "%s is missing", what);
    const Tensor& t = args.inputs[static_cast<size_t>(i)];
    if (t.data == nullptr) return error(Code::kUnsupported, "%s must be a constant", what);
    if (t.dtype != dtype || t.shape.rank != rank || t.shape.dim[0] != shape_.n || (rank == 2 && t.shape.dim[1] != shape_.groups())) {
      return error(Code::kInvalidArgument, "%s is %s %s; it must be %s with %lld channels and %lld groups", what, dtype_name(t.dtype),
                   shape_text(t.shape).c_str(), dtype_name(dtype), static_cast<long long>(shape_.n), static_cast<long long>(shape_.groups()));
    }
    return Status();
  }

  static Status read_format(const Tensor& w, const std::string& format, WlinearFloat* form) {
    if (format == "int") return expect_dtype(w, "w", {DType::kS8});
    NETSUKE_TRY(expect_dtype(w, "w", {DType::kU8}));
    for (const NamedFloat& known : kFloats) {
      if (format != known.name) continue;
      *form = known.form;
      const int sign = 1 << (known.form.bits - 1);
      const auto* codes = w.as<const uint8_t>();
      for (int64_t i = 0; i < w.shape.elements(); ++i) {
        if (codes[i] >= 2 * sign || codes[i] % sign > known.largest) {
          return error(Code::kInvalidArgument, "weight %lld has code %d, which is no finite number of %s", static_cast<long long>(i), codes[i], known.name);
        }
      }
      return Status();
    }
    return error(Code::kInvalidArgument, "format is '%.20s', allowed are int, e4m3, e5m2, e3m2 and e2m1", format.c_str());
  }

  WlinearShape shape_;
  WlinearCompute compute_ = WlinearCompute::kF32;
  const WlinearKernels* kernels_ = nullptr;
  WlinearWeights weights_;
  std::string name_;
};

}  // namespace

const WlinearKernels& wlinear_kernels(Isa isa, WlinearCompute compute) {
#if defined(__x86_64__)
  // One instruction, one check: where fgemm found it to follow, it does here.
  if (compute == WlinearCompute::kBf16 && &fgemm_bf16_kernels(isa) != &fgemm_kernels(isa)) return wlinear_kernels_avx512bf16;
  if (isa == Isa::kAvx512Vnni) return wlinear_kernels_avx512vnni;
  if (isa == Isa::kAvx2) return wlinear_kernels_avx2;
#elif defined(__aarch64__)
  if (isa == Isa::kNeonDot) return wlinear_kernels_neondot;
  if (isa == Isa::kNeon) return wlinear_kernels_neon;
#endif
  return wlinear_kernels_portable;
}

std::unique_ptr<Op> make_wlinear() { return std::make_unique<WlinearOp>(); }

}  // namespace netsuke
