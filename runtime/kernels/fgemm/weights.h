// Constant weights of conv and linear: packed once at load, with their bias and activation.
#ifndef NETSUKE_KERNELS_FGEMM_WEIGHTS_H_
#define NETSUKE_KERNELS_FGEMM_WEIGHTS_H_

#include <string>

#include "base/arena.h"
#include "kernels/fgemm/fgemm.h"

namespace netsuke {

class FgemmWeights {
 public:
  // w: constant f32 or bf16 [groups * cols, taps, channels] in row-major order, whatever its rank; bias: null, absent or f32[groups * cols].
  Status build(const Tensor& w, const Tensor* bias, int64_t groups, int64_t cols, int64_t taps, int64_t channels,
               const Activation& act, Isa isa, const char* op);
  // r is null, absent, or f32 of the output's shape.
  static Status check_residual(const Tensor* r, const Shape& out);

  bool bf16() const { return bf16_; }
  // Floats of one input pixel (all groups) as the kernel reads it: pairs of bfloat16 take one.
  int64_t pixel_floats() const { return groups_ * channels_; }
  // The program's input may be stored as bfloat16: the products round it so anyway, and pairs do not cross pixels. And its output: pairs of
  // whole pixels again.
  bool reads_bf16() const { return bf16_ && input_channels_ % 2 == 0; }
  bool writes_bf16() const { return cols_ % 2 == 0; }
  // The input in the form the kernel reads, [pixels, pixel_floats()]: x itself, or for bf16 a copy of f32 in `scratch` (input_bytes). *flush is
  // for the job.
  size_t input_bytes(const Tensor& x, int64_t pixels) const;
  const float* input(const Tensor& x, int64_t pixels, void* scratch, ThreadPool& pool, bool* flush) const;

  FgemmJob job(int64_t rows) const;
  // The same with results for y: f32, or bfloat16 where writes_bf16().
  FgemmJob job(int64_t rows, const Tensor& y) const;
  // Scratch of run(), of all threads: pointer tables; for y in bfloat16 also sums.
  static size_t scratch_bytes(int64_t rows, int64_t taps, int threads);
  size_t scratch_bytes(int64_t rows, int64_t taps, const Tensor& y, int threads) const;
  void run(FgemmJob* job, void* scratch, ThreadPool& pool) const;

  const char* kernel_name() const { return name_.c_str(); }
  size_t packed_bytes() const { return packed_.bytes() + bias_.bytes(); }

 private:
  Status pack(const Tensor& w);
  Status pack_bias(const Tensor& bias);
  size_t thread_scratch(int64_t rows, int64_t taps, bool halves) const;

  const FgemmKernels* kernels_ = nullptr;
  UnaryRow act_row_ = nullptr;
  Activation act_;
  int64_t groups_ = 1, cols_ = 0, taps_ = 1, channels_ = 0;  // channels as the kernel counts them: pairs for bf16
  int64_t input_channels_ = 0;                               // of one group, as the program counts them
  bool bf16_ = false;
  uint32_t least_exponent_ = 255;  // of the bf16 weights, see bf16_may_flush
  Buffer packed_, bias_;
  std::string name_;
};

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_FGEMM_WEIGHTS_H_
