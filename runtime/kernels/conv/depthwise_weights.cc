// Taps outside the image are skipped. The output falls into an interior, whose pixels have every tap and are computed along rows, and edge
// columns, whose pixels have the same taps as those above and below and are computed downwards: long runs everywhere but
// in the corners.
#include "kernels/conv/depthwise_weights.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/shapes.h"
#include "kernels/fgemm/bf16.h"

namespace netsuke {
namespace {

constexpr int64_t kTask = 32768;  // output elements of one task, about
constexpr int64_t kConvertChunk = 16384;  // inputs rounded to bfloat16 in one task; even, pairs do not cross

float bf16_to_float(uint16_t half) {  // subnormals are zeros
  const uint32_t wide = static_cast<uint32_t>(half & 0x7f80 ? half : half & 0x8000) << 16;
  float v;
  memcpy(&v, &wide, sizeof(v));
  return v;
}

// Outputs o in [first, last) for which every tap of the kernel is inside [0, size).
void interior(int64_t size, int64_t out, int64_t k, int64_t stride, int64_t pad, int64_t dilation, int64_t* first, int64_t* last) {
  *first = std::min(out, (pad + stride - 1) / stride);
  const int64_t room = size - 1 - (k - 1) * dilation + pad;  // the largest o * stride
  *last = room < 0 ? *first : std::max(*first, std::min(out, room / stride + 1));
}

// Taps k in [begin, end) with 0 <= start + k * dilation < size.
void inside(int64_t start, int64_t size, int64_t k, int64_t dilation, int64_t* begin, int64_t* end) {
  *begin = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
  *end = start >= size ? 0 : std::min(k, (size - 1 - start) / dilation + 1);
}

}  // namespace

#if defined(__x86_64__)
extern const DepthwiseKernels depthwise_kernels_avx512bf16;
#endif

const DepthwiseKernels& depthwise_bf16_kernels(Isa isa) {
#if defined(__x86_64__)
  if (&fgemm_bf16_kernels(isa) != &fgemm_kernels(isa)) return depthwise_kernels_avx512bf16;
#endif
  return depthwise_kernels(isa);
}

struct Depthwise::Image {
  ConvGeometry g;
  const uint8_t* x;  // f32 or bfloat16
  int64_t x_size;    // bytes of an element
  const float* r;
  float* y;
  uint16_t* halves;  // instead of y
  int64_t top, bottom, left, right;  // the interior of the output
  DepthwiseRun run;                  // what all runs share
};

Status Depthwise::build(const Tensor& w, const Tensor* bias, const Activation& act, Isa isa) {
  bf16_ = w.dtype == DType::kBF16;
  kernels_ = bf16_ ? &depthwise_bf16_kernels(isa) : &depthwise_kernels(isa);
  fgemm_ = bf16_ ? &fgemm_bf16_kernels(isa) : nullptr;
  name_ = std::string(bf16_ ? "conv_bf16_" : "conv_f32_") + kernels_->name;
  act_ = act;
  float lo, hi;
  act_row_ = act.clamp(&lo, &hi) ? nullptr : unary_kernels(isa).rows[static_cast<int>(act.fn)];
  channels_ = w.shape.dim[0];
  kh_ = w.shape.dim[1];
  kw_ = w.shape.dim[2];
  group_ = w.shape.dim[3];
  const int64_t rows = kh_ * kw_ * group_;
  stride_ = (channels_ + 15) / 16 * 16;
  NETSUKE_TRY(packed_.allocate_shared(static_cast<size_t>((rows + 1) * stride_) * sizeof(float)));
  memset(packed_.data(), 0, packed_.bytes());
  float* packed = reinterpret_cast<float*>(packed_.data());
  for (int64_t c = 0; c < channels_; ++c) {
    for (int64_t i = 0; i < rows; ++i) packed[i * stride_ + c] = bf16_ ? bf16_to_float(w.as<uint16_t>()[c * rows + i]) : w.as<float>()[c * rows + i];
  }
  if (bf16_) least_exponent_ = fgemm_->least_bf16(w.as<uint16_t>(), channels_ * rows);
  has_bias_ = bias != nullptr && bias->present;
  if (!has_bias_) return Status();
  NETSUKE_TRY(expect_dtype(*bias, "bias", {DType::kF32}));
  if (bias->data == nullptr || bias->shape.elements() != channels_) {
    return error(Code::kInvalidArgument, "bias must be a constant of %lld elements", static_cast<long long>(channels_));
  }
  memcpy(packed + rows * stride_, bias->data, static_cast<size_t>(channels_) * sizeof(float));
  return Status();
}

// Two pointers a tap: input and weights.
size_t Depthwise::table_bytes() const { return align_up(static_cast<size_t>(2 * kh_ * kw_) * sizeof(float*)); }
size_t Depthwise::scratch_bytes(const Tensor& x, int threads) const {
  const size_t copy = bf16_ && x.dtype == DType::kF32 ? align_up(static_cast<size_t>(x.shape.elements() + 1) * sizeof(uint16_t)) : 0;
  return table_bytes() * static_cast<size_t>(threads) + copy;
}

// x as bfloat16: itself, or rounded into `scratch`.
const uint16_t* Depthwise::halves(const Tensor& x, uint16_t* scratch, ThreadPool& pool) const {
  if (x.dtype == DType::kBF16) return x.as<uint16_t>();
  const int64_t n = x.shape.elements();
  pool.parallel_for((n + kConvertChunk - 1) / kConvertChunk, [&](int64_t task, int) {
    const int64_t begin = task * kConvertChunk, count = std::min(kConvertChunk, n - begin);
    fgemm_->to_bf16(x.as<float>() + begin, 1, count, reinterpret_cast<uint32_t*>(scratch + begin));
  });
  return scratch;
}

// Whether sums of output rows [begin, end) may become subnormal: all exponents of the rows they read are looked at, which takes a tenth of the
// time of the products.
bool Depthwise::may_flush(const Image& image, int64_t n, int64_t begin, int64_t end) const {
  const ConvGeometry& g = image.g;
  const int64_t first = std::max<int64_t>(0, begin * g.sh - g.top), last = std::min(g.h, (end - 1) * g.sh - g.top + (g.kh - 1) * g.dh + 1);
  if (last <= first) return false;
  const auto* x = reinterpret_cast<const uint16_t*>(image.x) + (n * g.h + first) * g.w * channels_;
  return bf16_may_flush(fgemm_->least_bf16(x, (last - first) * g.w * channels_), least_exponent_);
}

// `pixels` outputs from (oy, ox) on, to the right or down, all with the taps of the first.
void Depthwise::line(const Image& image, int64_t n, int64_t oy, int64_t ox, int64_t pixels, bool down, const void** table) const {
  if (pixels <= 0) return;
  const ConvGeometry& g = image.g;
  const int64_t y0 = oy * g.sh - g.top, x0 = ox * g.sw - g.left, row = g.w * channels_;
  int64_t ky, ky_end, kx_begin, kx_end;
  inside(y0, g.h, g.kh, g.dh, &ky, &ky_end);
  inside(x0, g.w, g.kw, g.dw, &kx_begin, &kx_end);
  const void** a = table;
  const float** w = reinterpret_cast<const float**>(table + kh_ * kw_);
  const float* weights = reinterpret_cast<const float*>(packed_.data());
  DepthwiseRun run = image.run;
  for (; ky < ky_end; ++ky) {
    for (int64_t kx = kx_begin; kx < kx_end; ++kx, ++run.taps) {
      a[run.taps] = image.x + ((n * g.h + y0 + ky * g.dh) * row + (x0 + kx * g.dw) * channels_) * image.x_size;
      w[run.taps] = weights + (ky * g.kw + kx) * group_ * stride_;
    }
  }
  const int64_t at = ((n * g.oh + oy) * g.ow + ox) * channels_;
  run.a = a;
  run.w = w;
  run.pixels = pixels;
  run.column = kx_end - kx_begin == 3 && g.kw == 3 && !down ? g.dw * channels_ : 0;
  run.step = down ? g.sh * row : g.sw * channels_;
  run.y_step = down ? g.ow * channels_ : channels_;
  if (image.halves != nullptr) run.halves = image.halves + at;
  else run.y = image.y + at;
  run.r = image.r == nullptr ? nullptr : image.r + at;
  (bf16_ ? kernels_->run_bf16 : kernels_->run)(run);
}

void Depthwise::rows(const Image& image, int64_t n, int64_t begin, int64_t end, const void** table) const {
  const int64_t ow = image.g.ow, top = std::max(begin, image.top), bottom = std::min(end, image.bottom);
  for (int64_t oy = begin; oy < end; ++oy) line(image, n, oy, image.left, image.right - image.left, false, table);
  for (int64_t ox = 0; ox < ow; ox = ox + 1 == image.left ? image.right : ox + 1) {
    if (ox >= image.left && ox < image.right) continue;
    line(image, n, top, ox, bottom - top, true, table);
    for (int64_t oy = begin; oy < end; ++oy) {
      if (oy < image.top || oy >= image.bottom) line(image, n, oy, ox, 1, false, table);
    }
  }
  if (act_row_ == nullptr) return;
  float* y = image.y + (n * image.g.oh + begin) * ow * channels_;
  act_row_(y, y, (end - begin) * ow * channels_, act_.alpha, act_.beta);
}

void Depthwise::run(const ConvGeometry& g, const Tensor& x, const float* r, const Tensor& y, void* scratch, ThreadPool& pool) const {
  const int64_t line = g.ow * channels_;
  if (g.n * g.oh * line == 0) return;
  Image image = {};
  image.g = g;
  image.r = r;
  if (y.dtype == DType::kBF16) image.halves = y.as<uint16_t>();
  else image.y = y.as<float>();
  uint8_t* copy = static_cast<uint8_t*>(scratch) + table_bytes() * static_cast<size_t>(pool.threads());
  image.x = bf16_ ? reinterpret_cast<const uint8_t*>(halves(x, reinterpret_cast<uint16_t*>(copy), pool)) : x.as<uint8_t>();
  image.x_size = static_cast<int64_t>(bf16_ ? sizeof(uint16_t) : sizeof(float));
  interior(g.h, g.oh, g.kh, g.sh, g.top, g.dh, &image.top, &image.bottom);
  interior(g.w, g.ow, g.kw, g.sw, g.left, g.dw, &image.left, &image.right);
  image.run.channels = channels_;
  image.run.group = group_;
  image.run.w_stride = stride_;
  image.run.bias = has_bias_ ? reinterpret_cast<const float*>(packed_.data()) + kh_ * kw_ * group_ * stride_ : nullptr;
  if (!act_.clamp(&image.run.lo, &image.run.hi)) {
    image.run.lo = -__builtin_inff();
    image.run.hi = __builtin_inff();
  }
  // An equal number of blocks for each thread: of three blocks the second of two threads waits for the third.
  const int64_t tall = std::max<int64_t>(1, kTask / line), fewest = (g.oh + tall - 1) / tall, threads = pool.threads();
  const int64_t blocks = std::min((fewest + threads - 1) / threads * threads, g.oh);
  pool.parallel_for(g.n * blocks, [&](int64_t task, int thread) {
    const void** table = reinterpret_cast<const void**>(static_cast<uint8_t*>(scratch) + table_bytes() * static_cast<size_t>(thread));
    const int64_t block = task % blocks;
    const int64_t begin = g.oh * block / blocks, end = g.oh * (block + 1) / blocks;
    Image part = image;
    part.run.flush = bf16_ && may_flush(image, task / blocks, begin, end);
    rows(part, task / blocks, begin, end, table);
  });
}

}  // namespace netsuke
