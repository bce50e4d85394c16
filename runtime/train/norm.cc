// Ranges and codes of whole tensors, and the fully quantized L1 normalization (docs/numerics.md section 13): integer sums of codes, two
// multiplications and additions of f32 an element.
//
//   mu = mean(v), k = floor(mu), f = mu - k        v the u8 codes of a channel
//   sum |v - mu| = P + N + (count - 2 greater) f   P = sum max(v - k, 0), N = P - (sum v - count k), greater = number of v > k
//
// so the mean deviation needs integer sums only. The saved tensor is v; xh's codes rne((v - k) slope + offset) are made again where they
// are needed. offset = -f slope, and slope <= 2 top: a channel that is not constant has a code at least half a step from its mean, and the
// furthest one has xh = top at most. So a code's three roundings leave it within 1e-4 of top, and none needs a clamp.
#include <algorithm>
#include <cmath>

#include "train/products.h"
#include "train/rows.h"

namespace netsuke {
namespace train {
namespace {

constexpr int64_t kElements = int64_t{1} << 15;  // of a task: its codes stay in the first caches
constexpr int64_t kMostRows = 1024;              // whose products of codes f32 sums exactly

int64_t rows_of_task(int64_t rows, int64_t columns) { return std::min({(rows + 63) / 64 * 64, kMostRows, std::max<int64_t>(64, kElements / columns / 64 * 64)}); }

// NormColumns for rows taken together.
struct WideColumns {
  explicit WideColumns(const NormColumns& from)
      : many(together(from.columns)), floor(repeated(from.floor, from.columns)), slope(repeated(from.slope, from.columns)),
        offset(repeated(from.offset, from.columns)), gain(repeated(from.gain, from.columns)), shift(repeated(from.shift, from.columns)),
        n{many * from.columns, floor.data(), slope.data(), offset.data(), gain.data(), shift.data()} {}
  int64_t many;
  std::vector<uint8_t> floor;
  std::vector<float> slope, offset, gain, shift;
  NormColumns n;
};

}  // namespace

Status Trainer::minmax(const float* x, int64_t count, float* out) {
  if (count < 1) return error(Code::kInvalidArgument, "a tensor without elements has no range");
  const int64_t each = std::max<int64_t>(kElements, (count + 4 * pool_.threads() - 1) / (4 * pool_.threads())), tasks = (count + each - 1) / each;
  std::vector<int32_t> low(static_cast<size_t>(tasks), INT32_MAX), high(static_cast<size_t>(tasks), INT32_MIN);
  pool_.parallel_for(tasks, [&](int64_t i, int) {
    int32_t least = INT32_MAX, most = INT32_MIN;
    table_.norm.minmax(x + i * each, std::min(each, count - i * each), &least, &most);
    low[static_cast<size_t>(i)] = least, high[static_cast<size_t>(i)] = most;
  });
  out[0] = from_order(*std::min_element(low.begin(), low.end()));
  out[1] = from_order(*std::max_element(high.begin(), high.end()));
  return Status();
}

Status Trainer::weight_codes(const float* w, int64_t rows, int64_t columns, int32_t top, int8_t* codes, float* scale) {
  if (rows < 1 || columns < 1 || top < 1 || top > 127) return error(Code::kInvalidArgument, "weights without rows, or codes outside of s8");
  pool_.parallel_for(rows, [&](int64_t row, int) {
    const float* from = w + row * columns;
    auto* to = reinterpret_cast<uint8_t*>(codes + row * columns);
    int32_t least = INT32_MAX, most = INT32_MIN;
    table_.norm.minmax(from, columns, &least, &most);
    const float low = std::fabs(from_order(least)), high = std::fabs(from_order(most));
    const float largest = (std::isnan(low) || std::isnan(high) ? 0.0f : std::max(low, high)) / static_cast<float>(top);
    scale[row] = largest > 0 ? std::max(largest, 1.17549435e-38f) : 1.0f;
    table_.quantize({from, scale + row, 1, -static_cast<float>(top), static_cast<float>(top), 128, nullptr, to, false}, 0, columns);
    for (int64_t i = 0; i < columns; ++i) to[i] ^= 0x80;
  });
  return Status();
}

Status Trainer::norm_codes(const Quantize& q, int64_t rows, int64_t columns, int64_t* sum, uint8_t* least, uint8_t* most) {
  if (rows < 1 || columns < 1) return error(Code::kInvalidArgument, "a normalization needs rows and channels");
  const int64_t each = rows_of_task(rows, columns), tasks = (rows + each - 1) / each, threads = pool_.threads();
  const int64_t many = together(columns), wide = many * columns;
  std::vector<uint8_t> low(static_cast<size_t>(threads * wide), 255), high(static_cast<size_t>(threads * wide), 0);
  std::vector<uint32_t> part(static_cast<size_t>(tasks * wide), 0);
  pool_.parallel_for(tasks, [&](int64_t i, int thread) {
    const int64_t begin = i * each, end = std::min(rows, begin + each), whole = (end - begin) / many * many;
    table_.quantize(q, begin * columns, end * columns);
    const uint8_t* codes = static_cast<const uint8_t*>(q.out) + begin * columns;
    uint32_t* to = part.data() + i * wide;
    uint8_t *l = low.data() + thread * wide, *h = high.data() + thread * wide;
    table_.norm.count(codes, whole / many, wide, to, l, h);
    if (whole < end - begin) table_.norm.count(codes + whole * columns, end - begin - whole, columns, to, l, h);
  });
  for (int64_t c = 0; c < columns; ++c) sum[c] = 0, least[c] = 255, most[c] = 0;
  for (int64_t i = 0; i < tasks * wide; ++i) sum[i % columns] += part[static_cast<size_t>(i)];
  for (int64_t i = 0; i < threads * wide; ++i) {
    const int64_t c = i % columns;
    least[c] = std::min(least[c], low[static_cast<size_t>(i)]);
    most[c] = std::max(most[c], high[static_cast<size_t>(i)]);
  }
  return Status();
}

Status Trainer::norm_above(const uint8_t* codes, int64_t rows, int64_t columns, const uint8_t* floor, int64_t* above, int64_t* greater, int64_t* equal) {
  if (rows < 1 || columns < 1) return error(Code::kInvalidArgument, "a normalization needs rows and channels");
  const int64_t each = rows_of_task(rows, columns), tasks = (rows + each - 1) / each, many = together(columns), wide = many * columns;
  const std::vector<uint8_t> floors = repeated(floor, columns);
  std::vector<uint32_t> part(static_cast<size_t>(3 * tasks * wide), 0);
  pool_.parallel_for(tasks, [&](int64_t i, int) {
    const int64_t begin = i * each, end = std::min(rows, begin + each), whole = (end - begin) / many * many;
    uint32_t* to = part.data() + 3 * i * wide;
    table_.norm.above(codes + begin * columns, whole / many, wide, floors.data(), to, to + wide, to + 2 * wide);
    if (whole == end - begin) return;
    table_.norm.above(codes + (begin + whole) * columns, end - begin - whole, columns, floor, to, to + wide, to + 2 * wide);
  });
  for (int64_t c = 0; c < columns; ++c) above[c] = greater[c] = equal[c] = 0;
  for (int64_t i = 0; i < tasks; ++i) {
    const uint32_t* from = part.data() + 3 * i * wide;
    for (int64_t w = 0; w < wide; ++w) above[w % columns] += from[w], greater[w % columns] += from[wide + w], equal[w % columns] += from[2 * wide + w];
  }
  return Status();
}

Status Trainer::norm_apply(const uint8_t* codes, int64_t rows, const NormColumns& n, float* y) {
  const int64_t each = rows_of_task(rows, n.columns);
  const WideColumns wide(n);
  pool_.parallel_for((rows + each - 1) / each, [&](int64_t i, int) {
    const int64_t begin = i * each, end = std::min(rows, begin + each), whole = (end - begin) / wide.many, at = begin * n.columns;
    table_.norm.apply(codes + at, whole, wide.n, y + at);
    const int64_t left = end - begin - whole * wide.many, behind = at + whole * wide.n.columns;
    if (left > 0) table_.norm.apply(codes + behind, left, n, y + behind);
  });
  return Status();
}

Status Trainer::norm_dot(const Quantize& q, const uint8_t* codes, int64_t rows, const NormColumns& n, int64_t* total, int64_t* dot) {
  const int64_t each = rows_of_task(rows, n.columns), tasks = (rows + each - 1) / each;
  const WideColumns wide(n);
  const int64_t width = wide.n.columns;
  std::vector<float> part(static_cast<size_t>(2 * tasks * width), 0.0f);
  pool_.parallel_for(tasks, [&](int64_t i, int) {
    const int64_t begin = i * each, end = std::min(rows, begin + each), whole = (end - begin) / wide.many, at = begin * n.columns;
    table_.quantize(q, at, end * n.columns);
    float* to = part.data() + 2 * i * width;
    const auto* gradient = static_cast<const uint8_t*>(q.out);
    table_.norm.dot(gradient + at, codes + at, whole, wide.n, q.zero, to, to + width);
    const int64_t left = end - begin - whole * wide.many, behind = at + whole * width;
    if (left > 0) table_.norm.dot(gradient + behind, codes + behind, left, n, q.zero, to, to + width);
  });
  for (int64_t c = 0; c < n.columns; ++c) total[c] = dot[c] = 0;
  for (int64_t i = 0; i < tasks; ++i) {
    const float* from = part.data() + 2 * i * width;
    for (int64_t w = 0; w < width; ++w) {
      total[w % n.columns] += static_cast<int64_t>(from[w]);
      dot[w % n.columns] += static_cast<int64_t>(from[width + w]);
    }
  }
  return Status();
}

Status Trainer::norm_gradient(const uint8_t* gradient, const uint8_t* codes, int64_t rows, const NormGradient& n, float* dx) {
  const int64_t each = rows_of_task(rows, n.columns), many = together(n.columns), width = many * n.columns;
  const std::vector<uint8_t> floor = repeated(n.floor, n.columns);
  const std::vector<float> slope = repeated(n.slope, n.columns), below = repeated(n.below, n.columns), equal = repeated(n.at, n.columns),
                           above = repeated(n.above, n.columns);
  const NormGradient wide = {width, n.zero, floor.data(), slope.data(), below.data(), equal.data(), above.data()};
  pool_.parallel_for((rows + each - 1) / each, [&](int64_t i, int) {
    const int64_t begin = i * each, end = std::min(rows, begin + each), whole = (end - begin) / many, at = begin * n.columns;
    table_.norm.gradient(gradient + at, codes + at, whole, wide, dx + at);
    const int64_t left = end - begin - whole * many, behind = at + whole * width;
    if (left > 0) table_.norm.gradient(gradient + behind, codes + behind, left, n, dx + behind);
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
