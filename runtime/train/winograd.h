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

// As many rows of tiles as six at a time need, of nearly equal height.
inline int rows_at(int64_t left) { return static_cast<int>((left + (left + 5) / 6 - 1) / ((left + 5) / 6)); }

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_WINOGRAD_H_
