// AVX-512: FMA, VPDPWSSD, VPDPBUSD. The accumulator is read and written by one instruction, so nothing can be hoisted; twelve
// chains cover its latency of four to five cycles at two a cycle.
#include <immintrin.h>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kChains = 12;

// Through memory: GCC 12's casts to 128 bits warn about their own undefined upper half.
uint64_t first(__m512i v) {
  alignas(64) uint64_t lanes[8];
  _mm512_store_si512(lanes, v);
  return lanes[0];
}

uint64_t f32(int64_t count) {
  __m512 acc[kChains], a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(1e-9f);
  for (auto& v : acc) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = _mm512_fmadd_ps(a, b, v);
  }
  __m512 sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm512_add_ps(sum, acc[j]);
  return first(_mm512_castps_si512(sum));
}

uint64_t fold(const __m512i* acc) {
  __m512i sum = acc[0];
  for (int j = 1; j < kChains; ++j) sum = _mm512_add_epi32(sum, acc[j]);
  return first(sum);
}

uint64_t int16(int64_t count) {
  __m512i acc[kChains], a = _mm512_set1_epi16(3), b = _mm512_set1_epi16(5);
  for (auto& v : acc) v = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = _mm512_dpwssd_epi32(v, a, b);
  }
  return fold(acc);
}

uint64_t int8(int64_t count) {
  __m512i acc[kChains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
  for (auto& v : acc) v = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; ++i) {
    for (auto& v : acc) v = _mm512_dpbusd_epi32(v, a, b);
  }
  return fold(acc);
}

// kAsk: asks for every line this many bytes ahead.
template <int kAsk>
uint64_t read_lines(const uint8_t* data, size_t bytes) {
  __m512i acc[8];
  for (auto& v : acc) v = _mm512_setzero_si512();
  for (size_t i = 0; i < bytes; i += 512) {
    for (int j = 0; j < 8; ++j) {
      if (kAsk != 0) _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(data) + i + 64 * j + kAsk), _MM_HINT_T0);
      acc[j] = _mm512_xor_si512(acc[j], _mm512_load_si512(data + i + 64 * j));
    }
  }
  for (int j = 1; j < 8; ++j) acc[0] = _mm512_xor_si512(acc[0], acc[j]);
  return first(acc[0]);
}

// Behind the second level plain loads leave a Zen 5 core waiting: 95 to 116 GB/s of the third level, 124 where each line is asked for.
uint64_t read(const uint8_t* data, size_t bytes) { return bytes >= (size_t{2} << 20) ? read_lines<2048>(data, bytes) : read_lines<0>(data, bytes); }

}  // namespace

Loops avx512vnni_loops() {
  Loops loops;
  loops.f32 = {f32, 16 * kChains};
  loops.int16 = {int16, 32 * kChains};
  loops.int8 = {int8, 64 * kChains};
  loops.read = read;
  return loops;
}

}  // namespace limits
}  // namespace netsuke
