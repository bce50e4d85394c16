// How the loops of batch normalization (batch_norm.inc) are spread over a tensor: for the layer alone (batch_norm.cc) and behind a convolution
// (conv_norm.cc).
#ifndef NETSUKE_TRAIN_BATCH_NORM_H_
#define NETSUKE_TRAIN_BATCH_NORM_H_
#include <algorithm>
#include <vector>

#include "train/products.h"
#include "train/rows.h"

namespace netsuke {
namespace train {

constexpr int64_t kBlock = 64;  // rows whose sums are f32
constexpr int64_t kTaskElements = int64_t{1} << 16;

// Rows of few channels are taken together, as rows of 64 whose numbers repeat; `left` rows stay over.
struct Rows {
  Rows(int64_t rows, int64_t columns)
      : many(together(columns)), width(many * columns), wide(rows / many), left(rows % many),
        each(std::max(kBlock, kTaskElements / width / kBlock * kBlock)), tasks((wide + each - 1) / each) {}
  int64_t many, width, wide, left, each, tasks;
  int64_t begin(int64_t task) const { return task * each; }
  int64_t end(int64_t task) const { return std::min(wide, (task + 1) * each); }
};

struct Numbers {  // of wide rows
  explicit Numbers(const Rows& rows) : many(rows.many), n{rows.width, nullptr, nullptr, nullptr, nullptr, nullptr, false} {}
  const float* repeat(const float* from) {
    kept.push_back(repeated(from, n.columns / many));
    return kept.back().data();
  }
  int64_t many;
  std::vector<std::vector<float>> kept;
  BatchNormColumns n;
};

// Sums of all tasks in their order, then of the rows taken together.
inline std::vector<double> folded(const std::vector<double>& part, const Rows& rows, int64_t columns) {
  std::vector<double> wide(static_cast<size_t>(2 * rows.width), 0.0), out(static_cast<size_t>(2 * columns), 0.0);
  for (size_t i = 0; i < part.size(); ++i) wide[i % wide.size()] += part[i];
  for (int64_t i = 0; i < 2 * rows.width; ++i) out[static_cast<size_t>(i / rows.width * columns + i % rows.width % columns)] += wide[static_cast<size_t>(i)];
  return out;
}

inline Gate gate_of(const BatchNormLayer& layer, const float* y) { return !layer.relu ? Gate::kOpen : y != nullptr ? Gate::kOutput : Gate::kInput; }

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_BATCH_NORM_H_
