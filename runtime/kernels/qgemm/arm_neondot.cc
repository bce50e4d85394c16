// NEON tiles with dot products over kS8x4: x ^ 0x80 is x - 128 as s8, so sdot applies; init carries the correction. 8 x 8: 16
// accumulators, 2 weight registers; one eor per four codes of a row is shared by all channels of the tile.
#include "kernels/qgemm/neon_requant.h"

namespace netsuke {
namespace qgemm {

void depthwise_arm_neon(const DepthwiseRow& row);
int64_t depthwise_bytes_arm_neon(int64_t taps);
void depthwise_pack_arm_neon(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);

namespace {

template <int kRows>
void tile_s8x8(const Tile& t) {
  int32x4_t acc[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = vld1q_s32(t.init);
    acc[r][1] = vld1q_s32(t.init + 4);
  }
  const int8_t* b = static_cast<const int8_t*>(t.b);
  for (int64_t run = 0; run < t.runs; ++run) {
    const uint8_t* a[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const uint8_t*>(t.a[r]) + t.run_offset[run];
    int64_t k = 0;
    for (; k + 4 <= t.groups; k += 4, b += 128) {  // 16 codes of each row at a time: one load and one eor for 8 sdot
      int8x16_t w[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) w[i] = vld1q_s8(b + 16 * i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const int8x16_t x = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a[r] + 4 * k), vdupq_n_u8(0x80)));
        acc[r][0] = vdotq_laneq_s32(acc[r][0], w[0], x, 0);
        acc[r][1] = vdotq_laneq_s32(acc[r][1], w[1], x, 0);
        acc[r][0] = vdotq_laneq_s32(acc[r][0], w[2], x, 1);
        acc[r][1] = vdotq_laneq_s32(acc[r][1], w[3], x, 1);
        acc[r][0] = vdotq_laneq_s32(acc[r][0], w[4], x, 2);
        acc[r][1] = vdotq_laneq_s32(acc[r][1], w[5], x, 2);
        acc[r][0] = vdotq_laneq_s32(acc[r][0], w[6], x, 3);
        acc[r][1] = vdotq_laneq_s32(acc[r][1], w[7], x, 3);
      }
    }
    for (; k < t.groups; ++k, b += 32) {
      const int8x16_t w0 = vld1q_s8(b), w1 = vld1q_s8(b + 16);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        uint32_t four;
        memcpy(&four, a[r] + 4 * k, 4);
        const int8x16_t x = vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080u));
        acc[r][0] = vdotq_s32(acc[r][0], w0, x);
        acc[r][1] = vdotq_s32(acc[r][1], w1, x);
      }
    }
  }
  finish8<kRows>(t, acc);
}

const TileFn kTiles8[] = {tile_s8x8<1>, tile_s8x8<2>, tile_s8x8<3>, tile_s8x8<4>,
                          tile_s8x8<5>, tile_s8x8<6>, tile_s8x8<7>, tile_s8x8<8>};

#define NETSUKE_QGEMM_arm_neondot
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, kTiles##width, nullptr},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};

}  // namespace

extern const Kernels kernels_arm_neondot;
const Kernels kernels_arm_neondot = {kSets, 1, nullptr, nullptr, 8, depthwise_arm_neon, depthwise_bytes_arm_neon,
                                     depthwise_pack_arm_neon};

}  // namespace qgemm
}  // namespace netsuke
