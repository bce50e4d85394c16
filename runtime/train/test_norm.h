// The quantized L1 normalization's loops of a table against plain ones, bit for bit, and codes whose noise and scales wrap inside a block.
#ifndef NETSUKE_TRAIN_TEST_NORM_H_
#define NETSUKE_TRAIN_TEST_NORM_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "train/kernels.h"

namespace netsuke {
namespace train {

struct NormCase {
  NormCase(int64_t r, int64_t c, uint32_t seed) : rows(r), columns(c), codes(static_cast<size_t>(r * c)), gradient(codes.size()), floor(static_cast<size_t>(c)) {
    std::mt19937 rng(seed);
    std::uniform_real_distribution<float> value(-1.0f, 1.0f);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(rng() % 256), gradient[i] = static_cast<uint8_t>(rng() % 255);
    for (auto& v : floor) v = static_cast<uint8_t>(rng() % 256);
    for (auto* v : {&slope, &offset, &gain, &shift}) {
      for (int64_t i = 0; i < c; ++i) v->push_back(value(rng));
    }
    for (float& v : slope) v *= 0.4f;  // xh within what backward's 16 bits hold
    n = {columns, floor.data(), slope.data(), offset.data(), gain.data(), shift.data(), r % 2 == 0};
  }
  float xh(int64_t i) const {
    const auto c = static_cast<size_t>(i % columns);
    return std::nearbyint(static_cast<float>(codes[static_cast<size_t>(i)] - floor[c]) * slope[c] + offset[c]);
  }
  int64_t rows, columns;
  std::vector<uint8_t> codes, gradient, floor;
  std::vector<float> slope, offset, gain, shift;
  NormColumns n;
};

inline void compare_norm_counts(const Norm& loops, const NormCase& t) {
  const auto size = static_cast<size_t>(t.columns);
  std::vector<int64_t> sum(size, 3), above(size, 4), greater(size, 5), equal(size, 6), want_sum(sum), want_above(above), want_greater(greater), want_equal(equal);
  std::vector<uint8_t> least(size, 200), most(size, 9), want_least(least), want_most(most);
  std::vector<uint32_t> distance(size, 7), want_distance(distance);
  loops.count(t.codes.data(), t.rows, t.columns, sum.data(), least.data(), most.data());
  loops.above(t.codes.data(), t.rows, t.columns, t.floor.data(), above.data(), greater.data(), equal.data());
  loops.distance(t.codes.data(), t.rows, t.columns, 77, distance.data());
  for (size_t i = 0; i < t.codes.size(); ++i) {
    const size_t c = i % size;
    const int over = t.codes[i] - t.floor[c];
    want_sum[c] += t.codes[i];
    want_least[c] = std::min(want_least[c], t.codes[i]), want_most[c] = std::max(want_most[c], t.codes[i]);
    want_above[c] += std::max(over, 0), want_greater[c] += over > 0, want_equal[c] += over == 0;
    want_distance[c] += static_cast<uint32_t>(std::abs(t.codes[i] - 77));
  }
  CHECK(sum == want_sum && least == want_least && most == want_most);
  CHECK(above == want_above && greater == want_greater && equal == want_equal);
  CHECK(distance == want_distance);
}

inline void compare_norm_passes(const Norm& loops, const NormCase& t, bool exact) {
  const auto size = static_cast<size_t>(t.columns);
  std::vector<float> room(t.codes.size() + 16), at(exact ? t.gain : t.offset);
  float* out = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64 / 4;  // where results may be streamed
  std::vector<int32_t> total(size, 1), dot(size, 2), want_total(total), want_dot(dot);
  bool same = true;
  for (const float least : {-INFINITY, 0.0f}) {
    NormColumns n = t.n;
    n.least = least;
    loops.apply(t.codes.data(), t.rows, n, out);
    for (size_t i = 0; i < t.codes.size(); ++i) {
      const float v = t.xh(static_cast<int64_t>(i)) * t.gain[i % size] + t.shift[i % size], want = v < least ? least : v;
      same = same && memcmp(&want, out + i, sizeof want) == 0;
    }
  }
  CHECK(same);
  NormColumns sums = t.n;
  sums.bytes = exact;
  loops.dot(t.gradient.data(), t.codes.data(), t.rows, sums, 127, total.data(), dot.data());
  const NormGradient n = {t.columns, 127, t.floor.data(), t.slope.data(), t.offset.data(), at.data(), t.shift.data(), t.n.stream};
  loops.gradient(t.gradient.data(), t.codes.data(), t.rows, n, out);
  for (size_t i = 0; i < t.codes.size(); ++i) {
    const size_t c = i % size;
    const int32_t unit = t.gradient[i] - 127;
    want_total[c] += unit, want_dot[c] += unit * static_cast<int32_t>(t.xh(static_cast<int64_t>(i)));
    const float rest = t.codes[i] > t.floor[c] ? t.shift[c] : t.codes[i] < t.floor[c] ? t.offset[c] : at[c];
    const float want = static_cast<float>(unit) * t.slope[c] - rest;
    same = same && memcmp(&want, out + i, sizeof want) == 0;
  }
  CHECK(same);
  CHECK(total == want_total && dot == want_dot);
}

inline void compare_norm_gate(const Norm& loops, const NormCase& t) {
  const auto size = static_cast<size_t>(t.columns);
  std::vector<uint8_t> from(size, 0), to(size, 255), gradient(t.gradient), want(t.gradient);
  for (size_t c = 0; c < size; ++c) (c % 2 == 0 ? from : to)[c] = t.floor[c];
  if (size > 3) from[3] = 1, to[3] = 0;  // none passes
  const NormGate gate = {from.data(), to.data()};
  std::vector<float> x(t.codes.size());
  std::vector<uint32_t> top(size, 5), want_top(top);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = i == 9 ? NAN : (static_cast<float>(t.gradient[i]) - 127.0f) * t.slope[i % size];
    const bool open = t.codes[i] >= from[i % size] && t.codes[i] <= to[i % size];
    uint32_t bits;
    memcpy(&bits, &x[i], sizeof bits);
    if (open) want_top[i % size] = std::max(want_top[i % size], bits & 0x7FFFFFFFu);
    if (!open) want[i] = 127;
  }
  loops.absmax(x.data(), t.codes.data(), t.rows, t.columns, gate, top.data());
  loops.gate(t.codes.data(), t.rows, t.columns, gate, 127, gradient.data());
  CHECK(top == want_top && gradient == want);
}

// A gradient where a ReLU's output is not 0, NaN among outputs and gradients.
inline void compare_norm_gated(const Norm& loops, const NormCase& t) {
  std::vector<float> dy(t.codes.size()), y(dy), dz(dy), want(dy);
  for (size_t i = 0; i < dy.size(); ++i) {
    dy[i] = i % 31 == 7 ? NAN : static_cast<float>(t.gradient[i]) - 127.0f;
    y[i] = i % 37 == 5 ? NAN : i % 41 == 3 ? -0.0f : std::max(static_cast<float>(t.codes[i]) - 127.0f, 0.0f);
    want[i] = y[i] <= 0.0f ? 0.0f : dy[i];
  }
  loops.gated(dy.data(), y.data(), static_cast<int64_t>(dy.size()), dz.data());
  CHECK(memcmp(dz.data(), want.data(), dz.size() * sizeof(float)) == 0);
}

inline void compare_norm_ends(const Norm& loops, const NormCase& t) {
  const auto size = static_cast<size_t>(t.columns);
  std::vector<uint8_t> found(6 * size), want(found);
  for (size_t i = 0; i < found.size(); ++i) found[i] = want[i] = i / size % 2 == 0 ? 200 : 20;
  for (size_t i = 0; i < t.codes.size(); ++i) {
    const size_t c = i % size, side = t.codes[i] < t.floor[c] ? 0 : t.codes[i] == t.floor[c] ? 1 : 2;
    uint8_t &low = want[2 * side * size + c], &high = want[(2 * side + 1) * size + c];
    low = std::min(low, t.gradient[i]), high = std::max(high, t.gradient[i]);
  }
  loops.ends(t.gradient.data(), t.codes.data(), t.rows, t.columns, t.floor.data(), found.data());
  CHECK(found == want);
}

inline void compare_norm(const Table& table) {
  for (const int64_t rows : {1, 4, 35, 600}) {  // 600: bytes count 255 rows at most
    for (const int64_t columns : {1, 7, 16, 40, 64, 100}) {
      NormCase t(rows, columns, static_cast<uint32_t>(rows + columns));
      compare_norm_counts(table.norm, t);
      compare_norm_gate(table.norm, t);
      compare_norm_gated(table.norm, t);
      compare_norm_ends(table.norm, t);
      for (const bool exact : {false, true}) compare_norm_passes(table.norm, t, exact);
      std::fill(t.codes.begin(), t.codes.end(), static_cast<uint8_t>(255));  // the largest sums
      std::fill(t.floor.begin(), t.floor.end(), static_cast<uint8_t>(0));
      compare_norm_counts(table.norm, t);
    }
  }
  std::vector<float> x = {3.0f, -7.5f, 0.0f, -0.0f, 2.0f};
  for (const size_t copies : {1, 9, 40}) {
    std::vector<float> all;
    for (size_t i = 0; i < copies; ++i) all.insert(all.end(), x.begin(), x.end());
    int32_t least = INT32_MAX, most = INT32_MIN, bits[2];
    table.norm.minmax(all.data(), static_cast<int64_t>(all.size()), &least, &most);
    memcpy(bits, x.data(), sizeof bits);
    CHECK(most == bits[0] && least == (bits[1] ^ 0x7FFFFFFF));
  }
}

// Neither a block of noise nor the scales of one begin where a task does.
inline void compare_quantize_parts(const Table& table) {
  std::mt19937 rng(5);
  const Seed seed = {77, (uint64_t{1} << 40) + 3};
  std::vector<float> x(1000), scale;
  for (float& v : x) v = static_cast<float>(static_cast<int32_t>(rng())) * 1e-8f;
  for (const int64_t period : {1, 5, 64, 70, 128, 300}) {
    scale.assign(static_cast<size_t>(period), 0.1f);
    for (size_t i = 0; i < scale.size(); ++i) scale[i] += 0.01f * static_cast<float>(i % 13);
    std::vector<uint8_t> whole(x.size()), parts(x.size());
    Quantize q = {x.data(), scale.data(), period, -127, 127, 127, &seed, whole.data(), false};
    train_kernels_portable.quantize(q, 0, 1000);
    q.out = parts.data();
    for (const int64_t begin : {448, 0, 960}) table.quantize(q, begin, begin == 448 ? 960 : begin == 0 ? 448 : 1000);
    CHECK(whole == parts);
  }
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_TEST_NORM_H_
