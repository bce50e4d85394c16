// What qconv, qlinear and their dyadic forms share: reading and checking the constants, running the layer.
#ifndef NETSUKE_KERNELS_QGEMM_GEMM_OP_H_
#define NETSUKE_KERNELS_QGEMM_GEMM_OP_H_

#include <string>
#include <vector>

#include "kernels/op.h"
#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {

// Inputs: x, w, mult, bias, acc_bias, r (float multiplier) or x, w, m, e, acc_bias, r (dyadic).
class GemmOp : public Op {
 public:
  GemmOp(const char* op, bool dyadic) : op_(op), dyadic_(dyadic) {}

  size_t scratch_bytes(const Tensor* in, int n_in, const Tensor* out, int n_out, int threads) const override;
  Status run(const RunArgs& args) const override;
  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override;
  const char* kernel_name() const override { return name_.c_str(); }
  std::string choice_key() const override { return layer_.key(); }
  std::vector<std::string> ways() const override { return layer_.ways(); }
  bool packed_constant(int i) const override { return i >= 1 && i <= 4; }
  size_t packed_bytes() const override { return layer_.packed_bytes() + vectors_.size() * sizeof(float); }

 protected:
  // Reads everything but the geometry (already in g: kernel, strides ... and channel counts) and builds the layer.
  Status build_layer(const BuildArgs& args, Geometry g);
  Status check_inputs(const Tensor* in, int n_in, int n_out) const;
  // Type and shape of the residual against the output's.
  Status check_residual(const Tensor* in, int n_in, const Tensor& out) const;
  virtual Extent extent(const Tensor& x, const Tensor& out) const = 0;
  bool dyadic() const { return dyadic_; }

  std::string op_;
  Layer layer_;

 private:
  Status read_vectors(const BuildArgs& args, int64_t channels, Requant* q);
  Status read_requant(const BuildArgs& args, Requant* q) const;
  bool has_residual_ = false;
  bool dyadic_ = false;
  std::vector<float> vectors_;  // mult, bias, or the bits of m, e; padded to kChannelPad
  std::string name_;
};

// [O, taps...] s8 constant at input 1.
Status check_weights(const char* op, const std::vector<Tensor>& inputs, int rank);

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_GEMM_OP_H_
