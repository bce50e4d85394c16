// Elementary functions on vectors of float: multiplications, additions and fused ones in a written order, so every instruction set gives
// the same bits (docs/numerics.md section 8). Polynomials were fitted for this file by weighted least-maximum fits; the error of
// each approximation before rounding is given, the total is checked over all sample points by kernels/elementwise/test.cc.
// NaN gives NaN; infinities, zeros, denormals and overflow behave as in C's math.h. x f(x) with f(-inf) = 0 is NaN at -inf, as the
// product is in other frameworks.
#ifndef NETSUKE_KERNELS_BASE_MATH_H_
#define NETSUKE_KERNELS_BASE_MATH_H_

#include "kernels/base/vec.h"

namespace netsuke {
namespace {

constexpr float kInf = __builtin_inff();

// 2^n for -126 <= n <= 127.
NK_INLINE vf power_of_two(vi n) { return from_bits((n + 127) << 23); }

// x = n ln2 + r, |r| <= ln2/2. |n| < 2^9; ln2_lo is what ln2_hi lacks.
struct ExpParts {
  vi n;
  vf r, whole;
};
NK_INLINE ExpParts exp_split(vf x) {
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, found in the low bits
  const vf t = fma(x, splat(1.44269504f), magic);
  const vf n = t - magic;  // whole is n as a float
  return {bits(t) - bits(magic), fma(n, splat(-0x1.7f7d1cp-20f), fma(n, splat(-0x1.62e4p-1f), x)), n};
}
// y 2^n for y in [1/2, 2] or NaN, rounded once.
#if defined(__AVX512F__) && NETSUKE_LANES == 16
NK_INLINE vf scaled(vf y, const ExpParts& p) { return (vf)_mm512_maskz_scalef_ps(static_cast<__mmask16>(-1), (__m512)y, (__m512)p.whole); }
#else
NK_INLINE vf scaled(vf y, const ExpParts& p) {
  const vi half = p.n >> 1;  // two steps, so that only the last one rounds when the result is denormal
  return (y * power_of_two(half)) * power_of_two(p.n - half);
}
#endif
// (exp(r) - 1 - r) / r^2; exp has a relative error of 4.2e-9 from it.
NK_INLINE vf exp_tail(vf r) {
  const vf p = fma(fma(r, splat(0x1.6a2286p-10f), splat(0x1.123ae6p-7f)), r, splat(0x1.5558f8p-5f));
  return fma(fma(p, r, splat(0x1.55549p-3f)), r, splat(0x1.fffffcp-2f));
}
// exp(r) for |r| <= ln2/2.
NK_INLINE vf exp_near_zero(vf r) { return fma(fma(exp_tail(r), r, splat(1.0f)), r, splat(1.0f)); }
NK_INLINE vf exp(vf x) {
  const vf bounded = at_most(at_least(x, splat(-104.0f)), splat(89.0f));  // beyond: 0 and inf anyway
  const ExpParts p = exp_split(bounded);
  return scaled(exp_near_zero(p.r), p);
}
NK_INLINE vf expm1(vf x) {
  const vf bounded = at_most(at_least(x, splat(-30.0f)), splat(89.0f));
  const ExpParts p = exp_split(bounded);
  const vf tail = fma(p.r * p.r, exp_tail(p.r), p.r);
  const vi half = p.n >> 1;
  const vf a = power_of_two(half), b = power_of_two(p.n - half);
  const vf large = ((tail + (1.0f - power_of_two(-p.n & (p.n < 126 ? splat_int(-1) : splat_int(0))))) * a) * b;
  // n > 25: 2^-n is below the rounding of the sum; the mask only keeps its exponent in range.
  return p.n == 0 ? with_sign_of(absolute(tail), x) : large;
}

// (2 atanh(s) - 2 s) / s^3 as a function of z = s^2 <= 0.0296; error 6.2e-14.
NK_INLINE vf log_tail(vf z) {
  return (((z * 0x1.913f8ap-3f + 0x1.c6285cp-3f) * z + 0x1.24941ap-2f) * z + 0x1.999996p-2f) * z + 0x1.555556p-1f;
}
NK_INLINE vf log(vf x) {
  const vi tiny = x < 0x1p-126f;
  const vf scaled = tiny ? x * 0x1p25f : x;
  const vi shifted = (vi)((vu)scaled - 0x3f3504f3u);  // exponent relative to sqrt(1/2); wraps around for negative x, which give NaN
  const vi e = (shifted >> 23) - (tiny & 25);
  const vf f = from_bits((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;  // x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
  const vf s = f / (f + 2.0f), z = s * s, half_square = 0.5f * f * f;
  const vf n = __builtin_convertvector(e, vf);
  const vf tail = s * (half_square + z * log_tail(z)) + n * 0x1.7f7d1cp-20f;
  vf y = n * 0x1.62e4p-1f + (f - (half_square - tail));
  y = x == kInf ? splat(kInf) : y;
  y = x == 0.0f ? splat(-kInf) : y;
  y = x < 0.0f ? splat(__builtin_nanf("")) : y;
  return x != x ? x : y;
}
// log(1 + x) for 0 <= x <= 1; error of the tail 1.5e-13.
NK_INLINE vf log1p_unit(vf x) {
  const vf s = x / (x + 2.0f), z = s * s;
  vf p = z * 0x1.99f3fep-3f + 0x1.209e6ap-3f;
  p = (p * z + 0x1.76e972p-3f) * z + 0x1.c6fa7p-3f;
  p = ((p * z + 0x1.2492c2p-2f) * z + 0x1.999998p-2f) * z + 0x1.555556p-1f;
  return 2.0f * s + s * (z * p);
}

NK_INLINE vf sigmoid(vf x) { return 1.0f / (exp(-x) + 1.0f); }

NK_INLINE vf tanh(vf x) {
  const vf a = absolute(x), z = a * a;
  vf p = (z * 0x1.197b62p-9f - 0x1.0c213ep-7f) * z + 0x1.6394d8p-6f;  // below 0.625, error 1.5e-10
  p = ((p * z - 0x1.b9ef7cp-5f) * z + 0x1.11106cp-3f) * z - 0x1.555554p-2f;
  const vf small = a + a * (z * p);
  const vf large = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
  return x != x ? x : with_sign_of(a < 0.625f ? small : large, x);
}

// erfc(a) / exp(-a^2) for a >= 0.85: t P(t), t = 2 / (2 + a); relative error 9.4e-10.
NK_INLINE vf erfc_scaled(vf a) {
  const vf t = 2.0f / (a + 2.0f);
  vf p = (t * -0x1.22a60cp-4f + 0x1.ce9152p-3f) * t - 0x1.a7b5f2p-3f;
  p = ((p * t - 0x1.84944ep-7f) * t - 0x1.15f5a8p-8f) * t + 0x1.4502dp-4f;
  p = (((p * t + 0x1.6c1146p-3f) * t + 0x1.f90b58p-3f) * t + 0x1.20e23ep-2f) * t + 0x1.20dd4ep-2f;
  return t * p;
}
// erf(x) / x - 2/sqrt(pi) for |x| <= 0.94; error 1.6e-11 x^2.
NK_INLINE vf erf_tail(vf z) {
  vf p = (z * -0x1.54423cp-17f + 0x1.deb7p-14f) * z - 0x1.bdc132p-11f;
  p = ((p * z + 0x1.563caap-8f) * z - 0x1.b82b34p-6f) * z + 0x1.ce2f16p-4f;
  return (p * z - 0x1.812746p-2f) * z;
}
NK_INLINE vf erf(vf x) {
  const vf a = absolute(x), bounded = at_most(a, splat(10.0f));
  const vf small = a * 0x1.20dd76p+0f + a * (erf_tail(a * a) - 0x1.7b54fep-26f);
  const vf y = a < 0.9f ? small : 1.0f - exp(-(bounded * bounded)) * erfc_scaled(bounded);
  return x != x ? x : with_sign_of(y, x);
}
// exp(a^2 / 2) P(normal > a) for 0 <= a <= 15; relative error 3.1e-8.
struct Ratio {
  vf above, below;
};
NK_INLINE Ratio normal_tail_scaled(vf a) {
  vf p = fma(fma(a, splat(0x1.102f9p-8f), splat(0x1.4ee5dep-5f)), a, splat(0x1.78c4cp-3f));
  p = fma(fma(p, a, splat(0x1.c1d378p-2f)), a, splat(0.5f));
  vf q = fma(fma(a, splat(0x1.552172p-7f), splat(0x1.a3c1ep-4f)), a, splat(0x1.e2b8e2p-2f));
  q = fma(fma(fma(q, a, splat(0x1.349ec8p+0f)), a, splat(0x1.ad2beep+0f)), a, splat(1.0f));
  return {p, q};
}
// x P(normal <= x) = max(x, 0) - |x| P(normal > |x|): one formula for both signs, and large negative x keep their relative accuracy. For that
// the rounding error of x^2 (`lost`, up to 100 times magnified in the exponent) is taken back.
NK_INLINE vf gelu(vf x) {
  const vf magnitude = absolute(at_most(x, splat(15.0f))), a = at_most(magnitude, splat(15.0f));
  const vf square = a * a, lost = fma(a, a, -square);
  ExpParts p = exp_split(square * -0.5f);
  p.r = fma(lost, splat(-0.5f), p.r);
  const Ratio tail = normal_tail_scaled(a);
  const vf outside = scaled(exp_near_zero(p.r), p) * tail.above / tail.below;
  return fma(-magnitude, outside, at_least(x, splat(0.0f)));
}
NK_INLINE vf gelu_tanh(vf x) {  // 0.5 x (1 + tanh(v)) = x sigmoid(2 v)
  const vf v = 0x1.988454p-1f * (x + 0x1.6e4e26p-5f * (x * x * x));
  return x * sigmoid(2.0f * v);
}
NK_INLINE vf silu(vf x) { return x * sigmoid(x); }
NK_INLINE vf softplus(vf x) { return at_least(x, splat(0.0f)) + log1p_unit(exp(-absolute(x))); }
NK_INLINE vf mish(vf x) {  // x tanh(log(1 + e)), tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2)
  const vf e = exp(at_most(x, splat(20.0f))), w = e * (e + 2.0f);
  const vf y = x * (w / (w + 2.0f));
  return x > 20.0f ? x : y;
}

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_MATH_H_
