// Batch normalization with what stands behind it, a residual and ReLU, forward and backward in two passes each (docs/numerics.md
// section 13):
//
//   y = max(x f + s + residual, 0)           f = gamma / sqrt(var + eps), s = beta - mean f
//   dz = dy where y > 0                      the residual's gradient
//   dx = dz f + (x a + b)                    a = -f inverse dot / M, b = -f total / M - mean a;  total = sum dz, dot = sum dz xh
//
// Sums run in f32 over 64 rows and in binary64, in the order of the rows, over what these give; so every number of threads and every
// instruction set gives the same bits. The sums of squares are taken around the first row of their block, the blocks' then around the
// tensor's first row, exactly enough in binary64: a mean far from 0 costs nothing.
// Without a residual the ReLU's side follows from x again (the same two f32 operations as forward), so y is not read; with one, the
// first backward pass writes dz, which the second reads instead of dy and y.
#include "train/batch_norm.h"

#include <cmath>

namespace netsuke {
namespace train {

Status Trainer::norm_moments(const BatchNormLayer& layer, const float* x, float* affine, double* moments, float* ends) {
  const int64_t columns = layer.columns;
  if (layer.rows < 1 || columns < 1) return error(Code::kInvalidArgument, "a normalization needs rows and channels");
  const Rows rows(layer.rows, columns);
  const auto width = static_cast<size_t>(rows.width);
  std::vector<double> part(2 * width * static_cast<size_t>(rows.tasks), 0.0);
  std::vector<float> range;  // of a task's columns: smallest, largest
  for (int64_t i = 0; ends != nullptr && i < 2 * (rows.tasks + 1); ++i) range.insert(range.end(), width, i % 2 == 0 ? INFINITY : -INFINITY);
  pool_.parallel_for(rows.tasks, [&](int64_t task, int) {
    double *total = part.data() + 2 * width * static_cast<size_t>(task), *squares = total + width;
    float* low = ends == nullptr ? nullptr : range.data() + 2 * width * static_cast<size_t>(task);
    std::vector<float> sums(2 * width);
    for (int64_t row = rows.begin(task); row < rows.end(task); row += kBlock) {
      const int64_t count = std::min(kBlock, rows.end(task) - row);
      const float* centre = x + row * rows.width;
      std::fill(sums.begin(), sums.end(), 0.0f);
      table_.batch_norm.moments(centre, count, rows.width, centre, sums.data(), sums.data() + width, low, low == nullptr ? nullptr : low + width);
      for (int64_t i = 0, c = 0; i < rows.width; ++i, c = c + 1 == columns ? 0 : c + 1) {
        const double away = static_cast<double>(centre[i]) - static_cast<double>(x[c]), sum = static_cast<double>(sums[static_cast<size_t>(i)]);
        total[i] += sum + static_cast<double>(count) * away;
        squares[i] += static_cast<double>(sums[width + static_cast<size_t>(i)]) + away * (2 * sum + static_cast<double>(count) * away);
      }
    }
  });
  std::vector<double> sums = folded(part, rows, columns);
  for (int64_t i = rows.wide * rows.width; i < layer.rows * columns; ++i) {
    const auto c = static_cast<size_t>(i % columns);
    const double away = static_cast<double>(x[i]) - static_cast<double>(x[c]);
    sums[c] += away, sums[static_cast<size_t>(columns) + c] += away * away;
    if (ends == nullptr) continue;
    float* last = range.data() + 2 * width * static_cast<size_t>(rows.tasks) + c;
    last[0] = std::min(last[0], x[i]), last[width] = std::max(last[width], x[i]);
  }
  const auto count = static_cast<double>(layer.rows);
  for (int64_t c = 0; c < columns; ++c) {
    const double away = sums[static_cast<size_t>(c)] / count, mean = static_cast<double>(x[c]) + away;
    const double spread = sums[static_cast<size_t>(columns + c)] / count - away * away, variance = spread < 0 ? 0 : spread;
    const double gamma = layer.weight != nullptr ? static_cast<double>(layer.weight[c]) : 1.0, beta = layer.bias != nullptr ? static_cast<double>(layer.bias[c]) : 0.0;
    const double factor = gamma / std::sqrt(variance + layer.eps);
    moments[c] = mean, moments[columns + c] = variance;
    affine[c] = static_cast<float>(factor), affine[columns + c] = static_cast<float>(beta - mean * factor);
    const auto follow = [&](float* running, double found) {
      if (running != nullptr) running[c] = running[c] * static_cast<float>(1 - layer.share) + static_cast<float>(layer.share) * static_cast<float>(found);
    };
    follow(layer.running_mean, mean), follow(layer.running_var, variance * (count / (count - 1)));
  }
  if (ends == nullptr) return Status();
  // x f + s rounds monotonically, so the ends of y are those of some channel. A NaN among x is in its channel's mean, hence in f.
  int32_t least = INT32_MAX, most = INT32_MIN;
  for (int64_t w = 0; w < 2 * rows.width * (rows.tasks + 1); ++w) {
    const int64_t c = w % rows.width % columns;
    if (std::isinf(range[static_cast<size_t>(w)]) && std::isfinite(affine[c])) continue;  // a task without rows
    const float v = range[static_cast<size_t>(w)] * affine[c] + affine[columns + c];
    const int32_t order = to_order(layer.relu && v < 0.0f ? 0.0f : v);
    least = std::min(least, order), most = std::max(most, order);
  }
  ends[0] = from_order(least), ends[1] = from_order(most);
  return Status();
}

Status Trainer::norm_apply(const BatchNormLayer& layer, const float* x, const float* residual, const float* affine, float* y, float* ends) {
  const int64_t columns = layer.columns;
  const Rows rows(layer.rows, columns);
  Numbers numbers(rows);
  numbers.n.factor = numbers.repeat(affine), numbers.n.shift = numbers.repeat(affine + columns);
  numbers.n.stream = layer.rows * columns >= kPastCaches;
  std::vector<int32_t> low(static_cast<size_t>(rows.tasks) + 1, INT32_MAX), high(low.size(), INT32_MIN);
  pool_.parallel_for(rows.tasks, [&](int64_t i, int) {
    const int64_t task = rows.tasks - 1 - i, at = rows.begin(task) * rows.width;  // what was read last may still be near
    const auto t = static_cast<size_t>(task);
    int32_t least = INT32_MAX, most = INT32_MIN;
    table_.batch_norm.apply(x + at, residual == nullptr ? nullptr : residual + at, rows.end(task) - rows.begin(task), numbers.n, layer.relu, y + at,
                            &least, &most);
    low[t] = least, high[t] = most;
  });
  if (rows.left > 0) {
    const int64_t at = rows.wide * rows.width;
    const BatchNormColumns narrow = {columns, affine, affine + columns, nullptr, nullptr, nullptr, false};
    table_.batch_norm.apply(x + at, residual == nullptr ? nullptr : residual + at, rows.left, narrow, layer.relu, y + at, &low.back(), &high.back());
  }
  ends[0] = from_order(*std::min_element(low.begin(), low.end()));
  ends[1] = from_order(*std::max_element(high.begin(), high.end()));
  return Status();
}

Status Trainer::batch_norm(const BatchNormLayer& layer, const float* x, const float* residual, float* y, float* affine, double* moments, float* ends) {
  NETSUKE_TRY(norm_moments(layer, x, affine, moments, nullptr));
  return norm_apply(layer, x, residual, affine, y, ends);
}

// The first pass backward: dz where y is given, what both parameters get, and what the second pass needs.
Status Trainer::norm_sums(const BatchNormLayer& layer, const float* x, const float* dy, const float* y, const float* affine, const double* moments,
                          float* dz, float* dweight, float* dbias, float* slope, float* offset) {
  const int64_t columns = layer.columns;
  if (layer.rows < 1 || columns < 1) return error(Code::kInvalidArgument, "a normalization needs rows and channels");
  if (y != nullptr && (!layer.relu || dz == nullptr)) return error(Code::kInvalidArgument, "the output is for a ReLU whose gradient is wanted");
  const Rows rows(layer.rows, columns);
  const auto width = static_cast<size_t>(rows.width);
  const Gate gate = gate_of(layer, y);
  std::vector<float> mean(static_cast<size_t>(columns));
  for (size_t c = 0; c < mean.size(); ++c) mean[c] = static_cast<float>(moments[c]);
  Numbers numbers(rows);
  numbers.n.factor = numbers.repeat(affine), numbers.n.shift = numbers.repeat(affine + columns);
  numbers.n.mean = numbers.repeat(mean.data());
  std::vector<double> part(2 * width * static_cast<size_t>(rows.tasks + 1), 0.0);  // the rows that stay over last
  const auto add = [&](int64_t row_begin, int64_t row_end, int64_t at, const BatchNormColumns& n, double* to) {
    std::vector<float> sums(2 * width);
    for (int64_t row = row_begin; row < row_end; row += kBlock) {
      const int64_t from = at + row * n.columns;
      std::fill(sums.begin(), sums.end(), 0.0f);
      table_.batch_norm.sums(x + from, dy + from, y == nullptr ? nullptr : y + from, std::min(kBlock, row_end - row), n, gate, sums.data(),
                             sums.data() + width, y == nullptr ? nullptr : dz + from);
      for (size_t i = 0; i < 2 * width; ++i) to[i] += static_cast<double>(sums[i]);
    }
  };
  pool_.parallel_for(rows.tasks, [&](int64_t task, int) {
    add(rows.begin(task), rows.end(task), 0, numbers.n, part.data() + 2 * width * static_cast<size_t>(task));
  });
  const BatchNormColumns narrow = {columns, affine, affine + columns, mean.data(), nullptr, nullptr, false};
  const int64_t behind = rows.wide * rows.width;
  if (rows.left > 0) add(0, rows.left, behind, narrow, part.data() + 2 * width * static_cast<size_t>(rows.tasks));
  const std::vector<double> sums = folded(part, rows, columns);
  const auto count = static_cast<double>(layer.rows);
  for (int64_t c = 0; c < columns; ++c) {
    const auto i = static_cast<size_t>(c);
    const double gamma = layer.weight != nullptr ? static_cast<double>(layer.weight[c]) : 1.0, inverse = 1 / std::sqrt(moments[columns + c] + layer.eps);
    const double total = sums[i], dot = (sums[static_cast<size_t>(columns) + i] + (static_cast<double>(mean[i]) - moments[c]) * total) * inverse;
    const double factor = gamma * inverse, pull = -factor * inverse * dot / count;
    slope[i] = static_cast<float>(pull), offset[i] = static_cast<float>(-factor * total / count - moments[c] * pull);
    dweight[c] = static_cast<float>(dot), dbias[c] = static_cast<float>(total);
  }
  return Status();
}

Status Trainer::batch_norm_gradient(const BatchNormLayer& layer, const float* x, const float* dy, const float* y, const float* affine,
                                    const double* moments, float* dz, float* dx, float* dweight, float* dbias) {
  std::vector<float> slope(static_cast<size_t>(layer.columns)), offset(slope);
  NETSUKE_TRY(norm_sums(layer, x, dy, y, affine, moments, dz, dweight, dbias, slope.data(), offset.data()));
  if (dx == nullptr) return Status();
  const int64_t columns = layer.columns;
  const Rows rows(layer.rows, columns);
  const Gate gate = gate_of(layer, y);
  Numbers numbers(rows);
  numbers.n.factor = numbers.repeat(affine), numbers.n.shift = numbers.repeat(affine + columns);
  numbers.n.slope = numbers.repeat(slope.data()), numbers.n.offset = numbers.repeat(offset.data());
  numbers.n.stream = layer.rows * columns >= kPastCaches;
  const float* g = y != nullptr ? dz : dy;
  pool_.parallel_for(rows.tasks, [&](int64_t i, int) {
    const int64_t task = rows.tasks - 1 - i, at = rows.begin(task) * rows.width;
    table_.batch_norm.gradient(x + at, g + at, rows.end(task) - rows.begin(task), numbers.n, gate, dx + at);
  });
  const int64_t behind = rows.wide * rows.width;
  const BatchNormColumns narrow = {columns, affine, affine + columns, nullptr, slope.data(), offset.data(), false};
  if (rows.left > 0) table_.batch_norm.gradient(x + behind, g + behind, rows.left, narrow, gate, dx + behind);
  return Status();
}

}  // namespace train
}  // namespace netsuke
