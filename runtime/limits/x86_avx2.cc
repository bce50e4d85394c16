// AVX2: FMA, VPMADDWD, and VPMADDUBSW + VPMADDWD for 8 bits. Ten accumulators cover the latency of the multiply pipes
// (4 to 5 cycles, two a cycle); the operands pass an empty asm so that the compiler cannot hoist the product.
#include <immintrin.h>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kChains = 10;

uint64_t f32(int64_t count) {
  __m256 acc[kChains], a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(1e-9f);
  for (auto& v : acc) v = _mm256_setzero_ps();
  for (int64_t i = 0; i < count; ++i) {
    asm volatile("" : "+x"(a), "+x"(b));
    for (auto& v : acc) v = _mm256_fmadd_ps(a, b, v);
  }
  __m256 sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm256_add_ps(sum, acc[j]);
  return static_cast<uint64_t>(_mm256_cvtss_f32(sum));
}

uint64_t fold(const __m256i* acc) {
  __m256i sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm256_add_epi32(sum, acc[j]);
  return static_cast<uint64_t>(static_cast<uint32_t>(_mm256_extract_epi32(sum, 0)));
}

uint64_t int16(int64_t count) {
  __m256i acc[kChains], a = _mm256_set1_epi16(3), b = _mm256_set1_epi16(5);
  for (auto& v : acc) v = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) {
      asm volatile("" : "+x"(a));
      v = _mm256_add_epi32(v, _mm256_madd_epi16(a, b));
    }
  }
  return fold(acc);
}

uint64_t int8(int64_t count) {
  __m256i acc[kChains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
  const __m256i one = _mm256_set1_epi16(1);
  for (auto& v : acc) v = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) {
      asm volatile("" : "+x"(a));
      v = _mm256_add_epi32(v, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
    }
  }
  return fold(acc);
}

uint64_t read(const uint8_t* data, size_t bytes) {
  __m256i acc[8];
  for (auto& v : acc) v = _mm256_setzero_si256();
  for (size_t i = 0; i < bytes; i += 256) {
    const auto* p = reinterpret_cast<const __m256i*>(data + i);
    for (int j = 0; j < 8; ++j) acc[j] = _mm256_xor_si256(acc[j], _mm256_load_si256(p + j));
  }
  for (int j = 1; j < 8; ++j) acc[0] = _mm256_xor_si256(acc[0], acc[j]);
  return static_cast<uint64_t>(_mm256_extract_epi64(acc[0], 0));
}

}  // namespace

Loops avx2_loops() {
  Loops loops;
  loops.f32 = {f32, 8 * kChains};
  loops.int16 = {int16, 16 * kChains};
  loops.int8 = {int8, 32 * kChains};
  loops.read = read;
  return loops;
}

}  // namespace limits
}  // namespace netsuke
