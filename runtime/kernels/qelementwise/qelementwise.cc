#include "kernels/qelementwise/qelementwise.h"

namespace netsuke {
namespace {

class QBinary : public Op {
 public:
  explicit QBinary(bool mul) : mul_(mul) {}

  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(read_zero(args.attrs, "a_zero", &params_.a_zero));
    NETSUKE_TRY(read_zero(args.attrs, "b_zero", &params_.b_zero));
    if (mul_) {
      NETSUKE_TRY(read_finite(args.attrs, "mult", false, &params_.mult));
    } else {
      NETSUKE_TRY(read_finite(args.attrs, "a_mult", false, &params_.a_mult));
      NETSUKE_TRY(read_finite(args.attrs, "b_mult", false, &params_.b_mult));
      params_.fused = args.attrs.has("offset");
      if (params_.fused) NETSUKE_TRY(read_finite(args.attrs, "offset", false, &params_.offset));
    }
    NETSUKE_TRY(read_codes(args.attrs, false, &params_.codes));
    kernels_ = &qelementwise_kernels(args.isa);
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands(mul_ ? "qmul" : "qadd", in, n_in, {DType::kU8, DType::kU8}));
    out[0].dtype = DType::kU8;
    return broadcast(in[0].shape, in[1].shape, &out[0].shape);
  }

  Status run(const RunArgs& args) const override {
    const QBinaryRow add = params_.fused ? kernels_->add_fused : kernels_->add;
    qbinary_run(mul_ ? kernels_->mul : add, args.in[0].shape, args.in[0].as<const uint8_t>(), args.in[1].shape,
                args.in[1].as<const uint8_t>(), args.out[0].shape, args.out[0].as<uint8_t>(), params_, args.pool);
    return Status();
  }

  const char* kernel_name() const override { return mul_ ? kernels_->mul_name : kernels_->add_name; }
  // An element is read before it is written, and only by its own output where the operand has the output's size.
  bool in_place(int i) const override { return i < 2; }

 private:
  bool mul_;
  QBinaryParams params_;
  const QBinaryKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_qadd() { return std::make_unique<QBinary>(false); }
std::unique_ptr<Op> make_qmul() { return std::make_unique<QBinary>(true); }

}  // namespace netsuke
