// What training in few bits does to whole tensors beside the products (nn/integer_range.py, nn/integer_samples.py): where an input's codes
// clip it, and the input gradient of samples that were scaled by powers of two; and shortcuts without parameters. One pass over memory each, which
// sets the pace.
#include <algorithm>

#include "train/products.h"

namespace netsuke {
namespace train {
namespace {

constexpr int64_t kElements = int64_t{1} << 15;  // of a task

void outside_part(const float* __restrict x, int64_t count, float low, float high, uint8_t* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = static_cast<uint8_t>((x[i] > high) | (x[i] < low));
}

void settle_part(float* __restrict dx, const uint8_t* __restrict outside, int64_t count, float factor) {
  if (outside == nullptr) {
    for (int64_t i = 0; i < count; ++i) dx[i] *= factor;
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const float v = dx[i] * factor;
    dx[i] = outside[i] != 0 ? 0.0f : v;
  }
}

}  // namespace

Status Trainer::outside(const float* x, int64_t count, float low, float high, uint8_t* y) {
  if (count < 0) return error(Code::kInvalidArgument, "a size is negative");
  pool_.parallel_for((count + kElements - 1) / kElements, [&](int64_t i, int) {
    const int64_t begin = i * kElements;
    outside_part(x + begin, std::min(kElements, count - begin), low, high, y + begin);
  });
  return Status();
}

Status Trainer::settle_gradient(float* dx, const uint8_t* outside, const float* factor, int64_t samples, int64_t each) {
  if (samples < 1 || each < 0) return error(Code::kInvalidArgument, "a gradient has samples");
  const int64_t parts = std::max<int64_t>(1, (each + kElements - 1) / kElements);
  pool_.parallel_for(samples * parts, [&](int64_t i, int) {
    const int64_t sample = i / parts, begin = i % parts * kElements, at = sample * each + begin;
    settle_part(dx + at, outside == nullptr ? nullptr : outside + at, std::min(kElements, each - begin), factor[sample]);
  });
  return Status();
}

Status Trainer::subsample(const Subsample& s, const float* x, float* y) {
  const int64_t oh = s.oh(), ow = s.ow(), wide = s.before + s.c + s.after;
  pool_.parallel_for(s.n * oh, [&](int64_t row, int) {
    const float* from = x + (row / oh * s.h + row % oh * s.step) * s.w * s.c;
    float* to = y + row * ow * wide;
    for (int64_t i = 0; i < ow; ++i, from += s.step * s.c, to += wide) {
      std::fill(to, to + s.before, 0.0f);
      std::copy(from, from + s.c, to + s.before);
      std::fill(to + s.before + s.c, to + wide, 0.0f);
    }
  });
  return Status();
}

Status Trainer::add_subsampled(const Subsample& s, const float* dy, float* dx) {
  const int64_t oh = s.oh(), ow = s.ow(), wide = s.before + s.c + s.after;
  pool_.parallel_for(s.n * oh, [&](int64_t row, int) {
    const float* from = dy + row * ow * wide + s.before;
    float* to = dx + (row / oh * s.h + row % oh * s.step) * s.w * s.c;
    for (int64_t i = 0; i < ow; ++i, from += wide, to += s.step * s.c) {
      for (int64_t c = 0; c < s.c; ++c) to[c] += from[c];
    }
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
