// vpermi2b looks 64 codes up in 128 bytes; two of them and a blend by the top bit make 256.
#include "kernels/base/avx512.h"
#include "kernels/base/lanes.h"
#include "kernels/lut/lut.h"

namespace netsuke {
namespace {

void map(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) {
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
  const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const __m512i codes = _mm512_loadu_si512(x + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, codes, t1), high = _mm512_permutex2var_epi8(t2, codes, t3);
    _mm512_storeu_si512(y + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high));
  }
  for (; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace

#ifndef NETSUKE_TABLE  // test_simde_vbmi.cc names its own
#define NETSUKE_TABLE avx512vbmi
#endif
extern const LutKernels NETSUKE_TABLE_NAME(lut_kernels);
const LutKernels NETSUKE_TABLE_NAME(lut_kernels) = {"lut_a8_x86_avx512vbmi", map};

}  // namespace netsuke
