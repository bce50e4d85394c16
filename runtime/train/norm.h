// How the loops of the quantized L1 normalization (norm.inc) are spread over a tensor, and what they read: for the layer alone (norm.cc) and behind a
// convolution (conv_l1.cc).
#ifndef NETSUKE_TRAIN_NORM_H_
#define NETSUKE_TRAIN_NORM_H_
#include <algorithm>
#include <cstring>
#include <vector>

#include "train/products.h"
#include "train/rows.h"

namespace netsuke {
namespace train {

constexpr int64_t kElements = int64_t{1} << 15;  // of a task: its codes stay in the first caches

// Elements, 8 MB: results as large are written past the caches, in order, which saves reading what they overwrite (0.28 ns an element instead of
// 0.39). A ReLU behind that reads 4 MB back loses as much as this gains (Zen 5: 0.10 ns instead of
// 0.08), with 8 MB and more both are faster.
constexpr int64_t kStreamed = int64_t{1} << 21;

// Rows in tasks of whole blocks of noise; rows of few channels are taken together.
struct Tasks {
  Tasks(int64_t all, int64_t channels)
      : rows(all), columns(channels), width(together(channels) * channels), many(together(channels)),
        each(std::min(kMostDotRows, std::max<int64_t>(64, kElements / channels / 64 * 64))), count((all + each - 1) / each) {}
  // body(first element, rows, taken together?) of task i, once or, where rows stay over, twice.
  template <typename Body>
  void run(int64_t i, const Body& body) const {
    const int64_t begin = i * each, size = std::min(rows - begin, each), whole = size / many, left = size % many;
    if (whole > 0) body(begin * columns, whole, true);
    if (left > 0) body(begin * columns + whole * width, left, false);
  }
  int64_t end(int64_t i) const { return std::min(rows, (i + 1) * each) * columns; }
  int64_t rows, columns, width, many, each, count;
};

// Integer sums of a thread in every column of rows taken together: `kinds` arrays. Threads share no line.
struct Sums {
  Sums(int kinds, int64_t width, int threads)
      : wide(width), stride((kinds * width + 15) / 8 * 8), all(static_cast<size_t>(stride * threads), 0) {}
  int64_t* of(int thread, int kind = 0) { return all.data() + thread * stride + kind * wide; }
  std::vector<int64_t> total(int kind, int64_t columns) const {
    std::vector<int64_t> out(static_cast<size_t>(columns), 0);
    for (size_t from = static_cast<size_t>(kind * wide); from < all.size(); from += static_cast<size_t>(stride)) {
      for (int64_t w = 0; w < wide; w += columns) {
        for (int64_t c = 0; c < columns; ++c) out[static_cast<size_t>(c)] += all[from + static_cast<size_t>(w + c)];
      }
    }
    return out;
  }
  int64_t wide, stride;
  std::vector<int64_t> all;
};

// A channel's numbers as the loops read them: of one row, and of rows taken together.
template <typename T>
struct Repeated {
  Repeated() = default;
  Repeated(const double* from, int64_t columns) : one(from, from + columns), many(repeated(one.data(), columns)) {}
  std::vector<T> one, many;
};
struct FormColumns {
  FormColumns(const double* numbers, int64_t columns)
      : floor(numbers + kFloor * columns, columns), slope(numbers + kSlope * columns, columns), offset(numbers + kOffset * columns, columns),
        narrow{columns, floor.one.data(), slope.one.data(), offset.one.data(), nullptr, nullptr},
        wide{together(columns) * columns, floor.many.data(), slope.many.data(), offset.many.data(), nullptr, nullptr} {
    narrow.bytes = wide.bytes = numbers[kStep * columns] >= 0x1p-126;  // a scale of fewer bits may be too small by half
  }
  Repeated<uint8_t> floor;
  Repeated<float> slope, offset;
  NormColumns narrow, wide;
};

// What y is made of.
class ApplyColumns {
 public:
  ApplyColumns(const L1NormLayer& layer, const double* numbers) : form_(numbers, layer.columns), shift_(repeated(layer.bias, layer.columns)) {
    for (int64_t c = 0; c < layer.columns; ++c) gain_.push_back(static_cast<float>(numbers[kWeight * layer.columns + c] * numbers[kStep * layer.columns + c]));
    gain_ = repeated(gain_.data(), layer.columns);
    for (NormColumns* n : {&form_.narrow, &form_.wide}) {
      n->gain = gain_.data(), n->shift = shift_.data();
      if (layer.relu) n->least = 0;
    }
  }
  NormColumns narrow() const { return form_.narrow; }
  NormColumns wide(bool stream) const {
    NormColumns n = form_.wide;
    n.stream = stream;
    return n;
  }

 private:
  FormColumns form_;
  std::vector<float> gain_, shift_;
};

// Of a thread's rows: smallest and largest code of the gradient beside codes below, at and above floor, [3][2] of a row's columns (Norm::ends), rows taken
// together and single ones apart.
class SideEnds {
 public:
  SideEnds(int64_t columns, int threads)
      : sizes_{together(columns) * columns, columns}, stride_(6 * (sizes_[0] + sizes_[1]) + 64), all_(static_cast<size_t>(stride_ * threads)) {
    visit([](uint8_t* end, bool low, int64_t, int64_t) { *end = low ? 255 : 0; });
  }
  uint8_t* of(int thread, bool several) { return all_.data() + thread * stride_ + (several ? 0 : 6 * sizes_[0]); }
  std::vector<uint8_t> total() {
    const int64_t columns = sizes_[1];
    std::vector<uint8_t> out(static_cast<size_t>(6 * columns));
    for (int64_t i = 0; i < 6 * columns; ++i) out[static_cast<size_t>(i)] = i / columns % 2 == 0 ? 255 : 0;
    visit([&](const uint8_t* end, bool low, int64_t kind, int64_t column) {
      uint8_t& one = out[static_cast<size_t>(kind * columns + column % columns)];
      one = low ? std::min(one, *end) : std::max(one, *end);
    });
    return out;
  }

 private:
  template <typename Body>
  void visit(const Body& body) {
    for (uint8_t* from = all_.data(); from < all_.data() + all_.size(); from += stride_) {
      uint8_t* end = from;
      for (const int64_t size : sizes_) {
        for (int64_t i = 0; i < 6 * size; ++i, ++end) body(end, i / size % 2 == 0, i / size, i % size);
      }
    }
  }
  int64_t sizes_[2], stride_;
  std::vector<uint8_t> all_;
};

// What dx is made of, as the loops read it: one row is the first of many.
struct L1Gradient {
  // The largest |dx| of every column, from SideEnds: dx is monotone in the gradient's code.
  void largest(int64_t columns, int32_t zero, const std::vector<uint8_t>& ends, float* out) const {
    const auto size = static_cast<size_t>(columns);
    for (size_t c = 0; c < size; ++c) {
      uint32_t most = 0;
      for (size_t side = 0; side < 3; ++side) {
        const uint8_t low = ends[2 * side * size + c], high = ends[(2 * side + 1) * size + c];
        for (const uint8_t code : {low, high}) {
          const float v = static_cast<float>(code - zero) * slope[c] - (side == 0 ? below : side == 1 ? at : above)[c];
          uint32_t bits;
          memcpy(&bits, &v, sizeof bits);
          if (low <= high) most = std::max(most, bits & 0x7FFFFFFFu);
        }
      }
      memcpy(out + c, &most, sizeof most);
    }
  }
  std::vector<uint8_t> floor;
  std::vector<float> slope, below, at, above;
  NormGradient columns(int64_t count, int32_t zero, bool stream) const {
    return {count, zero, floor.data(), slope.data(), below.data(), at.data(), above.data(), stream};
  }
};

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_NORM_H_
