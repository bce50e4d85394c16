// A convolution with the quantized L1 normalization behind it as one step of training (conv_norm.cc has the same with batch normalization). The numbers are
// those of the single calls, bit for bit:
//
//   forward   what the convolution gave is kept as the normalization's codes only; y becomes the next convolution's codes without being written, or is
//             written once, with the addition and ReLU behind it
//   backward  dx of the normalization is made from two codes for the convolution's codes and never written; the largest of each channel follows from the
//             smallest and largest codes
#include "train/conv_norm.h"
#include "train/norm.h"

namespace netsuke {
namespace train {

Status Trainer::conv_l1(const ConvNorm& c, const L1NormLayer& layer, const float* weights, int8_t* w, float* w_scale, float* z, uint8_t* codes,
                        double* numbers, float* statistics, float* ends, bool* finite) {
  NETSUKE_TRY(conv_codes(c, weights, w, w_scale, z));
  return l1_numbers(layer, z, codes, numbers, statistics, ends, finite);
}

// visit(first element, rows, a row's columns, what the normalization gives for them), a few rows at a time; a task's are handed to one thread.
template <typename Visit>
void Trainer::l1_blocks(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, const Visit& visit) {
  const Tasks tasks(layer.rows, layer.columns);
  const ApplyColumns apply(layer, numbers);
  pool_.parallel_for(tasks.count, [&](int64_t i, int thread) {
    std::vector<float> made(static_cast<size_t>(rows_in_l1(tasks.width) * tasks.width));
    tasks.run(tasks.count - 1 - i, [&](int64_t begin, int64_t rows, bool several) {
      const NormColumns n = several ? apply.wide(false) : apply.narrow();
      const int64_t few = rows_in_l1(tasks.width);
      for (int64_t row = 0; row < rows; row += few) {
        const int64_t at = begin + row * n.columns, many = std::min(few, rows - row);
        table_.norm.apply(codes + at, many, n, made.data());
        visit(at, many, n.columns, made.data(), thread);
      }
    });
  });
}

Status Trainer::l1_add(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, const float* residual, bool relu, float* y, float* ends) {
  const auto width = static_cast<size_t>(together(layer.columns) * layer.columns);
  const std::vector<float> one(width, 1.0f), none(width, -0.0f);  // x * 1 + -0 is x, also where x is -0
  std::vector<int32_t> low(static_cast<size_t>(pool_.threads()) * 16, INT32_MAX), high(low.size(), INT32_MIN);
  l1_blocks(layer, codes, numbers, [&](int64_t at, int64_t rows, int64_t columns, const float* made, int thread) {
    const BatchNormColumns n = {columns, one.data(), none.data(), nullptr, nullptr, nullptr, layer.rows * layer.columns >= kPastCaches};
    table_.batch_norm.apply(made, residual + at, rows, n, relu, y + at, &low[static_cast<size_t>(thread) * 16], &high[static_cast<size_t>(thread) * 16]);
  });
  ends[0] = from_order(*std::min_element(low.begin(), low.end()));
  ends[1] = from_order(*std::max_element(high.begin(), high.end()));
  return Status();
}

Status Trainer::l1_codes(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, const Quantize& q) {
  l1_blocks(layer, codes, numbers, [&](int64_t at, int64_t rows, int64_t columns, const float* made, int) {
    Quantize block = q;
    block.x = made, block.out = static_cast<uint8_t*>(q.out) + at, block.start = at;
    table_.quantize(block, 0, rows * columns);
  });
  return Status();
}

// dz = dy where y > 0 or NaN.
void Trainer::gate_output(const float* dy, const float* y, int64_t count, float* dz) {
  pool_.parallel_for((count + kElements - 1) / kElements, [&](int64_t i, int) {
    const int64_t at = i * kElements;
    table_.norm.gated(dy + at, y + at, std::min(kElements, count - at), dz + at);
  });
}

Status Trainer::conv_l1_gradient(const ConvNorm& c, const uint8_t* codes, const double* numbers, const float* dy, const float* y,
                                 const L1NormGradient& norm_gradient, const L1NormGradient& gradient, float* dz, uint8_t* q_codes, float* sums, float* ranges,
                                 float* dx, bool add, float* dw, Found* found) {
  const int64_t rows = c.norm.rows, columns = c.norm.columns;
  if (y != nullptr && dz == nullptr) return error(Code::kInvalidArgument, "the output is for a ReLU whose gradient is wanted");
  if (y != nullptr) gate_output(dy, y, rows * columns, dz);
  bool finite = false;
  L1Gradient made;
  NETSUKE_TRY(l1_sums(rows, columns, y != nullptr ? dz : dy, codes, numbers, norm_gradient, q_codes, sums, &made, ranges, &finite));
  *found = Found::kNotFinite;
  if (!finite) return Status();
  const NormGradient narrow = made.columns(columns, norm_gradient.top, false), wide = made.columns(together(columns) * columns, norm_gradient.top, false);
  return conv_gradient(c, gradient, [&](int64_t at, int64_t many, bool several, float* to) {
    table_.norm.gradient(q_codes + at, codes + at, many, several ? wide : narrow, to);
  }, true, ranges, dx, add, dw, found);
}

}  // namespace train
}  // namespace netsuke
