// NEON: CNT counts the bits of bytes; two output channels a register. Byte sums hold 31 words before they are added up to 32 bits.
#include "kernels/bgemm/finish.inc"
#include "kernels/bgemm/tree.inc"

namespace netsuke {
namespace bgemm {
namespace {

constexpr int kWidth = 8, kTallest = 4, kHalf = kWidth / 2;
constexpr int64_t kSteps = 31;  // 8 * 31 = 248

template <int kRows>
NETSUKE_LANE void widen(const Tile& t, uint8x16_t (&acc)[kRows][kHalf], int row, int column) {
  for (int i = 0; i < kRows; ++i) {
    int32_t* count = t.count + (row + i) * kBlock + column;
    for (int v = 0; v < kHalf; v += 2) {
      const uint32x2_t low = vmovn_u64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(acc[i][v]))));
      const uint32x2_t high = vmovn_u64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(acc[i][v + 1]))));
      const int32x4_t four = vreinterpretq_s32_u32(vcombine_u32(low, high));
      vst1q_s32(count + 2 * v, vaddq_s32(vld1q_s32(count + 2 * v), four));
      acc[i][v] = acc[i][v + 1] = vdupq_n_u8(0);
    }
  }
}

template <int kRows>
void panel_rows(const Tile& t, const uint8_t* b, int row, int column) {
  uint8x16_t acc[kRows][kHalf];
  for (int i = 0; i < kRows; ++i) {
    for (auto& v : acc[i]) v = vdupq_n_u8(0);
    for (int c = 0; c < kWidth; c += 4) vst1q_s32(t.count + (row + i) * kBlock + column + c, vdupq_n_s32(0));
  }
  int64_t room = kSteps;
  for (int64_t r = 0; r < t.runs; ++r) {
    for (int64_t s = 0; s < t.steps; ++s, b += kWidth * 8) {
      uint8x16_t w[kHalf];
      for (int v = 0; v < kHalf; ++v) w[v] = vld1q_u8(b + 16 * v);
      for (int i = 0; i < kRows; ++i) {
        uint64_t word;
        __builtin_memcpy(&word, t.a[row + i] + t.run_offset[r] + s * 8, 8);
        const uint8x16_t x = vreinterpretq_u8_u64(vdupq_n_u64(word));
        for (int v = 0; v < kHalf; ++v) acc[i][v] = vaddq_u8(acc[i][v], vcntq_u8(veorq_u8(x, w[v])));
      }
      if (--room == 0) {
        widen(t, acc, row, column);
        room = kSteps;
      }
    }
  }
  widen(t, acc, row, column);
}

}  // namespace
}  // namespace bgemm
}  // namespace netsuke

#include "kernels/bgemm/words.inc"

namespace netsuke {
namespace bgemm {

extern const Kernels kernels_arm_neon;
const Kernels kernels_arm_neon = {"arm_neon_4x8", Layout::kWords, 4, kWidth, tile_words, nullptr, finish, tree_counts};

}  // namespace bgemm
}  // namespace netsuke
