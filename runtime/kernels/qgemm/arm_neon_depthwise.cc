// Depthwise convolution on NEON, 8 channels at a time: one uxtl and two smlal for each tap. Also used with dot products, which would
// need four taps interleaved first. A packed chunk: [tap][8] s16 weights, then init[8].
#include "kernels/qgemm/neon_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kChunk = 8;
constexpr int kTail = kChunk * 4;

template <int kPixels>
NK_INLINE void pixels(const DepthwiseRow& row, const uint8_t* packed, int64_t c, int64_t first) {
  const int16_t* w = reinterpret_cast<const int16_t*>(packed);
  const int32_t* init = reinterpret_cast<const int32_t*>(w + row.taps_count * kChunk);
  int32x4_t acc[kPixels][2];
#pragma GCC unroll 4
  for (int p = 0; p < kPixels; ++p) {
    acc[p][0] = vld1q_s32(init);
    acc[p][1] = vld1q_s32(init + 4);
  }
  for (int64_t tap = 0; tap < row.taps_count; ++tap, w += kChunk) {
    const int16x8_t weight = vld1q_s16(w);
    const uint8_t* x = row.taps[tap] + c + first * row.pixel_stride;
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
      const int16x8_t v = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(x + p * row.pixel_stride)));
      acc[p][0] = vmlal_s16(acc[p][0], vget_low_s16(v), vget_low_s16(weight));
      acc[p][1] = vmlal_high_s16(acc[p][1], v, weight);
    }
  }
  Tile t = {};
  t.rows = kPixels;
  t.columns = kChunk;
  t.requant = row.requant;
  t.channel = c;
  t.out_stride = row.channels;
  const int64_t at = (first * row.channels + c) * (row.requant->out_f32 ? 4 : 1);
  t.out = static_cast<uint8_t*>(row.out) + at;
  t.residual = row.residual == nullptr ? nullptr : static_cast<const uint8_t*>(row.residual) + at;
  finish8<kPixels>(t, acc);
}

}  // namespace

void depthwise_arm_neon(const DepthwiseRow& row);
int64_t depthwise_bytes_arm_neon(int64_t taps);
void depthwise_pack_arm_neon(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);

void depthwise_arm_neon(const DepthwiseRow& row) {
  for (int64_t chunk = row.chunk0; chunk < row.chunk1; ++chunk) {
    const int64_t c = chunk * kChunk < row.channels - kChunk ? chunk * kChunk : row.channels - kChunk;
    const uint8_t* packed = row.packed + chunk * row.packed_stride;
    int64_t p = 0;
    for (; p + 4 <= row.pixels; p += 4) pixels<4>(row, packed, c, p);
    for (; p < row.pixels; ++p) pixels<1>(row, packed, c, p);
  }
}

int64_t depthwise_bytes_arm_neon(int64_t taps) { return taps * kChunk * 2 + kTail; }

void depthwise_pack_arm_neon(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst) {
  int16_t* d = reinterpret_cast<int16_t*>(dst);
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int i = 0; i < kChunk; ++i) *d++ = w[i * taps + tap];
  }
  memcpy(d, init, kChunk * 4);
}

}  // namespace qgemm
}  // namespace netsuke
