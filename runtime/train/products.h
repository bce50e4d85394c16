// The three products of a training step for convolution and linear layers, exact integers inside, f32 outside.
//
//   forward          y[n,oy,ox,o]   = f32(sum (x - x_zero) w) * mult[o] (+ bias[o])         sections 3 and 4 of docs/numerics.md
//   input_gradient   dx[n,y,x,c]    = f32(sum ((g - g_zero) w) << (e_max - e[o])) * mult
//   weight_gradient  dw[o,ky,kx,c]  = f32(sum (x - x_zero)(g - g_zero)) * mult[o]
//
// Codes of 8 bits or fewer sum in int32 and refuse what could overflow; the weight gradient sums over batch and positions and is
// split into spans that fit, added in int64. Operands of 9 to 16 bits (dynamic fixed point) sum in chains: as many pairs of products
// as int32 holds, then f32, in the order of the operands, which no thread count changes.
#ifndef NETSUKE_TRAIN_PRODUCTS_H_
#define NETSUKE_TRAIN_PRODUCTS_H_

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "base/arena.h"
#include "base/status.h"
#include "base/threads.h"
#include "train/kernels.h"
#include "train/layouts.h"

namespace netsuke {
namespace train {

// A linear layer is a 1x1 convolution of 1x1 images.
struct Conv {
  int64_t n, h, w, c, o, kh, kw;
  int64_t stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, groups;
  int64_t oh() const { return (h + top + bottom - dilation_h * (kh - 1) - 1) / stride_h + 1; }
  int64_t ow() const { return (w + left + right - dilation_w * (kw - 1) - 1) / stride_w + 1; }
};

// Codes with their range: u8 with a zero point for activations and gradients, s8 (zero 0) for weights; s16 when wide.
struct Codes {
  const void* data;
  int32_t zero, lo, hi;  // smallest and largest stored code
  bool wide;
  int64_t top() const { return hi - zero > zero - lo ? hi - zero : zero - lo; }  // largest |code - zero|
};

// A batch normalization, with ReLU or without. weight, bias and running statistics [columns], or null; these move by `share` towards the batch's.
struct BatchNormLayer {
  int64_t rows, columns;
  const float *weight, *bias;
  double eps;
  bool relu;
  float *running_mean = nullptr, *running_var = nullptr;
  double share = 0;
};

// A fully quantized L1 normalization, with ReLU or without: codes of x are 0 to top, 3, 7, ... 255. weight and bias [columns].
struct L1NormLayer {
  int64_t rows, columns;
  const float *weight, *bias;
  double eps;
  int32_t top;
  bool relu;
};

// What its backward pass needs of every channel: floor of the mean code; slope and offset of xh, already rounded to f32; 1 / (a + eps); mean
// sign; gamma; xh's scale; whether the mean is a code; first and last code that the ReLU lets through.
enum L1NormNumber { kFloor, kSlope, kOffset, kInverse, kSign, kWeight, kStep, kMeanIsCode, kFrom, kTo, kNormNumbers };  // rows of binary64 [kNormNumbers][columns]

// dY's codes: -top to top, channel scales in `groups` octaves; null: rounded to nearest.
struct L1NormGradient {
  int32_t top, groups;
  const Seed* seed;
};

// A convolution with batch normalization behind it (conv_norm.cc). w: codes of the weights, -w_top to w_top; z [n,oh,ow,o]: what the convolution
// gave; affine, moments: as batch_norm has them.
struct ConvNorm {
  Conv conv;
  BatchNormLayer norm;
  Codes x;
  float x_scale;
  const int8_t* w;
  int32_t w_top;
  const float* w_scale;
  const float* z;
  const float* affine;
  const double* moments;
};
// A shortcut of every `step`th pixel of [n,h,w,c], with zero channels before and after.
struct Subsample {
  int64_t n, h, w, c, step, before, after;
  int64_t oh() const { return (h + step - 1) / step; }
  int64_t ow() const { return (w + step - 1) / step; }
};
enum class Found : int { kNothing, kGradient, kNotFinite };  // all zero; numbers; NaN or Inf

// Adds the nanoseconds of its life to a counter.
class Stopwatch {
 public:
  explicit Stopwatch(int64_t* total) : total_(total), start_(Clock::now()) {}
  ~Stopwatch() { *total_ += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  int64_t* total_;
  Clock::time_point start_;
};

struct L1Gradient;
struct WinogradConv;

class Trainer {
 public:
  // team: null for threads of its own, see ThreadPool.
  Trainer(Isa isa, int threads, ThreadPool::Team team = nullptr)
      : table_(train_kernels(isa)), pool_(team != nullptr ? ThreadPool(threads, team) : ThreadPool(threads)), isa_(isa) {}

  // x [n,h,w,c], w [o,kh,kw,c/groups], mult [o], bias [o] or null, y [n,oh,ow,o].
  Status forward(const Conv& conv, const Codes& x, const Codes& w, const float* mult, const float* bias, float* y);
  // g [n,oh,ow,o]; exponents [o] or null: channel o has the scale 2^-e[o] of the largest one; dx [n,h,w,c]. add: to what dx holds; not depthwise,
  // not wide.
  Status input_gradient(const Conv& conv, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx, bool add = false);
  // dw [o,kh,kw,c/groups].
  Status weight_gradient(const Conv& conv, const Codes& x, const Codes& g, const float* mult, float* dw);

  // One-bit products (one_bit.cc). x [n,h,w,words of c], w [o,kh,kw,words of c] packed signs (docs/numerics.md section 10), padding 0;
  // y [n,oh,ow,o] = sum * mult[o], added to what y holds when accumulating. Exact while the sums stay below 2^24.
  Status bit_conv(const Conv& conv, const uint64_t* x, const uint64_t* w, const float* mult, bool accumulate, float* y);
  // The signs (x >= 0) of [rows][channels]; bit b of codes as plane b: [planes][rows][words of channels].
  Status pack_signs(const float* x, int64_t rows, int64_t channels, uint64_t* y);
  Status pack_planes(const uint8_t* codes, int64_t rows, int64_t channels, int64_t planes, uint64_t* y);
  // [n][positions][words of channels] to [channels][positions][words of n].
  Status transpose_bits(const uint64_t* x, int64_t n, int64_t positions, int64_t channels, uint64_t* y);

  // codes of f32 [count]; see Quantize. Rows of `scale` repeat with `period`.
  Status quantize(const Quantize& q, int64_t count);
  // Largest |x| of each column of [rows][columns], as f32; NaN or Inf when one is there.
  // groups > 1: x is that many matrices, each with a row of `top` of its own.
  Status absmax(const float* x, int64_t rows, int64_t columns, int64_t groups, float* top);

  // y[i] = x[i] > high or x[i] < low, 1 or 0.
  Status outside(const float* x, int64_t count, float low, float high, uint8_t* y);
  // dx [samples][each]: 0 where `outside` (or null) says so, the rest times the sample's factor.
  Status settle_gradient(float* dx, const uint8_t* outside, const float* factor, int64_t samples, int64_t each);

  Status subsample(const Subsample& s, const float* x, float* y);
  // dx += what dy [n,oh,ow,before + c + after] gives x.
  Status add_subsampled(const Subsample& s, const float* dy, float* dx);

  // Smallest and largest of x; a NaN shows as one of them.
  Status minmax(const float* x, int64_t count, float* out);
  // scale[row] = max|w[row]| / top (1 for zeros), codes rne(w / scale) of [rows][columns]: docs/numerics.md section 7.
  Status weight_codes(const float* w, int64_t rows, int64_t columns, int32_t top, int8_t* codes, float* scale);

  // The quantized L1 normalization (norm.cc), x, y and dy [rows][columns]. codes and numbers are kept for backward; statistics f32 [2][columns]:
  // mean and mean deviation of the batch; ends f32 [2]: smallest and largest y. Where x is NaN or Inf, finite is false and nothing is written.
  Status l1_norm(const L1NormLayer& layer, const float* x, uint8_t* codes, float* y, double* numbers, float* statistics, float* ends, bool* finite);
  // Its first part, all but y, and its second.
  Status l1_numbers(const L1NormLayer& layer, const float* x, uint8_t* codes, double* numbers, float* statistics, float* ends, bool* finite);
  Status l1_apply(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, float* y);
  // q_codes: room for dy's codes; sums f32 [3][columns]: largest |dy|, gradients of weight and bias. Where dy is NaN or Inf, finite is false and
  // nothing but the first of these is written.
  Status l1_norm_gradient(int64_t rows, int64_t columns, const float* dy, const uint8_t* codes, const double* numbers, const L1NormGradient& gradient,
                          uint8_t* q_codes, float* dx, float* sums, bool* finite);

  // x, residual (or null) and y [rows][columns]; affine f32 [2][columns]: factor, shift; moments binary64 [2][columns]: mean, variance of the
  // batch; ends f32 [2]: smallest and largest y, where a NaN shows.
  Status batch_norm(const BatchNormLayer& layer, const float* x, const float* residual, float* y, float* affine, double* moments, float* ends);
  // y: of a ReLU behind an addition, with dz to write; otherwise null, and dz is not written. dx may be null.
  Status batch_norm_gradient(const BatchNormLayer& layer, const float* x, const float* dy, const float* y, const float* affine,
                             const double* moments, float* dz, float* dx, float* dweight, float* dbias);

  // A convolution whose weights become codes here, and its normalization's numbers: c's w, w_scale, z, affine and moments are written. ends f32 [2]:
  // smallest and largest of what norm_codes would make codes of, where a NaN shows.
  Status conv_norm(const ConvNorm& c, const float* weights, int8_t* w, float* w_scale, float* z, float* affine, double* moments, float* ends);
  // What stands behind it: y, or (no residual) codes of y without y.
  Status norm_apply(const BatchNormLayer& layer, const float* x, const float* residual, const float* affine, float* y, float* ends);
  Status norm_codes(const BatchNormLayer& layer, const float* x, const float* affine, const Quantize& q);
  // Backward of both: dz as batch_norm_gradient has it; g's codes with channel scales related by powers of two, each times its weights' scale; ranges
  // f32 [o]: largest gradient of the convolution's output. add: dx is added to what it holds. dx and dw may be null.
  Status conv_norm_gradient(const ConvNorm& c, const float* dy, const float* y, const L1NormGradient& gradient, float* dz, float* dweight, float* dbias,
                            float* ranges, float* dx, bool add, float* dw, Found* found);

  // The same with an L1 normalization behind the convolution (conv_l1.cc); c.norm has its rows, columns and relu, and c.z, affine and moments are null.
  // layer.relu: of a ReLU without an addition before it. z is needed no longer.
  Status conv_l1(const ConvNorm& c, const L1NormLayer& layer, const float* weights, int8_t* w, float* w_scale, float* z, uint8_t* codes, double* numbers,
                 float* statistics, float* ends, bool* finite);
  // What stands behind it: the addition and its ReLU, or codes of y without y.
  Status l1_add(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, const float* residual, bool relu, float* y, float* ends);
  Status l1_codes(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, const Quantize& q);
  // y: of a ReLU behind an addition, with dz to write; q_codes: room for codes of dy or dz; sums as l1_norm_gradient has them. Found::kNotFinite with
  // sums that are: the convolution's gradient is not.
  Status conv_l1_gradient(const ConvNorm& c, const uint8_t* codes, const double* numbers, const float* dy, const float* y, const L1NormGradient& norm_gradient,
                          const L1NormGradient& gradient, float* dz, uint8_t* q_codes, float* sums, float* ranges, float* dx, bool add, float* dw, Found* found);

  // Nanoseconds since the last call: preparing operands (padding, transposes, packing), and tiles with their results.
  void times(int64_t* prepare, int64_t* multiply);

  Isa isa() const { return isa_; }
  int threads() const { return pool_.threads(); }
  const char* kernel() const { return table_.name; }

 private:
  struct Plan;
  Lane lane_for(const Codes& a, const Codes& b) const;
  Status reserve(Buffer* buffer, int64_t bytes);
  Status check(const Conv& conv, const Codes& a, const Codes& b, int64_t terms, int shift) const;
  Status used_pixels(Conv* conv, Codes* x);
  void multiply(const Plan& plan, const float* mult, const float* bias);
  Status conv_codes(const ConvNorm& c, const float* weights, int8_t* w, float* w_scale, float* z);
  // ranges: made here from a first pass over dx unless `known`.
  template <typename Make>
  Status conv_gradient(const ConvNorm& c, const L1NormGradient& gradient, const Make& make, bool known, float* ranges, float* dx, bool add,
                       float* dw, Found* found);
  Status norm_moments(const BatchNormLayer& layer, const float* x, float* affine, double* moments, float* ends);
  Status norm_sums(const BatchNormLayer& layer, const float* x, const float* dy, const float* y, const float* affine, const double* moments, float* dz,
                   float* dweight, float* dbias, float* slope, float* offset);
  template <typename Visit>
  void l1_blocks(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, const Visit& visit);
  void gate_output(const float* dy, const float* y, int64_t count, float* dz);
  Status l1_sums(int64_t rows, int64_t columns, const float* dy, const uint8_t* codes, const double* numbers, const L1NormGradient& gradient, uint8_t* q_codes,
                 float* sums, L1Gradient* made, float* largest, bool* finite);
  Status phase_gradient(const Conv& conv, const Codes& w, const float* mult, Plan* plan, int64_t group, int64_t py, int64_t px,
                        const Padded& pad, float* dx);
  Status weight_group(const Conv& conv, const Image& x, const Padded& pad, const Image& g, Lane lane, int64_t flush,
                      int64_t span, const float* mult, float* dw);
  bool winograd_pays(const Conv& conv, const Codes& a, const Codes& b) const;
  Status winograd_conv(const WinogradConv& w, const float* mult, const float* bias, float* y);
  Status winograd_forward(const Conv& conv, const Codes& x, const Codes& w, const float* mult, const float* bias, float* y);
  bool winograd_takes(const Conv& conv, const Codes& g, const uint8_t* exponents, const Codes& w) const;
  Status winograd_gradient(const Conv& conv, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx, bool add);
  std::vector<int64_t> spans_of_tiles(const Conv& conv, const Codes& x, const Codes& g);
  Status winograd_weights(const Conv& conv, const Codes& x, const Codes& g, const float* mult, float* dw);
  Status depthwise_forward(const Conv& conv, const Codes& x, const Codes& w, const float* mult, const float* bias, float* y);
  Status depthwise_input(const Conv& conv, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx);
  Status depthwise_weight(const Conv& conv, const Codes& x, const Codes& g, const float* mult, float* dw);

  const Table& table_;
  ThreadPool pool_;
  Isa isa_;
  std::mutex mutex_;  // one product at a time: the scratch below is shared
  Buffer a_, b_, sums_, wide_, pixels_;
  std::mutex codes_mutex_;  // and one conv_norm_gradient
  Buffer codes_;
  int64_t whole_ns_ = 0, tiles_ns_ = 0;
};

inline bool is_depthwise(const Conv& c) { return c.groups > 1 && c.groups == c.c && c.o == c.c; }

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_PRODUCTS_H_
