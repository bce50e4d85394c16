// wlinear on NEON with the dot product instructions of Armv8.2.
#define NETSUKE_TABLE neondot
#include "kernels/wlinear/neon.inc"

namespace netsuke {
namespace {

typedef int32x4_t Sums;

NK_INLINE Sums start(Total total) { return total; }
template <int kBits>
NK_INLINE void add_quad(Sums& sums, Bytes w, Bytes x) {
  sums = vdotq_s32(sums, w, x);
}
template <int kBits>
NK_INLINE Total fold(Sums sums, Total) {
  return sums;
}

}  // namespace
}  // namespace netsuke

#include "kernels/wlinear/dot.inc"

namespace netsuke {
const WlinearKernels wlinear_kernels_neondot = {"arm_neondot", 0, s8_panel, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
