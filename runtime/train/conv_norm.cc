// A convolution with batch normalization (and ReLU) behind it as one step of training, forward and backward (docs/numerics.md section 13). The
// numbers are those of the single calls, bit for bit; what stands between them leaves memory:
//
//   forward   behind a normalization without a residual the next convolution's range is known before y is (x f + s is monotone), so that y
//             becomes codes without being written
//   backward  dx of the normalization is made twice, from x and dz: for the largest of each channel, then for codes. A block of it stays in L1,
//             and 2 readings cost less than writing and reading it: the tensor would leave the caches to the other two.
#include "train/conv_norm.h"

namespace netsuke {
namespace train {

Status Trainer::conv_codes(const ConvNorm& c, const float* weights, int8_t* w, float* w_scale, float* z) {
  NETSUKE_TRY(weight_codes(weights, c.conv.o, c.conv.kh * c.conv.kw * (c.conv.c / c.conv.groups), c.w_top, w, w_scale));
  std::vector<float> mult;
  for (int64_t o = 0; o < c.conv.o; ++o) mult.push_back(static_cast<float>(static_cast<double>(c.x_scale) * static_cast<double>(w_scale[o])));
  return forward(c.conv, c.x, {w, 0, -c.w_top, c.w_top, false}, mult.data(), nullptr, z);
}

Status Trainer::conv_norm(const ConvNorm& c, const float* weights, int8_t* w, float* w_scale, float* z, float* affine, double* moments, float* ends) {
  NETSUKE_TRY(conv_codes(c, weights, w, w_scale, z));
  return norm_moments(c.norm, z, affine, moments, ends);
}

Status Trainer::norm_codes(const BatchNormLayer& layer, const float* x, const float* affine, const Quantize& codes) {
  const int64_t columns = layer.columns;
  const Rows rows(layer.rows, columns);
  Numbers numbers(rows);
  numbers.n.factor = numbers.repeat(affine), numbers.n.shift = numbers.repeat(affine + columns);
  const BatchNormColumns narrow = {columns, affine, affine + columns, nullptr, nullptr, nullptr, false};
  const auto block = [&](int64_t at, int64_t many, const BatchNormColumns& n, float* y) {
    int32_t least = INT32_MAX, most = INT32_MIN;
    table_.batch_norm.apply(x + at, nullptr, many, n, layer.relu, y, &least, &most);
    Quantize q = codes;
    q.x = y, q.out = static_cast<uint8_t*>(codes.out) + at, q.start = at;
    table_.quantize(q, 0, many * n.columns);
  };
  const int64_t few = rows_in_l1(rows.width);
  pool_.parallel_for(rows.tasks, [&](int64_t i, int) {
    const int64_t task = rows.tasks - 1 - i;  // what was read last may still be near
    std::vector<float> y(static_cast<size_t>(few * rows.width));
    for (int64_t row = rows.begin(task); row < rows.end(task); row += few) block(row * rows.width, std::min(few, rows.end(task) - row), numbers.n, y.data());
  });
  std::vector<float> y(static_cast<size_t>(rows.left * columns));
  if (rows.left > 0) block(rows.wide * rows.width, rows.left, narrow, y.data());
  return Status();
}

Status Trainer::conv_norm_gradient(const ConvNorm& c, const float* dy, const float* y, const L1NormGradient& gradient, float* dz, float* dweight, float* dbias,
                                   float* ranges, float* dx, bool add, float* dw, Found* found) {
  const int64_t columns = c.norm.columns;
  std::vector<float> slope(static_cast<size_t>(columns)), offset(slope);
  NETSUKE_TRY(norm_sums(c.norm, c.z, dy, y, c.affine, c.moments, dz, dweight, dbias, slope.data(), offset.data()));
  const Rows rows(c.norm.rows, columns);
  const Gate gate = gate_of(c.norm, y);
  Numbers numbers(rows);
  numbers.n.factor = numbers.repeat(c.affine), numbers.n.shift = numbers.repeat(c.affine + columns);
  numbers.n.slope = numbers.repeat(slope.data()), numbers.n.offset = numbers.repeat(offset.data());
  const BatchNormColumns narrow = {columns, c.affine, c.affine + columns, nullptr, slope.data(), offset.data(), false};
  const float* g = y != nullptr ? dz : dy;
  return conv_gradient(c, gradient, [&](int64_t at, int64_t many, bool wide, float* made) {
    table_.batch_norm.gradient(c.z + at, g + at, many, wide ? numbers.n : narrow, gate, made);
  }, false, ranges, dx, add, dw, found);
}

}  // namespace train
}  // namespace netsuke
