// What bconv and blinear share: reading and checking the constants, running the layer.
#ifndef NETSUKE_KERNELS_BGEMM_BINARY_OP_H_
#define NETSUKE_KERNELS_BGEMM_BINARY_OP_H_

#include <string>
#include <vector>

#include "kernels/bgemm/layer.h"
#include "kernels/op.h"

namespace netsuke {
namespace bgemm {

// Inputs: x, w, mult, bias, slope, shift, r, threshold, flip. Outputs: y and, if asked for, the packed signs of y.
class BinaryOp : public Op {
 public:
  explicit BinaryOp(const char* op) : op_(op) {}
  size_t scratch_bytes(const Tensor* in, int n_in, const Tensor* out, int n_out, int threads) const override;
  Status run(const RunArgs& args) const override;
  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override;
  const char* kernel_name() const override { return name_.c_str(); }
  std::string choice_key() const override { return layer_.key(); }
  std::vector<std::string> ways() const override { return layer_.ways(); }
  bool packed_constant(int i) const override { return i >= 1 && i != 6; }
  size_t packed_bytes() const override { return layer_.packed_bytes() + vectors_.size() * sizeof(float); }

 protected:
  // g holds the window and the channel counts. rank: that of w.
  Status build_layer(const BuildArgs& args, const Geometry& g, int pad_value, int rank);
  // The dimensions of y before the last one are set; this adds the channels and both types, and checks the residual.
  Status finish_infer(const Tensor* in, int n_in, Tensor* out, int n_out, int rank) const;
  virtual Extent extent(const Tensor& x, const Tensor& out) const = 0;

  std::string op_;
  Layer layer_;

 private:
  Status read_vectors(const BuildArgs& args, Finish* f);
  Status read_attributes(const BuildArgs& args, Finish* f) const;
  std::vector<float> vectors_;
  std::string name_;
  int n_outputs_ = 1;
};

// channels and the shape of w: [O, taps..., words].
Status check_words(const char* op, const BuildArgs& args, int rank, int64_t groups, int64_t* channels);

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_BINARY_OP_H_
