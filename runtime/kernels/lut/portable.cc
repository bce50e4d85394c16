// Eight codes are read at once and written at once; the table (256 bytes) stays in the L1 cache.
#include <cstring>

#include "kernels/lut/lut.h"

namespace netsuke {
namespace {

void map(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t codes, values = 0;
    std::memcpy(&codes, x + i, 8);
    for (int j = 0; j < 64; j += 8) values |= static_cast<uint64_t>(table[codes >> j & 255]) << j;
    std::memcpy(y + i, &values, 8);
  }
  for (; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace

const LutKernels lut_kernels_portable = {"lut_a8_portable", map};

}  // namespace netsuke
