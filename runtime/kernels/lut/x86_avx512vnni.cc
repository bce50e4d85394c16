// As x86_avx2.cc, 64 codes at a time.
#include "kernels/base/avx512.h"
#include "kernels/base/lanes.h"
#include "kernels/lut/lut.h"

namespace netsuke {
namespace {

constexpr int64_t kShort = 256;  // below this the 16 differences are not worth making

NETSUKE_LANE __m512i half_lookup(__m512i x, const __m512i* steps) {
  const __m512i sixteen = _mm512_set1_epi8(16);
  __m512i y = _mm512_shuffle_epi8(steps[0], x);
  for (int j = 1; j < 8; ++j) {
    x = _mm512_subs_epi8(x, sixteen);
    y = _mm512_xor_si512(y, _mm512_shuffle_epi8(steps[j], x));
  }
  return y;
}

NETSUKE_LANE __m512i lookup(__m512i x, const __m512i* steps) {
  const __m512i upper = _mm512_xor_si512(x, _mm512_set1_epi8(-128));
  return _mm512_xor_si512(half_lookup(x, steps), half_lookup(upper, steps + 8));
}

void map(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) {
  int64_t i = 0;
  if (n >= kShort) {
    __m512i steps[16];
    __m128i previous = _mm_setzero_si128();
    for (int j = 0; j < 16; ++j) {
      const __m128i now = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * j));
      steps[j] = _mm512_broadcast_i32x4(j % 8 == 0 ? now : _mm_xor_si128(now, previous));
      previous = now;
    }
    for (; i + 64 <= n; i += 64) _mm512_storeu_si512(y + i, lookup(_mm512_loadu_si512(x + i), steps));
  }
  for (; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace

#ifndef NETSUKE_TABLE  // test_simde.cc names its own
#define NETSUKE_TABLE avx512vnni
#endif
extern const LutKernels NETSUKE_TABLE_NAME(lut_kernels);
const LutKernels NETSUKE_TABLE_NAME(lut_kernels) = {"lut_a8_x86_avx512vnni", map};

}  // namespace netsuke
