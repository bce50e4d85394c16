// Sixteen numbers or 64 bytes at a time, the same functions on every instruction set, so that an elementwise kernel is written
// once (generic.inc of its folder) and compiled in each x86_*.cc, arm_*.cc and portable.cc. The including file's compiler flags choose
// the implementation; NETSUKE_PORTABLE_LANES forces the plain one. Everything lives in an unnamed namespace and is always
// inlined: two files compiled for different instruction sets must never share a symbol.
//
// Each function is one IEEE or integer operation a lane, so all implementations give the same bits.
//   F16  16 f32        load, store, splat, add, sub, mul, div, fma, clamp, pool_max
//   I16  16 i32        load_i32, store_i32, load_u8, splat_i, add, sub, to_f32, round_int (halves to even, |v| < 2^22), store_u8 (0..255 only)
//   B64  64 u8         load_b64, store_b64, max_b64; B16 likewise for 16
#ifndef NETSUKE_KERNELS_BASE_LANES_H_
#define NETSUKE_KERNELS_BASE_LANES_H_

#include <cstdint>
#include <cstring>

#define NETSUKE_LANE inline __attribute__((always_inline))
// The name of this file's kernel table: with NETSUKE_TABLE avx2, NETSUKE_TABLE_NAME(qadd_kernels) is qadd_kernels_avx2.
#define NETSUKE_JOIN2(a, b) a##_##b
#define NETSUKE_JOIN(a, b) NETSUKE_JOIN2(a, b)
#define NETSUKE_TABLE_NAME(name) NETSUKE_JOIN(name, NETSUKE_TABLE)
#define NETSUKE_TEXT2(a) #a
#define NETSUKE_TEXT(a) NETSUKE_TEXT2(a)

#if defined(NETSUKE_PORTABLE_LANES)
#include "kernels/base/lanes_portable.h"
#elif defined(NETSUKE_SIMDE) || defined(__AVX512F__)
#include "kernels/base/lanes_avx512.h"
#elif defined(__AVX2__)
#include "kernels/base/lanes_avx2.h"
#elif defined(__aarch64__)
#include "kernels/base/lanes_neon.h"
#else
#include "kernels/base/lanes_portable.h"
#endif

namespace netsuke {
namespace {

// q = int(rne(clamp(t, lo, hi))) + zero, the end of every requantization; lo and hi have the zero point already taken off.
NETSUKE_LANE I16 requantize(F16 t, F16 lo, F16 hi, I16 zero) { return add(round_int(clamp(t, lo, hi)), zero); }

// The first n < 16 elements; the other lanes hold zeros and are not stored. AVX-512 has masks for it: of the copies GCC 12 makes
// rep movs, some 40 cycles a row.
#if !defined(NETSUKE_LANE_MASKS)
NETSUKE_LANE I16 load_u8_part(const uint8_t* x, int64_t n) {
  uint8_t buffer[16] = {};
  std::memcpy(buffer, x, static_cast<size_t>(n));
  return load_u8(buffer);
}
NETSUKE_LANE F16 load_part(const float* x, int64_t n) {
  float buffer[16] = {};
  std::memcpy(buffer, x, static_cast<size_t>(n) * sizeof(float));
  return load(buffer);
}
NETSUKE_LANE void store_u8_part(uint8_t* y, I16 v, int64_t n) {
  uint8_t buffer[16];
  store_u8(buffer, v);
  std::memcpy(y, buffer, static_cast<size_t>(n));
}
NETSUKE_LANE void store_part(float* y, F16 v, int64_t n) {
  float buffer[16];
  store(buffer, v);
  std::memcpy(y, buffer, static_cast<size_t>(n) * sizeof(float));
}
#endif

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_LANES_H_
