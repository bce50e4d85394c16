// NEON tiles for AArch64 CPUs without dot products, over kS16x2: x - x_zero and w as s16, smlal by lane, exact for every code.
// 8 x 8: 16 accumulators, 2 weight registers, 8 row registers, 32 lanes of 16 bits each way. The pairs of a group are unzipped by
// ld2, so the packed layout is the same as for vpmaddwd.
#include "kernels/qgemm/neon_requant.h"

namespace netsuke {
namespace qgemm {

void depthwise_arm_neon(const DepthwiseRow& row);
int64_t depthwise_bytes_arm_neon(int64_t taps);
void depthwise_pack_arm_neon(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);
void winograd_input4_arm_neon(const WinogradInput& in);
void winograd_input2_arm_neon(const WinogradInput& in);
void winograd_output4_arm_neon(const WinogradOutput& out);
void winograd_output2_arm_neon(const WinogradOutput& out);

namespace {

template <int kRows>
void tile_s16x8(const Tile& t) {
  int32x4_t acc[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = vld1q_s32(t.init);
    acc[r][1] = vld1q_s32(t.init + 4);
  }
  const int16_t* b = static_cast<const int16_t*>(t.b);
  for (int64_t run = 0; run < t.runs; ++run) {
    const int16_t* a[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const int16_t*>(t.a[r]) + t.run_offset[run];
    for (int64_t k = 0; k < t.groups; ++k, b += 16) {
      const int16x8x2_t w = vld2q_s16(b);  // k even for 8 channels, k odd for 8 channels
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        memcpy(&pair, a[r] + 2 * k, 4);
        const int16x4_t x = vreinterpret_s16_s32(vdup_n_s32(pair));
        acc[r][0] = vmlal_lane_s16(acc[r][0], vget_low_s16(w.val[0]), x, 0);
        acc[r][1] = vmlal_lane_s16(acc[r][1], vget_high_s16(w.val[0]), x, 0);
        acc[r][0] = vmlal_lane_s16(acc[r][0], vget_low_s16(w.val[1]), x, 1);
        acc[r][1] = vmlal_lane_s16(acc[r][1], vget_high_s16(w.val[1]), x, 1);
      }
    }
  }
  finish8<kRows>(t, acc);
}

void widen(const uint8_t* src, int64_t count, int32_t zero, int16_t* dst) {
  const int16x8_t z = vdupq_n_s16(static_cast<int16_t>(zero));
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) vst1q_s16(dst + i, vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(src + i))), z));
  for (; i < count; ++i) dst[i] = static_cast<int16_t>(src[i] - zero);
}

void expand(const int8_t* src, int64_t count, int16_t* dst) {
  for (int64_t i = 0; i < count; i += 8) vst1q_s16(dst + i, vmovl_s8(vld1_s8(src + i)));
}

const TileFn kTiles8[] = {tile_s16x8<1>, tile_s16x8<2>, tile_s16x8<3>, tile_s16x8<4>,
                          tile_s16x8<5>, tile_s16x8<6>, tile_s16x8<7>, tile_s16x8<8>};

#define NETSUKE_QGEMM_arm_neon
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, kTiles##width, nullptr},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};

}  // namespace

extern const Kernels kernels_arm_neon;
const Kernels kernels_arm_neon = {kSets,
                                  1,
                                  widen,
                                  expand,
                                  8,
                                  depthwise_arm_neon,
                                  depthwise_bytes_arm_neon,
                                  depthwise_pack_arm_neon,
                                  &kSets[0],
                                  24,
                                  128 * 128,
                                  256 * 256,
                                  winograd_input4_arm_neon,
                                  winograd_input2_arm_neon,
                                  winograd_output4_arm_neon,
                                  winograd_output2_arm_neon};

}  // namespace qgemm
}  // namespace netsuke
