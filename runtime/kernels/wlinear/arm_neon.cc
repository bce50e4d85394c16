// wlinear on NEON without dot products: products of bytes in 16 bits, added in pairs to 32. The two halves of a sum belong to channels
// 0, 1 and 2, 3; pairs of lanes are joined when a block ends.
#define NETSUKE_TABLE neon
#include "kernels/wlinear/neon.inc"

namespace netsuke {
namespace {

struct Sums { int32x4_t a, b; };

NK_INLINE Sums start(Total) { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
template <int kBits>
NK_INLINE void add_quad(Sums& sums, Bytes w, Bytes x) {
  sums.a = vpadalq_s16(sums.a, vmull_s8(vget_low_s8(w), vget_low_s8(x)));
  sums.b = vpadalq_s16(sums.b, vmull_high_s8(w, x));
}
template <int kBits>
NK_INLINE Total fold(Sums sums, Total total) {
  return vaddq_s32(total, vpaddq_s32(sums.a, sums.b));
}

}  // namespace
}  // namespace netsuke

#include "kernels/wlinear/dot.inc"

namespace netsuke {
const WlinearKernels wlinear_kernels_neon = {"arm_neon", 0, s8_panel, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
