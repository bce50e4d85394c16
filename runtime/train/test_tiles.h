// Tiles of a table against the plain loops.
#ifndef NETSUKE_TRAIN_TEST_TILES_H_
#define NETSUKE_TRAIN_TEST_TILES_H_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "train/kernels.h"

namespace netsuke {
namespace train {

inline void compare_tile(const Table& table, Lane lane, int64_t a_max, int64_t b_max, bool chain, int rows, std::mt19937& rng) {
  const int64_t runs = 3, stride = 36;
  const int32_t groups[] = {5, 1, 9};
  const uint8_t shift[] = {0, 2, 1};
  std::vector<uint8_t> a(12 * 40 + 128), b(2 * 15 * 64);
  std::vector<int16_t> aw(a.size() / 2), bw(b.size() / 2);
  for (uint8_t& v : a) v = static_cast<uint8_t>(rng() % static_cast<uint32_t>(a_max + 1));
  for (uint8_t& v : b) v = static_cast<uint8_t>(static_cast<int64_t>(rng() % static_cast<uint32_t>(2 * b_max + 1)) - b_max);
  for (int i = 0; i < 8; ++i) a[static_cast<size_t>(i)] = static_cast<uint8_t>(a_max), b[static_cast<size_t>(i)] = static_cast<uint8_t>(b_max);
  if (lane == Lane::kS16) {
    for (int16_t& v : aw) v = static_cast<int16_t>(static_cast<int64_t>(rng() % static_cast<uint32_t>(2 * a_max + 1)) - a_max);
    for (int16_t& v : bw) v = static_cast<int16_t>(static_cast<int64_t>(rng() % static_cast<uint32_t>(2 * b_max + 1)) - b_max);
    memcpy(a.data(), aw.data(), 2 * aw.size());
    memcpy(b.data(), bw.data(), 2 * bw.size());
  }
  const uint8_t* base[kMaxRows];
  for (int r = 0; r < rows; ++r) base[r] = a.data() + 40 * r;
  const int64_t offset[] = {0, 16, 4};
  int64_t flush = lane == Lane::kU8 ? safe_flush(a_max, b_max) : 0;
  if (lane == Lane::kU8 && flush < 1) flush = 1;
  if (chain) flush = std::max<int64_t>(1, 2147483647 / (2 * a_max * b_max));
  for (const bool first : {true, false}) {
    std::vector<int32_t> expected(static_cast<size_t>(rows * stride), 7), got(expected);
    Tile tile = {base, offset, chain ? nullptr : shift, groups, runs, b.data(), nullptr, rows, flush, expected.data(), stride, first};
    (lane == Lane::kU8 ? train_kernels_portable.tile_u8 : train_kernels_portable.tile_s16)(tile);
    tile.acc = got.data();
    (lane == Lane::kU8 ? table.tile_u8 : table.tile_s16)(tile);
    CHECK(expected == got);
    if (lane == Lane::kU8 ? table.panels > 1 : table.pair_s16 && !chain) {
      tile.b = b.data() + 15 * 64;
      tile.acc = expected.data() + kWidth;
      (lane == Lane::kU8 ? train_kernels_portable.tile_u8 : train_kernels_portable.tile_s16)(tile);
      std::vector<int32_t> both(expected.size(), 7);
      tile.b = b.data(), tile.b_next = b.data() + 15 * 64, tile.acc = both.data();
      (lane == Lane::kU8 ? table.tile_u8 : table.tile_s16)(tile);
      CHECK(expected == both);
    }
    float y[2][12 * 16] = {};
    float* out[2][12];
    float mult[16], bias[16];
    int32_t corr[16], acc[12 * 16];
    for (int i = 0; i < 16; ++i) mult[i] = 0.25f * static_cast<float>(i) + 0.1f, bias[i] = static_cast<float>(i) - 7.3f, corr[i] = static_cast<int32_t>(rng() % 1000);
    for (int32_t& v : acc) v = static_cast<int32_t>(rng()) / 4;
    for (int columns : {1, 7, 8, 13, 16}) {
      for (const bool add : {false, true}) {
        for (int t = 0; t < 2; ++t) {
          for (int r = 0; r < rows; ++r) out[t][r] = y[t] + 16 * r;
          (t == 0 ? train_kernels_portable : table).finish({acc, kWidth, rows, columns, corr, mult, columns % 2 == 0 ? bias : nullptr, out[t], false, add});
        }
        CHECK(memcmp(y[0], y[1], sizeof y[0]) == 0);
      }
    }
  }
}

inline void compare_tiles(const Table& table) {
  std::mt19937 rng(1);
  for (int rows = 1; rows <= table.rows; ++rows) {
    const int64_t ranges[][2] = {{15, 7}, {63, 31}, {62, 31}, {30, 15}, {127, 63}, {255, 64}, {254, 3}};
    for (const auto& range : ranges) compare_tile(table, Lane::kU8, range[0], range[1], false, rows, rng);
    if (table.dot) compare_tile(table, Lane::kU8, 255, 127, false, rows, rng);
    if (rows > table.rows_s16) continue;
    compare_tile(table, Lane::kS16, 255, 128, false, rows, rng);
    for (const int64_t top : {32767, 16383, 2047}) compare_tile(table, Lane::kS16, top, top, true, rows, rng);
  }
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_TEST_TILES_H_
