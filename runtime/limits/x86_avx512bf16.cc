// AVX-512 BF16: VDPBF16PS, two products a lane.
#include <immintrin.h>

#include <cstring>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kChains = 12;

uint64_t bf16(int64_t count) {
  __m512 acc[kChains];
  __m512bh a, b;
  std::memset(&a, 0x3f, sizeof a);
  std::memset(&b, 0x2f, sizeof b);
  for (auto& v : acc) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = _mm512_dpbf16_ps(v, a, b);
  }
  __m512 sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm512_add_ps(sum, acc[j]);
  return static_cast<uint64_t>(_mm512_cvtss_f32(sum) > 0);
}

}  // namespace

Loop avx512bf16_loop() { return {bf16, 32 * kChains}; }

}  // namespace limits
}  // namespace netsuke
