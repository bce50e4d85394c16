// AVX-512 VPOPCNTDQ: XOR, popcount of 64-bit words, addition.
#include <immintrin.h>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kChains = 12;

uint64_t bits(int64_t count) {
  __m512i acc[kChains], a = _mm512_set1_epi64(3);
  const __m512i b = _mm512_set1_epi64(5);
  for (auto& v : acc) v = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) {
      asm volatile("" : "+v"(a));  // the count is not to be hoisted
      v = _mm512_add_epi64(v, _mm512_popcnt_epi64(_mm512_xor_si512(a, b)));
    }
  }
  __m512i sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm512_add_epi64(sum, acc[j]);
  alignas(64) uint64_t lanes[8];
  _mm512_store_si512(lanes, sum);
  return lanes[0];
}

}  // namespace

Loop avx512vpopcntdq_loop() { return {bits, 512 * kChains}; }

}  // namespace limits
}  // namespace netsuke
