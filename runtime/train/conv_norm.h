// The backward pass of a convolution behind which a normalization stands, whose own dx is made block by block and never written as a whole: for the largest of
// each channel, then for codes (conv_norm.cc, conv_l1.cc).
#ifndef NETSUKE_TRAIN_CONV_NORM_H_
#define NETSUKE_TRAIN_CONV_NORM_H_
#include <cstring>

#include "train/batch_norm.h"
#include "train/scale_groups.h"

namespace netsuke {
namespace train {

constexpr int64_t kInL1 = 4096;  // elements, 16 KB

// Rows of a block: whole blocks of noise.
inline int64_t rows_in_l1(int64_t width) { return width % kNoiseBlock == 0 ? std::max<int64_t>(1, kInL1 / width) : kNoiseBlock; }

// make(first element, rows, rows taken together?, dx of the normalization).
template <typename Make>
Status Trainer::conv_gradient(const ConvNorm& c, const L1NormGradient& gradient, const Make& make, bool known, float* ranges, float* dx, bool add,
                              float* dw, Found* found) {
  const int64_t columns = c.norm.columns, count = c.norm.rows * columns;
  if (gradient.top < 1 || gradient.top > 127 || gradient.groups < 1) return error(Code::kInvalidArgument, "codes of a gradient are s8, in one group or more");
  const std::lock_guard<std::mutex> lock(codes_mutex_);
  NETSUKE_TRY(reserve(&codes_, count + kSlackBytes));
  const Rows rows(c.norm.rows, columns);
  const int64_t few = rows_in_l1(rows.width), behind = rows.wide * rows.width;
  // visit(first element, rows, one row's columns, thread, gradients of the convolution's output) for all of them.
  const auto all = [&](bool backwards, const auto& visit) {
    pool_.parallel_for(rows.tasks, [&](int64_t i, int) {
      const int64_t task = backwards ? rows.tasks - 1 - i : i;
      std::vector<float> made(static_cast<size_t>(few * rows.width));
      for (int64_t row = rows.begin(task); row < rows.end(task); row += few) {
        const int64_t at = row * rows.width, many = std::min(few, rows.end(task) - row);
        make(at, many, true, made.data());
        visit(task, at, many, rows.width, made.data());
      }
    });
    if (rows.left == 0) return;
    std::vector<float> made(static_cast<size_t>(rows.left * columns));
    make(behind, rows.left, false, made.data());
    visit(rows.tasks, behind, rows.left, columns, made.data());
  };
  if (!known) {
    std::vector<uint32_t> top(static_cast<size_t>((rows.tasks + 1) * rows.width), 0);
    all(true, [&](int64_t task, int64_t, int64_t many, int64_t width, const float* made) { table_.absmax(made, many, width, top.data() + task * rows.width); });
    std::vector<uint32_t> most(static_cast<size_t>(columns), 0);
    for (size_t i = 0; i < top.size(); ++i) {
      uint32_t& one = most[i % static_cast<size_t>(rows.width) % static_cast<size_t>(columns)];
      one = std::max(one, top[i]);
    }
    memcpy(ranges, most.data(), most.size() * sizeof(float));
  }
  std::vector<uint8_t> exponents(static_cast<size_t>(columns));
  std::vector<float> scale(static_cast<size_t>(columns)), weighted(scale);
  for (size_t o = 0; o < weighted.size(); ++o) weighted[o] = ranges[o] * c.w_scale[o];
  float largest = 0;
  *found = scale_groups(weighted.data(), columns, gradient.groups, exponents.data(), &largest) ? Found::kGradient : Found::kNotFinite;
  if (*found == Found::kNotFinite) return Status();
  if (std::all_of(ranges, ranges + columns, [](float v) { return v == 0.0f; })) {
    *found = Found::kNothing;
    if (dx != nullptr && !add) std::fill(dx, dx + c.conv.n * c.conv.h * c.conv.w * c.conv.c, 0.0f);
    if (dw != nullptr) std::fill(dw, dw + c.conv.o * c.conv.kh * c.conv.kw * (c.conv.c / c.conv.groups), 0.0f);
    return Status();
  }
  const float base = largest_scale(largest, gradient.top), most_code = static_cast<float>(gradient.top);
  for (size_t o = 0; o < scale.size(); ++o) scale[o] = std::max(scaled_down(base, exponents[o]) / c.w_scale[o], kSmallestScale);
  uint8_t* codes = codes_.data();
  all(false, [&](int64_t, int64_t at, int64_t many, int64_t width, const float* made) {
    table_.quantize({made, scale.data(), columns, -most_code, most_code, gradient.top, gradient.seed, codes + at, false, at}, 0, many * width);
  });
  const Codes gc = {codes, gradient.top, 0, 2 * gradient.top, false}, wc = {c.w, 0, -c.w_top, c.w_top, false};
  if (dx != nullptr) {
    const auto first = static_cast<size_t>(std::max_element(exponents.begin(), exponents.end()) - exponents.begin());
    const double mult = static_cast<double>(scale[first]) * static_cast<double>(c.w_scale[first]);
    NETSUKE_TRY(input_gradient(c.conv, gc, exponents.data(), wc, static_cast<float>(mult), dx, add));
  }
  if (dw == nullptr) return Status();
  std::vector<float> mult;
  for (float s : scale) mult.push_back(static_cast<float>(static_cast<double>(c.x_scale) * static_cast<double>(s)));
  return weight_gradient(c.conv, c.x, gc, mult.data(), dw);
}

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_CONV_NORM_H_
