// Constant weights of a convolution in groups of 1, 2 or 4 channels, and the walk over the image.
#ifndef NETSUKE_KERNELS_CONV_DEPTHWISE_WEIGHTS_H_
#define NETSUKE_KERNELS_CONV_DEPTHWISE_WEIGHTS_H_

#include <string>

#include "base/arena.h"
#include "kernels/conv/depthwise.h"
#include "kernels/conv/geometry.h"
#include "kernels/elementwise/unary.h"
#include "kernels/fgemm/fgemm.h"

namespace netsuke {

class Depthwise {
 public:
  static bool takes(int64_t inputs_of_group, int64_t outputs_of_group) {
    return inputs_of_group == outputs_of_group && (inputs_of_group == 1 || inputs_of_group == 2 || inputs_of_group == 4);
  }
  // w f32 or bf16 [C, kh, kw, channels of a group]
  Status build(const Tensor& w, const Tensor* bias, const Activation& act, Isa isa);
  bool bf16() const { return bf16_; }
  bool writes_bf16() const { return act_row_ == nullptr; }
  size_t scratch_bytes(const Tensor& x, int threads) const;
  // x: f32, or bfloat16 where bf16(); y: f32, or bfloat16 where writes_bf16()
  void run(const ConvGeometry& g, const Tensor& x, const float* r, const Tensor& y, void* scratch, ThreadPool& pool) const;
  const char* kernel_name() const { return name_.c_str(); }
  size_t packed_bytes() const { return packed_.bytes(); }

 private:
  struct Image;
  size_t table_bytes() const;
  const uint16_t* halves(const Tensor& x, uint16_t* scratch, ThreadPool& pool) const;
  bool may_flush(const Image& image, int64_t n, int64_t begin, int64_t end) const;
  void rows(const Image& image, int64_t n, int64_t begin, int64_t end, const void** table) const;
  void line(const Image& image, int64_t n, int64_t oy, int64_t ox, int64_t pixels, bool down, const void** table) const;

  const DepthwiseKernels* kernels_ = nullptr;
  const FgemmKernels* fgemm_ = nullptr;  // conversions
  Activation act_;
  UnaryRow act_row_ = nullptr;
  int64_t channels_ = 0, group_ = 1, kh_ = 0, kw_ = 0, stride_ = 0;  // stride_: channels rounded up to 16
  Buffer packed_;  // w [kh * kw, group_, stride_], then bias [stride_]
  bool has_bias_ = false, bf16_ = false;
  uint32_t least_exponent_ = 255;  // of bf16 weights, see bf16_may_flush
  std::string name_;
};

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_CONV_DEPTHWISE_WEIGHTS_H_
