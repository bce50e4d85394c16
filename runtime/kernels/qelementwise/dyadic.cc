// qadd_dyadic, section 6 of docs/numerics.md: each operand is scaled by its own m / 2^e, rounded, and added. An operand has 256
// values, so its scaled and rounded form is a table made when the node is built: running it is two loads, one addition, one clamp.
#include "kernels/qelementwise/qelementwise.h"

namespace netsuke {
namespace {

// table[q] = shift_rne((q - zero) * m, e); |q - zero| <= 255 and m < 2^31, so nothing overflows.
Status read_table(const Attrs& attrs, const char* zero_key, const char* m_key, const char* e_key, int64_t* table) {
  int32_t zero = 0;
  int64_t m = 0, e = 0;
  NETSUKE_TRY(read_zero(attrs, zero_key, &zero));
  NETSUKE_TRY(read_dyadic(attrs, m_key, e_key, &m, &e));
  for (int64_t q = 0; q < 256; ++q) table[q] = shift_rne((q - zero) * m, static_cast<int32_t>(e));
  return Status();
}

void add_row(const uint8_t* a, const uint8_t* b, uint8_t* y, int64_t n, const QBinaryParams& params) {
  const int64_t lo = params.codes.lo, hi = params.codes.hi, zero = params.codes.zero;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t v = params.a_table[a[i]] + params.b_table[b[i]] + zero;
    y[i] = static_cast<uint8_t>(std::min(std::max(v, lo), hi));
  }
}

class QAddDyadic : public Op {
 public:
  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(read_table(args.attrs, "a_zero", "a_m", "a_e", a_table_));
    NETSUKE_TRY(read_table(args.attrs, "b_zero", "b_m", "b_e", b_table_));
    params_.a_table = a_table_;
    params_.b_table = b_table_;
    return read_codes(args.attrs, false, &params_.codes);
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(check_operands("qadd_dyadic", in, n_in, {DType::kU8, DType::kU8}));
    out[0].dtype = DType::kU8;
    return broadcast(in[0].shape, in[1].shape, &out[0].shape);
  }

  Status run(const RunArgs& args) const override {
    qbinary_run(add_row, args.in[0].shape, args.in[0].as<const uint8_t>(), args.in[1].shape, args.in[1].as<const uint8_t>(),
                args.out[0].shape, args.out[0].as<uint8_t>(), params_, args.pool);
    return Status();
  }

  const char* kernel_name() const override { return "qadd_dyadic_a8_portable_table"; }
  bool in_place(int i) const override { return i < 2; }

 private:
  int64_t a_table_[256] = {}, b_table_[256] = {};
  QBinaryParams params_;
};

}  // namespace

std::unique_ptr<Op> make_qadd_dyadic() { return std::make_unique<QAddDyadic>(); }

}  // namespace netsuke
