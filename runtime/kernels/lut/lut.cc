#include "kernels/lut/lut.h"


namespace netsuke {

const LutKernels& lut_kernels(Isa isa, const CpuFeatures& features) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Vnni) return features.avx512_vbmi ? lut_kernels_avx512vbmi : lut_kernels_avx512vnni;
  if (isa == Isa::kAvx2) return lut_kernels_avx2;
#elif defined(__aarch64__)
  if (isa == Isa::kNeon || isa == Isa::kNeonDot) return lut_kernels_neon;
#endif
  return lut_kernels_portable;
}

namespace {

class Lut : public Op {
 public:
  Status build(const BuildArgs& args) override {
    if (args.inputs.size() != 2) return error(Code::kInvalidArgument, "lut has %zu inputs, allowed 2", args.inputs.size());
    const Tensor& table = args.inputs[1];
    if (!table.present || table.data == nullptr) return error(Code::kInvalidArgument, "lut: the table must be a constant");
    if (table.dtype != DType::kU8 && table.dtype != DType::kF32) {
      return error(Code::kInvalidArgument, "lut: the table is %s, allowed u8 or f32", dtype_name(table.dtype));
    }
    const Shape& shape = table.shape;
    const bool one = shape.rank == 1 && shape.dim[0] == 256, many = shape.rank == 2 && shape.dim[1] == 256 && shape.dim[0] > 0;
    if (!one && !many) return error(Code::kInvalidArgument, "lut: the table has shape %s, allowed [256] or [C, 256]", shape_text(shape).c_str());
    channels_ = many ? shape.dim[0] : 0;
    dtype_ = table.dtype;
    kernels_ = &lut_kernels(args.isa, cpu_features());
    plain_name_ = dtype_ == DType::kF32 ? "lut_f32_portable" : "lut_a8_channels_portable";
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("lut", in, n_in, {DType::kU8, dtype_}));
    const Shape& shape = in[0].shape;
    if (channels_ > 0 && (shape.rank == 0 || shape.dim[shape.rank - 1] != channels_)) {
      return error(Code::kInvalidArgument, "lut: x has shape %s, allowed a last dimension of %lld, one for each table", shape_text(shape).c_str(),
                   static_cast<long long>(channels_));
    }
    out[0].dtype = dtype_;
    out[0].shape = shape;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const uint8_t* x = args.in[0].as<const uint8_t>();
    const int64_t n = args.in[0].shape.elements();
    const void* table = args.in[1].data;
    const bool bytes = dtype_ == DType::kU8;
    if (channels_ == 0) {
      for_ranges(args.pool, n, kElementsPerTask, 64, [&](int64_t begin, int64_t end) {
        if (bytes) kernels_->map(x + begin, args.out[0].as<uint8_t>() + begin, end - begin, static_cast<const uint8_t*>(table));
        else lut_f32(x + begin, args.out[0].as<float>() + begin, end - begin, static_cast<const float*>(table));
      });
      return Status();
    }
    for_ranges(args.pool, n / channels_, std::max<int64_t>(1, kElementsPerTask / channels_), 1, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * channels_, rows = end - begin;
      if (bytes) lut_channels(x + at, args.out[0].as<uint8_t>() + at, rows, channels_, static_cast<const uint8_t*>(table));
      else lut_channels_f32(x + at, args.out[0].as<float>() + at, rows, channels_, static_cast<const float*>(table));
    });
    return Status();
  }

  const char* kernel_name() const override { return dtype_ == DType::kU8 && channels_ == 0 ? kernels_->name : plain_name_; }
  // Only where the output is as large as the codes.
  bool in_place(int i) const override { return i == 0 && dtype_ == DType::kU8; }

 private:
  int64_t channels_ = 0;  // 0: one table for all
  DType dtype_ = DType::kU8;
  const char* plain_name_ = "";
  const LutKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_lut() { return std::make_unique<Lut>(); }

}  // namespace netsuke
