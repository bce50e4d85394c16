// Plain C++: 64-bit XOR, and popcount by adding neighbouring fields, which needs no instruction of its own.
#define NETSUKE_PORTABLE_LANES
#include <cstring>

#include "kernels/bgemm/finish.inc"
#include "kernels/bgemm/tree.inc"

namespace netsuke {
namespace bgemm {
namespace {

constexpr int kWidth = 8, kTallest = 4;

inline int32_t popcount(uint64_t v) {
  v -= (v >> 1) & 0x5555555555555555ull;
  v = (v & 0x3333333333333333ull) + ((v >> 2) & 0x3333333333333333ull);
  v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full;
  return static_cast<int32_t>((v * 0x0101010101010101ull) >> 56);
}

template <int kRows>
void panel_rows(const Tile& t, const uint8_t* b, int row, int column) {
  int32_t sum[kRows][kWidth] = {};
  for (int64_t r = 0; r < t.runs; ++r) {
    for (int64_t s = 0; s < t.steps; ++s, b += kWidth * 8) {
      uint64_t w[kWidth];
      std::memcpy(w, b, sizeof(w));
      for (int i = 0; i < kRows; ++i) {
        uint64_t x;
        std::memcpy(&x, t.a[row + i] + t.run_offset[r] + s * 8, 8);
        for (int o = 0; o < kWidth; ++o) sum[i][o] += popcount(x ^ w[o]);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) std::memcpy(t.count + (row + i) * kBlock + column, sum[i], sizeof(sum[i]));
}

}  // namespace
}  // namespace bgemm
}  // namespace netsuke

#include "kernels/bgemm/words.inc"

namespace netsuke {
namespace bgemm {

extern const Kernels kernels_portable;
const Kernels kernels_portable = {"portable_4x8", Layout::kWords, 4, kWidth, tile_words, nullptr, finish, tree_counts};

}  // namespace bgemm
}  // namespace netsuke
