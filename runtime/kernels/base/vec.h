// Vectors of float for kernels that are written once and compiled for every instruction set. The including file defines
//   NETSUKE_LANES   floats in one register: 4, 8 or 16
//   NETSUKE_TABLE   suffix of its kernel tables: portable, avx2, avx512vnni, neon
// Everything is in an unnamed namespace: two files compiled for different CPUs must never share an inline function, or the
// linker might keep the copy that the running CPU cannot execute. For the same reason no std:: template is used here.
//
// Each operation is one IEEE operation per lane, so the width of a vector never shows in a result.
#ifndef NETSUKE_KERNELS_BASE_VEC_H_
#define NETSUKE_KERNELS_BASE_VEC_H_

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define NK_INLINE static inline __attribute__((always_inline))
#define NK_JOIN2(a, b) a##_##b
#define NK_JOIN(a, b) NK_JOIN2(a, b)
// The name of this file's kernel table, e.g. NK_TABLE(fgemm_kernels) is fgemm_kernels_avx2.
#define NK_TABLE(name) NK_JOIN(name, NETSUKE_TABLE)

namespace netsuke {
namespace {

constexpr int kLanes = NETSUKE_LANES;
typedef float vf __attribute__((vector_size(4 * NETSUKE_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * NETSUKE_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * NETSUKE_LANES)));
typedef uint8_t vb __attribute__((vector_size(NETSUKE_LANES)));
typedef float vf_any __attribute__((vector_size(4 * NETSUKE_LANES), aligned(4), may_alias));
typedef uint8_t vb_any __attribute__((vector_size(NETSUKE_LANES), aligned(1), may_alias));

NK_INLINE vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
NK_INLINE void store(float* p, vf v) { *reinterpret_cast<vf_any*>(p) = v; }
NK_INLINE vf splat(float v) { return v - vf{}; }  // v - 0 is v, also for -0; compilers make a broadcast of it
NK_INLINE vi splat_int(int32_t v) { return v - vi{}; }
NK_INLINE vi bits(vf v) { return (vi)v; }  // same bits: between vectors a C cast reinterprets
NK_INLINE vf from_bits(vi v) { return (vf)v; }

// The first n lanes (n < kLanes); the others are 0 and are not stored. Lanes that are not asked for are not touched: a row may end a page.
#if defined(__AVX2__) && NETSUKE_LANES == 8
NK_INLINE vf load_part(const float* p, int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (vf)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lane));
}
// Not vmaskmovps: as a store it is microcode on AMD. Nor memcpy: a call for a handful of bytes.
NK_INLINE void store_part(float* p, vf v, int64_t n) {
  __m128 part = _mm256_castps256_ps128((__m256)v);
  if (n & 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps((__m256)v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, part);
}
#elif defined(__AVX512F__) && NETSUKE_LANES == 16
NK_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<uint32_t>(n))); }
NK_INLINE vf load_part(const float* p, int64_t n) { return (vf)_mm512_maskz_loadu_ps(first_lanes(n), p); }
NK_INLINE void store_part(float* p, vf v, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v); }
#else
NK_INLINE vf load_part(const float* p, int64_t n) {
  vf v = {};
  memcpy(&v, p, static_cast<size_t>(n) * sizeof(float));
  return v;
}
NK_INLINE void store_part(float* p, vf v, int64_t n) { memcpy(p, &v, static_cast<size_t>(n) * sizeof(float)); }
#endif

// Integers in 0..255 to bytes. Of __builtin_convertvector GCC 12 makes a dozen shuffles for 8 lanes.
#if defined(__AVX2__) && NETSUKE_LANES == 8
NK_INLINE vb bytes_of(vi v) {
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  const int64_t eight = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  vb b;
  memcpy(&b, &eight, 8);
  return b;
}
#else
NK_INLINE vb bytes_of(vi v) { return __builtin_convertvector(v, vb); }
#endif
NK_INLINE void store_bytes(uint8_t* p, vi v) { *reinterpret_cast<vb_any*>(p) = bytes_of(v); }
#if defined(__AVX512F__) && NETSUKE_LANES == 16
NK_INLINE void store_bytes_part(uint8_t* p, vi v, int64_t n) { _mm_mask_storeu_epi8(p, first_lanes(n), (__m128i)bytes_of(v)); }
#else
NK_INLINE void store_bytes_part(uint8_t* p, vi v, int64_t n) {
  const vb last = bytes_of(v);
  uint8_t all[kLanes];
  memcpy(all, &last, kLanes);
  for (int64_t i = 0; i < n; ++i) p[i] = all[i];
}
#endif

#if defined(__AVX512F__) && NETSUKE_LANES == 16
NK_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
NK_INLINE vf square_root(vf v) { return (vf)_mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), (__m512)v); }
#elif defined(__AVX2__) && NETSUKE_LANES == 8
NK_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
NK_INLINE vf square_root(vf v) { return (vf)_mm256_sqrt_ps((__m256)v); }
#elif defined(__aarch64__) && NETSUKE_LANES == 4
NK_INLINE vf fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
NK_INLINE vf square_root(vf v) { return (vf)vsqrtq_f32((float32x4_t)v); }
#else
// Any width on any CPU; also how tests run the 16-lane kernels where there is no AVX-512.
#if defined(__FMA__) || !defined(__SSE2__) || NETSUKE_LANES != 4
NK_INLINE vf fma(vf a, vf b, vf c) {
  vf r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
#else
// Two lanes of fma without the instruction: the product is exact in double, the sum is rounded to odd (its last bit set when it is not
// exact), which makes the final rounding to float correct. The C library's fmaf is a call a lane and, on CPUs that lack the
// instruction, over ten times slower. The conversions are intrinsics: of (double)(float)x written lane by lane, GCC 12 at -O2 drops
// both halves when one fma feeds the next, and the sum is never rounded to float.
typedef int64_t vl2 __attribute__((vector_size(16)));
NK_INLINE __m128d fma_to_odd(__m128d a, __m128d b, __m128d c) {
  const __m128d p = a * b, sum = p + c, back = sum - p;
  const __m128d lost = (p - (sum - back)) + (c - back);  // sum + lost is exact; NaN where sum is not finite, then nothing changes
  const vl2 even = ((vl2)sum & 1) - 1, apart = (lost > 0.0) ^ (sum > 0.0);
  const vl2 step = (apart | 1) & even & ((lost > 0.0) | (lost < 0.0));
  return (__m128d)((vl2)sum + step);
}
NK_INLINE vf fma(vf a, vf b, vf c) {
  const __m128 x = (__m128)a, y = (__m128)b, z = (__m128)c;
  const __m128d low = fma_to_odd(_mm_cvtps_pd(x), _mm_cvtps_pd(y), _mm_cvtps_pd(z));
  const __m128d high =
      fma_to_odd(_mm_cvtps_pd(_mm_movehl_ps(x, x)), _mm_cvtps_pd(_mm_movehl_ps(y, y)), _mm_cvtps_pd(_mm_movehl_ps(z, z)));
  return (vf)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#endif
NK_INLINE vf square_root(vf v) {
  vf r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(v[i]);
  return r;
}
#endif

// Says that a vector is changed here, so the compiler keeps it in a register: it would otherwise load a weight again for every use, or
// undo a broadcast to work on the scalar.
#if (NETSUKE_LANES == 8 && defined(__AVX2__)) || (NETSUKE_LANES == 16 && defined(__AVX512F__))
#define NK_KEEP(v) __asm__("" : "+v"(v))
#elif NETSUKE_LANES == 4 && defined(__aarch64__)
#define NK_KEEP(v) __asm__("" : "+w"(v))
#else
#define NK_KEEP(v)
#endif

// a where it is larger (smaller), else b: also where one of them is NaN, or both are zeros. Of the comparison GCC 12 makes a mask and a blend
// in 512 bits, 6 cycles a step where the instruction takes 2.
#if defined(__AVX512F__) && NETSUKE_LANES == 16
NK_INLINE vf larger(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
NK_INLINE vf smaller(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#else
NK_INLINE vf larger(vf a, vf b) { return a > b ? a : b; }
NK_INLINE vf smaller(vf a, vf b) { return a < b ? a : b; }
#endif
// NaN in v stays NaN; lo and hi are never NaN.
NK_INLINE vf at_least(vf v, vf lo) { return larger(lo, v); }
NK_INLINE vf at_most(vf v, vf hi) { return smaller(hi, v); }

NK_INLINE vf absolute(vf v) { return from_bits(bits(v) & 0x7fffffff); }
NK_INLINE vi sign_bit(vf v) { return bits(v) & static_cast<int32_t>(0x80000000u); }
NK_INLINE vf with_sign_of(vf magnitude, vf v) { return from_bits(bits(magnitude) | sign_bit(v)); }
NK_INLINE vf select(vi mask, vf a, vf b) { return mask ? a : b; }

// Nearest integer, halves to even: adding 2^23 leaves no fraction bits. Values of 2^23 and more are integers already.
NK_INLINE vf round_even(vf v) {
  const vf magnitude = absolute(v), magic = splat(8388608.0f);
  const vf rounded = with_sign_of((magnitude + magic) - magic, v);
  return magnitude < magic ? rounded : v;  // a NaN takes the second branch
}
// numerics.md section 2. t > lo ? t : lo sends a NaN to lo; the bounds are integers, so rounding afterwards stays inside them.
struct Quantizer {
  vf scale, lo, hi;
  vi zero;
};
NK_INLINE Quantizer quantizer(float scale, int32_t zero) {
  return {splat(scale), splat(static_cast<float>(-zero)), splat(static_cast<float>(255 - zero)), splat_int(zero)};
}
NK_INLINE vi quantize_vector(vf x, const Quantizer& q) {
  vf t = x / q.scale;
  t = smaller(larger(t, q.lo), q.hi);
  const vf magic = splat(12582912.0f);
  return bits(t + magic) - bits(magic) + q.zero;
}

NK_INLINE vf round_down(vf v) {
  const vf r = round_even(v);
  return r > v ? r - 1.0f : r;
}

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_VEC_H_
