// Batch normalization's loops of a table against the plain ones, bit for bit, special values included.
#ifndef NETSUKE_TRAIN_TEST_BATCH_NORM_H_
#define NETSUKE_TRAIN_TEST_BATCH_NORM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "train/kernels.h"

namespace netsuke {
namespace train {

// Everything one table makes of these rows.
inline std::vector<float> batch_norm_results(const BatchNorm& loops, const std::vector<float>& x, const std::vector<float>& dy, int64_t rows, int64_t columns) {
  const auto many = static_cast<size_t>(columns);
  std::vector<float> numbers(5 * many), out;
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = 0.3f * static_cast<float>(i % 7) - 0.8f;
  const float* at = numbers.data();
  const BatchNormColumns n = {columns, at, at + many, at + 2 * many, at + 3 * many, at + 4 * many, rows == 64};
  const auto keep = [&](const std::vector<float>& v) { out.insert(out.end(), v.begin(), v.end()); };
  std::vector<float> sum(many, 0.5f), other(many, -0.5f), y(x.size()), dz(x.size()), room(x.size() + 16);
  float* aligned = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64 / 4;  // where results may be streamed
  std::vector<float> low(many, INFINITY), high(many, -INFINITY);
  loops.moments(x.data(), rows, columns, x.data(), sum.data(), other.data(), nullptr, nullptr);
  keep(sum), keep(other);
  loops.moments(x.data(), rows, columns, x.data(), sum.data(), other.data(), low.data(), high.data());
  keep(sum), keep(other), keep(low), keep(high);
  for (const bool relu : {false, true}) {
    for (const float* residual : {static_cast<const float*>(nullptr), dy.data()}) {
      int32_t ends[2] = {INT32_MAX, INT32_MIN};
      loops.apply(x.data(), residual, rows, n, relu, aligned, ends, ends + 1);
      std::copy(aligned, aligned + y.size(), y.begin());
      float read[2];
      memcpy(read, ends, sizeof read);
      keep(y), keep({read[0], read[1]});
    }
  }
  for (const Gate gate : {Gate::kOpen, Gate::kInput, Gate::kOutput}) {
    const bool output = gate == Gate::kOutput;
    loops.sums(x.data(), dy.data(), output ? y.data() : nullptr, rows, n, gate, sum.data(), other.data(), output ? dz.data() : nullptr);
    keep(sum), keep(other), keep(dz);
    loops.gradient(x.data(), dy.data(), rows, n, gate, aligned);
    keep({aligned, aligned + y.size()});
  }
  return out;
}

inline void compare_batch_norm(const Table& table) {
  std::mt19937 rng(13);
  std::normal_distribution<float> value(0.5f, 2.0f);
  for (const int64_t rows : {1, 4, 7, 64}) {
    for (const int64_t columns : {1, 7, 16, 40, 64}) {
      std::vector<float> x(static_cast<size_t>(rows * columns)), dy(x);
      for (float& v : x) v = value(rng);
      for (float& v : dy) v = value(rng);
      if (columns == 40) x[3] = INFINITY, dy[5] = -INFINITY, x[6] = 0.0f, dy[7] = -0.0f, x.back() = NAN;
      const std::vector<float> a = batch_norm_results(train_kernels_portable.batch_norm, x, dy, rows, columns);
      const std::vector<float> b = batch_norm_results(table.batch_norm, x, dy, rows, columns);
      bool same = a.size() == b.size();
      for (size_t i = 0; same && i < a.size(); ++i) same = memcmp(&a[i], &b[i], sizeof a[i]) == 0 || (std::isnan(a[i]) && std::isnan(b[i]));
      CHECK(same);
    }
  }
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_TEST_BATCH_NORM_H_
