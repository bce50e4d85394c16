// AVX2: FMA, VPMADDWD, and VPMADDUBSW + VPMADDWD for 8 bits. Ten accumulators cover the latency of the multiply pipes
// (4 to 5 cycles, two a cycle).
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
    asm volatile("" : "+x"(a), "+x"(b));  // the product is not to be hoisted
    for (auto& v : acc) v = _mm256_fmadd_ps(a, b, v);
  }
  __m256 sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm256_add_ps(sum, acc[j]);
  return static_cast<uint64_t>(_mm256_cvtss_f32(sum));
}

// Eight sums a round, as one block of instructions: products of the same operands would be merged, and whatever kept them apart made GCC 12
// hold sums in memory (45 instead of 80 GMAC/s, less than the kernels reach).
constexpr int kBlock = 8;

struct Block {
  __m256i v0, v1, v2, v3, v4, v5, v6, v7;
};

Block zeros() {
  const __m256i z = _mm256_setzero_si256();
  return {z, z, z, z, z, z, z, z};
}

uint64_t fold(const Block& s) {
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(s.v0, s.v1), _mm256_add_epi32(s.v2, s.v3)),
                                       _mm256_add_epi32(_mm256_add_epi32(s.v4, s.v5), _mm256_add_epi32(s.v6, s.v7)));
  return static_cast<uint64_t>(static_cast<uint32_t>(_mm256_extract_epi32(sum, 0)));
}

#define NK_EIGHT(step) step("0") step("1") step("2") step("3") step("4") step("5") step("6") step("7")
#define NK_SUMS(s) "+x"(s.v0), "+x"(s.v1), "+x"(s.v2), "+x"(s.v3), "+x"(s.v4), "+x"(s.v5), "+x"(s.v6), "+x"(s.v7)
#define NK_STEP16(n) "vpmaddwd %9, %8, %%ymm15\n\tvpaddd %%ymm15, %" n ", %" n "\n\t"
#define NK_STEP8(n) "vpmaddubsw %9, %8, %%ymm15\n\tvpmaddwd %10, %%ymm15, %%ymm15\n\tvpaddd %%ymm15, %" n ", %" n "\n\t"

uint64_t int16(int64_t count) {
  Block s = zeros();
  const __m256i a = _mm256_set1_epi16(3), b = _mm256_set1_epi16(5);
  for (int64_t i = 0; i < count; ++i) asm volatile(NK_EIGHT(NK_STEP16) : NK_SUMS(s) : "x"(a), "x"(b) : "xmm15");
  return fold(s);
}

uint64_t int8(int64_t count) {
  Block s = zeros();
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), one = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < count; ++i) asm volatile(NK_EIGHT(NK_STEP8) : NK_SUMS(s) : "x"(a), "x"(b), "x"(one) : "xmm15");
  return fold(s);
}

// XOR and the popcount of bytes by two lookups of nibbles; byte sums may wrap, no kernel could leave their widening out.
uint64_t bits(int64_t count) {
  constexpr int kSums = 8;
  __m256i acc[kSums], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  for (auto& v : acc) v = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) {
      asm volatile("" : "+x"(a));
      const __m256i x = _mm256_xor_si256(a, b);
      const __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(x, low));
      const __m256i second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
      v = _mm256_add_epi8(v, _mm256_add_epi8(first, second));
    }
  }
  __m256i sum = acc[0];
  for (int j = 1; j < kSums; ++j) sum = _mm256_add_epi32(sum, acc[j]);
  return static_cast<uint64_t>(static_cast<uint32_t>(_mm256_extract_epi32(sum, 0)));
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
  loops.int16 = {int16, 16 * kBlock};
  loops.int8 = {int8, 32 * kBlock};
  loops.bits = {bits, 256 * 8};
  loops.read = read;
  return loops;
}

}  // namespace limits
}  // namespace netsuke
