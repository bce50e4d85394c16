// Constant weights of a convolution in groups of 1, 2 or 4 channels, and the walk over the image.
#ifndef NETSUKE_KERNELS_CONV_DEPTHWISE_WEIGHTS_H_
#define NETSUKE_KERNELS_CONV_DEPTHWISE_WEIGHTS_H_

#include <string>

#include "base/arena.h"
#include "kernels/conv/depthwise.h"
#include "kernels/conv/geometry.h"
#include "kernels/elementwise/unary.h"

namespace netsuke {

class Depthwise {
 public:
  static bool takes(int64_t inputs_of_group, int64_t outputs_of_group) {
    return inputs_of_group == outputs_of_group && (inputs_of_group == 1 || inputs_of_group == 2 || inputs_of_group == 4);
  }
  // w f32 [C, kh, kw, channels of a group]
  Status build(const Tensor& w, const Tensor* bias, const Activation& act, Isa isa);
  size_t scratch_bytes(int threads) const;
  void run(const ConvGeometry& g, const float* x, const float* r, float* y, void* scratch, ThreadPool& pool) const;
  const char* kernel_name() const { return name_.c_str(); }
  size_t packed_bytes() const { return packed_.bytes(); }

 private:
  struct Image;
  size_t table_bytes() const;
  void rows(const Image& image, int64_t n, int64_t begin, int64_t end, const float** table) const;
  void line(const Image& image, int64_t n, int64_t oy, int64_t ox, int64_t pixels, bool down, const float** table) const;

  const DepthwiseKernels* kernels_ = nullptr;
  Activation act_;
  UnaryRow act_row_ = nullptr;
  int64_t channels_ = 0, group_ = 1, kh_ = 0, kw_ = 0, stride_ = 0;  // stride_: channels rounded up to 16
  Buffer packed_;  // w [kh * kw, group_, stride_], then bias [stride_]
  bool has_bias_ = false;
  std::string name_;
};

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_CONV_DEPTHWISE_WEIGHTS_H_
