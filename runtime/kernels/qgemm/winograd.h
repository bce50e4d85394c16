// The mathematics of exact integer Winograd: winograd_exact.cc. The driver is winograd.cc.
#ifndef NETSUKE_KERNELS_QGEMM_WINOGRAD_H_
#define NETSUKE_KERNELS_QGEMM_WINOGRAD_H_

#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {

constexpr int kWinogradLanes = 16;          // channels that transform_weights takes at a time
constexpr int kWinogradPositions = 6 * 6;   // most positions of a form

// U of 16 channels: g is [9][16], u is [(out + 2)^2][16]; out is 4, 3 or 2.
void transform_weights(int out, const int16_t* g, int16_t* u);
// The 9 x 16 weights of output channel o from input channel `first` on, 0 behind the last one, as transform_weights takes them.
void gather_weights(const Geometry& g, const Weights& weights, int64_t o, int64_t first, int16_t* dst);

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_WINOGRAD_H_
