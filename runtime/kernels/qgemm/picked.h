// Exact products of wide codes by vpmaddubsw: what picked.cc, gemm.cc and x86_avx2_picked*.cc share.
//
// vpmaddubsw adds two products u8 x s8 in 16 bits and saturates. Which products share a lane is free: input channels may be taken in any order,
// and vpshufb brings any 4 of 16 neighbouring codes into a group at the price of one shuffle. So the channels of every 16 codes are sorted
// into lanes, each panel of 16 outputs for itself, such that nothing can overflow, which the sign and size of the actual weights decide:
//
//   a lane holds two pairs, one in each of the two groups of a unit; vpaddw adds the pairs. For every output, P and N are the sums of
//   the magnitudes of the lane's positive and negative weights, hi is the largest code of the input.
//   every pair     hi * P <= 32767 and hi * N <= 32767: vpmaddubsw cannot saturate
//   plain lane     the same for all four weights: vpaddw cannot wrap
//   offset lane    hi * (P + N) <= 65280: the sum, which lies in [-hi * N, hi * P], may wrap, but with c = 256 * ceil((hi * N - 32768) / 256)
//                  added, also modulo 2^16, it lies in [-32768, 32767]. init loses c, so the result is exact.
//
// picked_pack computes P and N of every lane in int32 where it writes the lane's weights: nothing is packed that was not proved there.
#ifndef NETSUKE_KERNELS_QGEMM_PICKED_H_
#define NETSUKE_KERNELS_QGEMM_PICKED_H_

#include <cstdint>

namespace netsuke {
namespace qgemm {

constexpr int kPickedWidth = 16;    // columns of a panel
constexpr int kPickedWindow = 16;   // codes a shuffle chooses from
constexpr int kPickedWeights = 128, kPickedStarts = 32;  // bytes of a unit: [group][half][8][4] s8; c / 256, see write_unit
constexpr int64_t kPickedPlain = kPickedWeights, kPickedOffset = kPickedWeights + kPickedStarts;
constexpr int kPickedMostUnits = 8;  // of a window: 16 lanes of one channel, where no two go together

// Where a unit finds its codes: the position of its window in the run, and for each group the 4 codes it takes from there, one a byte, lane 0
// first; 0x80 takes none.
struct PickedAt {
  int32_t window;
  uint32_t pick[2];
};

// A panel: int64 position of the counts, up to byte 64; the units of run 0 (plain ones first), run 1, ...; for each run two int32, its plain
// and its offset units; a PickedAt for each unit.
struct PickedPanel {
  const int8_t* w = nullptr;  // [columns][runs][run_length]
  int columns = 0;            // 1 to 16; the others are packed as zeros
  int64_t runs = 0, run_length = 0;
  int32_t hi = 255;           // the largest code of x, padding included
};

// Upper bound of a packed panel, and of what packing it needs aside, in bytes.
inline int64_t picked_bound(int64_t runs, int64_t run_length) {
  const int64_t units = (runs + 1) * ((run_length + kPickedWindow - 1) / kPickedWindow) * kPickedMostUnits;
  return 128 + runs * 8 + units * (12 + kPickedOffset);
}

struct PickedSize {
  int64_t bytes = 0;  // 0: nothing packed, the run is shorter than a window or a lane could not be proved
  int64_t plain = 0, offset = 0;
};

// Writes a panel to dst. dst and scratch: picked_bound bytes, aligned to 32. lost[16] is what init loses, modulo 2^32.
using PickedPackFn = PickedSize (*)(const PickedPanel& panel, uint8_t* dst, uint8_t* scratch, uint32_t* lost);

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_PICKED_H_
