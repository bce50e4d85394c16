#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {

const QMatmulKernels& qmatmul_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Vnni) return qmatmul_kernels_avx512vnni;
  if (isa == Isa::kAvx2) return qmatmul_kernels_avx2;
#elif defined(__aarch64__)
  if (isa == Isa::kNeonDot) return qmatmul_kernels_neondot;
  if (isa == Isa::kNeon) return qmatmul_kernels_neon;
#endif
  return qmatmul_kernels_portable;
}

namespace {

class QMatmul : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(read_zero(args.attrs, "a_zero", &params_.a_zero));
    NETSUKE_TRY(read_zero(args.attrs, "b_zero", &params_.b_zero));
    NETSUKE_TRY(read_finite(args.attrs, "mult", false, &params_.mult));
    NETSUKE_TRY(read_codes(args.attrs, true, &params_.codes));
    int64_t transposed = 0;
    NETSUKE_TRY(args.attrs.get_or("trans_b", int64_t{0}, &transposed));
    if (transposed != 0 && transposed != 1) {
      return error(Code::kInvalidArgument, "attribute trans_b is %lld, allowed 0 or 1", static_cast<long long>(transposed));
    }
    transposed_ = transposed == 1;
    std::string out;
    NETSUKE_TRY(args.attrs.get_or("out", "u8", &out));
    if (out != "u8" && out != "f32") {
      return error(Code::kInvalidArgument, "attribute out is \"%s\", allowed \"u8\" or \"f32\"", out.c_str());
    }
    params_.f32_out = out == "f32";
    kernels_ = &qmatmul_kernels(args.isa);
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("qmatmul", in, n_in, {DType::kU8, DType::kU8}));
    QMatmulShape shape;
    NETSUKE_TRY(qmatmul_shape(in[0].shape, in[1].shape, transposed_, &shape, &out[0].shape));
    out[0].dtype = params_.f32_out ? DType::kF32 : DType::kU8;
    const int64_t a_most = std::max(params_.a_zero, 255 - params_.a_zero), b_most = std::max(params_.b_zero, 255 - params_.b_zero);
    const int64_t allowed = INT32_MAX / (a_most * b_most);
    if (shape.k <= allowed) return Status();
    return error(Code::kInvalidArgument, "qmatmul: K is %lld, allowed up to %lld, beyond which 32-bit sums could overflow",
                 static_cast<long long>(shape.k), static_cast<long long>(allowed));
  }

  size_t scratch_bytes(const Tensor* in, int n_in, const Tensor* out, int n_out, int threads) const override {
    return qmatmul_scratch_bytes(*kernels_, shape_of(in), threads);
  }

  Status run(const RunArgs& args) const override {
    qmatmul_run(*kernels_, shape_of(args.in), params_, args.in[0].as<const uint8_t>(), args.in[1].as<const uint8_t>(),
                args.out[0].data, args.scratch, args.pool);
    return Status();
  }

  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override {
    Cost cost = Op::cost(in, n_in, out, n_out);
    const QMatmulShape shape = shape_of(in);
    cost.macs = shape.batch * shape.m * shape.n * shape.k;
    return cost;
  }

  const char* kernel_name() const override { return kernels_->name; }

 private:
  // infer() has accepted these shapes.
  QMatmulShape shape_of(const Tensor* in) const {
    QMatmulShape shape;
    Shape out;
    (void)qmatmul_shape(in[0].shape, in[1].shape, transposed_, &shape, &out).ok();
    return shape;
  }

  QMatmulParams params_;
  bool transposed_ = false;
  const QMatmulKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_qmatmul() { return std::make_unique<QMatmul>(); }

}  // namespace netsuke
