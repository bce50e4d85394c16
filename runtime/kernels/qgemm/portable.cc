// Plain C++ tiles for CPUs without a kernel file of their own.
#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kWidth = 8;

template <int kRows>
void tile_s16(const Tile& t) {
  int32_t acc[kRows][kWidth];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kWidth; ++c) acc[r][c] = t.init[c];
  }
  const int16_t* b = static_cast<const int16_t*>(t.b);
  for (int64_t run = 0; run < t.runs; ++run) {
    for (int64_t k = 0; k < t.groups; ++k, b += 2 * kWidth) {
      for (int r = 0; r < kRows; ++r) {
        const int16_t* a = static_cast<const int16_t*>(t.a[r]) + t.run_offset[run] + 2 * k;
        const int32_t a0 = a[0], a1 = a[1];
        for (int c = 0; c < kWidth; ++c) {
          acc[r][c] = static_cast<int32_t>(static_cast<uint32_t>(acc[r][c]) + static_cast<uint32_t>(a0 * b[2 * c] + a1 * b[2 * c + 1]));
        }
      }
    }
  }
  requantize_tile(t, &acc[0][0], kWidth);
}

void widen(const uint8_t* src, int64_t count, int32_t zero, int16_t* dst) {
  for (int64_t i = 0; i < count; ++i) dst[i] = static_cast<int16_t>(src[i] - zero);
}

void expand(const int8_t* src, int64_t count, int16_t* dst) {
  for (int64_t i = 0; i < count; ++i) dst[i] = src[i];
}

const TileFn kPortable[] = {tile_s16<1>, tile_s16<2>, tile_s16<3>, tile_s16<4>};

#define NETSUKE_QGEMM_portable
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, kPortable, nullptr},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};

}  // namespace

extern const Kernels kernels_portable;
const Kernels kernels_portable = {kSets, 1, widen, expand};

}  // namespace qgemm
}  // namespace netsuke
