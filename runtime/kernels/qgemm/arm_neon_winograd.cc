// The Winograd transforms compiled for NEON. Used without dot products only: sdot multiplies four times as many pairs an instruction
// as smlal, which is all that F(4x4, 3x3) saves.
#include "kernels/qgemm/neon_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

NK_INLINE void finish_row(const Tile& t, int64_t row, const int32_t* sums) {
  Tile one = t;
  const int64_t at = row * t.out_stride * (t.requant->out_f32 ? 4 : 1);
  one.out = static_cast<uint8_t*>(t.out) + at;
  one.residual = t.residual == nullptr ? nullptr : static_cast<const uint8_t*>(t.residual) + at;
  int32x4_t acc[1][2] = {{vld1q_s32(sums), vld1q_s32(sums + 4)}};
  finish8<1>(one, acc);
}

#define NK_UNROLL(n) NK_PRAGMA(GCC unroll n)
#define NK_PRAGMA(text) _Pragma(#text)
constexpr int kWinogradWidth = 8;
#define WINOGRAD_BITS 128
#include "kernels/qgemm/winograd.inc"

}  // namespace

void winograd_input4_arm_neon(const WinogradInput& in);
void winograd_input2_arm_neon(const WinogradInput& in);
void winograd_output4_arm_neon(const WinogradOutput& out);
void winograd_output2_arm_neon(const WinogradOutput& out);
void winograd_input4_arm_neon(const WinogradInput& in) { winograd_input<6>(in); }
void winograd_input2_arm_neon(const WinogradInput& in) { winograd_input<4>(in); }
void winograd_output4_arm_neon(const WinogradOutput& out) { winograd_output<4>(out); }
void winograd_output2_arm_neon(const WinogradOutput& out) { winograd_output<2>(out); }

}  // namespace qgemm
}  // namespace netsuke
