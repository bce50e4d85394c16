// What the three products of the exact Winograd (winograd.cc) share: phases of a window, where a tile's pixels are, how many rows a visit takes.
#ifndef NETSUKE_TRAIN_WINOGRAD_H_
#define NETSUKE_TRAIN_WINOGRAD_H_
#include <algorithm>
#include <vector>

#include "train/products.h"

namespace netsuke {
namespace train {

// One phase of a window: its first pixel, and tap i * side + j as a tap of the window, -1 for none. Stride 1 has one phase.
struct WinogradPhase {
  int64_t y, x;
  int taps[9];
  bool rows, columns;  // whether the last row and column of taps exist
};

constexpr int64_t kExact = int64_t{1} << 25, kExactTwo = int64_t{1} << 29;  // sums stay below; stride 1, stride 2

// Phases in an order where those with a second row of taps are the first two, and those with a second column are neighbours.
inline std::vector<WinogradPhase> phases_of(const Conv& c) {
  if (c.stride_h == 1) return {{-c.top, -c.left, {0, 1, 2, 3, 4, 5, 6, 7, 8}, true, true}};
  return {{-1, 0, {1, -1, 7, -1}, true, false}, {-1, -1, {0, 2, 6, 8}, true, true}, {0, -1, {3, 5, -1, -1}, false, true}, {0, 0, {4, -1, -1, -1}, false, false}};
}

// Phases [first, last) with products at a position.
inline void phases_at(const std::vector<WinogradPhase>& phases, int side, int at, size_t* first, size_t* last) {
  const int points = side + 3;
  const bool rows = side == 3 || at / points + 1 < points, columns = side == 3 || at % points + 1 < points;
  *first = phases.size(), *last = 0;
  for (size_t i = 0; i < phases.size(); ++i) {
    if ((rows || phases[i].rows) && (columns || phases[i].columns)) *first = std::min(*first, i), *last = i + 1;
  }
}

// Addresses of side x side pixels, every `step`th from (y0, x0) on; outside of the image a pixel of zeros.
inline void addresses(int side, const uint8_t* image, int64_t h, int64_t w, int64_t stride, int64_t step, int64_t y0, int64_t x0, const uint8_t* zeros, const uint8_t** out) {
  for (int i = 0; i < side; ++i) {
    for (int j = 0; j < side; ++j) {
      const int64_t y = y0 + step * i, x = x0 + step * j;
      out[i * side + j] = y < 0 || y >= h || x < 0 || x >= w ? zeros : image + (y * w + x) * stride;
    }
  }
}

constexpr int kPair = 2;  // panels of one visit
// Bytes between positions beyond what they hold: strides of powers of two would put all 36 of a tile into the same sets of a cache.
constexpr int64_t kLine = 64;

// Sums of `count` rows of A with two panels: [rows][2 * 16], as many rows at a time as `tall` ones need, of nearly equal height.
inline void multiply_pair(const Table& table, const uint8_t* const* a, int64_t offset, int64_t count, int32_t groups, int64_t a_step,
                          const uint8_t* b, int64_t b_panel, int64_t panels, int32_t* to) {
  const int64_t tall = table.rows_s16;
  const bool both = panels > 1 && table.pair_s16;
  for (int64_t i = 0; i < count;) {
    const int64_t left = count - i, visits = (left + tall - 1) / tall;
    const int rows = static_cast<int>((left + visits - 1) / visits);
    for (int64_t p = 0; p < (both ? 1 : panels); ++p) {
      table.tile_s16({a + i, &offset, nullptr, &groups, 1, b + p * b_panel, both ? b + b_panel : nullptr, rows, 0, to + i * kPair * kWidth + p * kWidth,
                      kPair * kWidth, true, a_step});
    }
    i += rows;
  }
}

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_WINOGRAD_H_
