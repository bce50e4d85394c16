// Lanes in plain C++ with the compiler's 16-byte vectors: SSE2 on baseline x86-64, plain registers elsewhere.
#ifndef NETSUKE_KERNELS_BASE_LANES_PORTABLE_H_
#define NETSUKE_KERNELS_BASE_LANES_PORTABLE_H_

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace netsuke {
namespace {

typedef float LaneF __attribute__((vector_size(16)));
typedef int32_t LaneI __attribute__((vector_size(16)));
typedef uint8_t LaneB __attribute__((vector_size(16)));

struct F16 { LaneF v[4]; };
struct I16 { LaneI v[4]; };
struct B16 { LaneB v; };
struct B64 { LaneB v[4]; };

NETSUKE_LANE F16 load(const float* x) {
  F16 r;
  std::memcpy(&r, x, 64);
  return r;
}
NETSUKE_LANE void store(float* y, F16 v) { std::memcpy(y, &v, 64); }
NETSUKE_LANE F16 splat(float x) {
  const LaneF v = {x, x, x, x};
  return {{v, v, v, v}};
}
NETSUKE_LANE I16 splat_i(int32_t x) {
  const LaneI v = {x, x, x, x};
  return {{v, v, v, v}};
}

#define NETSUKE_LANES_4(type, expression)              \
  type r;                                              \
  for (int i = 0; i < 4; ++i) r.v[i] = (expression);   \
  return r

NETSUKE_LANE F16 add(F16 a, F16 b) { NETSUKE_LANES_4(F16, a.v[i] + b.v[i]); }
NETSUKE_LANE F16 sub(F16 a, F16 b) { NETSUKE_LANES_4(F16, a.v[i] - b.v[i]); }
NETSUKE_LANE F16 mul(F16 a, F16 b) { NETSUKE_LANES_4(F16, a.v[i] * b.v[i]); }
NETSUKE_LANE F16 div(F16 a, F16 b) { NETSUKE_LANES_4(F16, a.v[i] / b.v[i]); }
// A call a lane where the CPU is not known to have the instruction; only sums of files quantized elsewhere use it.
NETSUKE_LANE F16 fma(F16 a, F16 b, F16 c) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i / 4][i % 4] = __builtin_fmaf(a.v[i / 4][i % 4], b.v[i / 4][i % 4], c.v[i / 4][i % 4]);
  return r;
}
NETSUKE_LANE I16 add(I16 a, I16 b) { NETSUKE_LANES_4(I16, a.v[i] + b.v[i]); }
NETSUKE_LANE I16 sub(I16 a, I16 b) { NETSUKE_LANES_4(I16, a.v[i] - b.v[i]); }

NETSUKE_LANE F16 clamp(F16 v, F16 lo, F16 hi) {
  F16 r;
  for (int i = 0; i < 4; ++i) {
    const LaneF t = v.v[i] > lo.v[i] ? v.v[i] : lo.v[i];
    r.v[i] = t < hi.v[i] ? t : hi.v[i];
  }
  return r;
}
// A NaN of either side stays.
NETSUKE_LANE F16 pool_max(F16 acc, F16 x) {
  NETSUKE_LANES_4(F16, ((x.v[i] > acc.v[i]) | (x.v[i] != x.v[i])) ? x.v[i] : acc.v[i]);
}

NETSUKE_LANE I16 load_i32(const int32_t* x) {
  I16 r;
  std::memcpy(&r, x, 64);
  return r;
}
NETSUKE_LANE void store_i32(int32_t* y, I16 v) { std::memcpy(y, &v, 64); }
NETSUKE_LANE F16 to_f32(I16 a) { NETSUKE_LANES_4(F16, __builtin_convertvector(a.v[i], LaneF)); }
// Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits; exact for |v| < 2^22.
NETSUKE_LANE I16 round_int(F16 a) {
  const LaneF magic = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};
  NETSUKE_LANES_4(I16, __builtin_convertvector((a.v[i] + magic) - magic, LaneI));
}

#if defined(__SSE2__)  // part of baseline x86-64; element by element these two take eight times as long
NETSUKE_LANE I16 load_u8(const uint8_t* x) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x)), zero = _mm_setzero_si128();
  const __m128i low = _mm_unpacklo_epi8(bytes, zero), high = _mm_unpackhi_epi8(bytes, zero);
  return {{reinterpret_cast<LaneI>(_mm_unpacklo_epi16(low, zero)), reinterpret_cast<LaneI>(_mm_unpackhi_epi16(low, zero)),
           reinterpret_cast<LaneI>(_mm_unpacklo_epi16(high, zero)), reinterpret_cast<LaneI>(_mm_unpackhi_epi16(high, zero))}};
}
NETSUKE_LANE void store_u8(uint8_t* y, I16 a) {
  const __m128i low = _mm_packs_epi32(reinterpret_cast<__m128i>(a.v[0]), reinterpret_cast<__m128i>(a.v[1]));
  const __m128i high = _mm_packs_epi32(reinterpret_cast<__m128i>(a.v[2]), reinterpret_cast<__m128i>(a.v[3]));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm_packus_epi16(low, high));
}
#else
NETSUKE_LANE I16 load_u8(const uint8_t* x) {
  I16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = LaneI{x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]};
  return r;
}
NETSUKE_LANE void store_u8(uint8_t* y, I16 a) {
  for (int i = 0; i < 16; ++i) y[i] = static_cast<uint8_t>(a.v[i / 4][i % 4]);
}
#endif
#undef NETSUKE_LANES_4

NETSUKE_LANE B16 load_b16(const uint8_t* x) {
  B16 r;
  std::memcpy(&r, x, 16);
  return r;
}
NETSUKE_LANE void store_b16(uint8_t* y, B16 v) { std::memcpy(y, &v, 16); }
NETSUKE_LANE B16 max_b16(B16 a, B16 b) { return {a.v > b.v ? a.v : b.v}; }
NETSUKE_LANE B64 load_b64(const uint8_t* x) {
  B64 r;
  std::memcpy(&r, x, 64);
  return r;
}
NETSUKE_LANE void store_b64(uint8_t* y, B64 v) { std::memcpy(y, &v, 64); }
NETSUKE_LANE B64 max_b64(B64 a, B64 b) {
  B64 r;
  for (int i = 0; i < 4; ++i) r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return r;
}

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_LANES_PORTABLE_H_
