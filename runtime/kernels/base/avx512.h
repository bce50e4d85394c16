// AVX-512 intrinsics. With NETSUKE_SIMDE defined they are emulated (SIMDe plus the few it lacks), so that the very source of an
// x86_avx512*.cc is executed and compared in tests on machines without AVX-512: a folder's test_simde.cc defines it,
// raises the target to AVX2 by pragma, and includes the kernel file under another table name.
#ifndef NETSUKE_KERNELS_BASE_AVX512_H_
#define NETSUKE_KERNELS_BASE_AVX512_H_

#if !defined(NETSUKE_SIMDE)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 reports its own _mm512_undefined_*()
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#else

#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic ignored "-Wpsabi"  // 64-byte vectors as arguments; nothing here crosses a library boundary
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// What SIMDe 0.7 has not. Written lane by lane from the instruction's definition; rounding is the current mode (nearest even).
namespace netsuke_simde {

template <typename To, typename From>
inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

struct Floats { float v[16]; };
struct Ints { int32_t v[16]; };
struct Longs { int64_t v[8]; };
struct Words { uint16_t v[32]; };
struct Bytes { uint8_t v[16]; };
struct Bytes32 { uint8_t v[32]; };

inline simde__m512 cvtepi32_ps(simde__m512i a) {
  const Ints x = bits_as<Ints>(a);
  Floats r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(x.v[i]);
  return bits_as<simde__m512>(r);
}
inline simde__m512i cvtps_epi32(simde__m512 a) {
  const Floats x = bits_as<Floats>(a);
  Ints r;
  for (int i = 0; i < 16; ++i) {
    const bool fits = x.v[i] >= -2147483648.0f && x.v[i] < 2147483648.0f;
    r.v[i] = fits ? static_cast<int32_t>(std::nearbyintf(x.v[i])) : INT32_MIN;
  }
  return bits_as<simde__m512i>(r);
}
inline simde__m512i cvtepu8_epi32(simde__m128i a) {
  const Bytes x = bits_as<Bytes>(a);
  Ints r;
  for (int i = 0; i < 16; ++i) r.v[i] = x.v[i];
  return bits_as<simde__m512i>(r);
}
inline simde__m512i cvtepu8_epi16(simde__m256i a) {
  const Bytes32 x = bits_as<Bytes32>(a);
  Words r;
  for (int i = 0; i < 32; ++i) r.v[i] = x.v[i];
  return bits_as<simde__m512i>(r);
}
inline simde__m512i srav_epi64(simde__m512i a, simde__m512i count) {
  const Longs x = bits_as<Longs>(a), n = bits_as<Longs>(count);
  Longs r;
  for (int i = 0; i < 8; ++i) r.v[i] = x.v[i] >> (static_cast<uint64_t>(n.v[i]) > 63 ? 63 : n.v[i]);
  return bits_as<simde__m512i>(r);
}
inline simde__m512i srai_epi32(simde__m512i a, unsigned count) {
  Ints x = bits_as<Ints>(a);
  for (int32_t& v : x.v) v >>= count > 31 ? 31 : count;
  return bits_as<simde__m512i>(x);
}
inline simde__m128i cvtepi32_epi8(simde__m512i a) {
  const Ints x = bits_as<Ints>(a);
  Bytes r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<uint8_t>(x.v[i]);
  return bits_as<simde__m128i>(r);
}
inline simde__m128i cvtepi64_epi8(simde__m512i a) {
  const Longs x = bits_as<Longs>(a);
  Bytes r = {};
  for (int i = 0; i < 8; ++i) r.v[i] = static_cast<uint8_t>(x.v[i]);
  return bits_as<simde__m128i>(r);
}
// Bit i of a byte of x becomes the parity of it and byte 7 - i of its 64 bits of the matrix, xor bit i of c.
inline simde__m512i gf2p8affine_epi64_epi8(simde__m512i x, simde__m512i matrix, int c) {
  struct Bytes64 { uint8_t v[64]; };
  const Bytes64 from = bits_as<Bytes64>(x), rows = bits_as<Bytes64>(matrix);
  Bytes64 r;
  for (int i = 0; i < 64; ++i) {
    int v = c;
    for (int b = 0; b < 8; ++b) v ^= __builtin_parity(from.v[i] & rows.v[i / 8 * 8 + 7 - b]) << b;
    r.v[i] = static_cast<uint8_t>(v);
  }
  return bits_as<simde__m512i>(r);
}

// Memory under a zero of the mask is not touched.
inline simde__m512 maskz_loadu_ps(simde__mmask16 mask, const void* p) {
  Floats r = {};
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) r.v[i] = static_cast<const float*>(p)[i];
  }
  return bits_as<simde__m512>(r);
}
inline void mask_storeu_ps(void* p, simde__mmask16 mask, simde__m512 a) {
  const Floats x = bits_as<Floats>(a);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) static_cast<float*>(p)[i] = x.v[i];
  }
}
inline simde__m128i maskz_loadu_epi8(simde__mmask16 mask, const void* p) {
  Bytes r = {};
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) r.v[i] = static_cast<const uint8_t*>(p)[i];
  }
  return bits_as<simde__m128i>(r);
}
inline void mask_storeu_epi8(void* p, simde__mmask16 mask, simde__m128i a) {
  const Bytes x = bits_as<Bytes>(a);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) static_cast<uint8_t*>(p)[i] = x.v[i];
  }
}

}  // namespace netsuke_simde

#define __mmask16 simde__mmask16
#define __mmask64 simde__mmask64
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtps_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepu8_epi16
#undef _mm512_cvtepi32_epi8
#undef _mm512_srav_epi64
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 netsuke_simde::srai_epi32
#define _mm512_srav_epi64 netsuke_simde::srav_epi64
#define _mm512_stream_ps(to, v) simde_mm512_storeu_ps(to, v)
#define _mm512_cvtepi32_ps netsuke_simde::cvtepi32_ps
#define _mm512_cvtps_epi32 netsuke_simde::cvtps_epi32
#define _mm512_cvtepu8_epi32 netsuke_simde::cvtepu8_epi32
#define _mm512_cvtepu8_epi16 netsuke_simde::cvtepu8_epi16
#define _mm512_cvtepi32_epi8 netsuke_simde::cvtepi32_epi8
#undef _mm512_cvtepi64_epi8
#undef _mm512_gf2p8affine_epi64_epi8
#define _mm512_cvtepi64_epi8 netsuke_simde::cvtepi64_epi8
#define _mm512_gf2p8affine_epi64_epi8 netsuke_simde::gf2p8affine_epi64_epi8
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm_maskz_loadu_epi8
#undef _mm_mask_storeu_epi8
#define _mm512_maskz_loadu_ps netsuke_simde::maskz_loadu_ps
#define _mm512_mask_storeu_ps netsuke_simde::mask_storeu_ps
#define _mm_maskz_loadu_epi8 netsuke_simde::maskz_loadu_epi8
#define _mm_mask_storeu_epi8 netsuke_simde::mask_storeu_epi8

#endif  // NETSUKE_SIMDE

#endif  // NETSUKE_KERNELS_BASE_AVX512_H_
