#include "kernels/base/scalar_math.h"

#include <cstdint>
#include <cstring>

namespace netsuke {
namespace {

constexpr double kInf = __builtin_inf();

uint64_t bits_of(double v) {
  uint64_t b;
  memcpy(&b, &v, sizeof(b));
  return b;
}
double double_of(uint64_t b) {
  double v;
  memcpy(&v, &b, sizeof(v));
  return v;
}
double nearest(double v) { return (v + 0x1.8p52) - 0x1.8p52; }  // |v| < 2^51

// 2/pi, 224 bits after the point in words of 32 bits.
constexpr uint32_t kTwoOverPi[] = {0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab};

// x = n pi/2 + r with |r| <= pi/4 (a little more where rounding decides); returns n mod 4.
int reduce_large(float x, double* r) {
  uint32_t b;
  memcpy(&b, &x, sizeof(b));
  const uint64_t m = (b & 0x7fffff) | 0x800000;
  const int e = static_cast<int>((b >> 23) & 255) - 150;  // |x| = m 2^e, -7 <= e <= 104
  unsigned __int128 turns = 0;  // |x| / (2 pi) modulo 1, in units of 2^-128
  for (int i = 0; i < 7; ++i) {
    const unsigned __int128 product = static_cast<unsigned __int128>(m) * kTwoOverPi[i];
    const int shift = 94 + e - 32 * i;
    if (shift < 128) turns += shift >= 0 ? product << shift : product >> -shift;
  }
  const int64_t fraction = static_cast<int64_t>(static_cast<uint64_t>((turns << 2) >> 64));  // of a quarter turn, signed
  int n = static_cast<int>(turns >> 126) + (fraction < 0 ? 1 : 0);
  *r = (static_cast<double>(fraction) * 0x1p-64) * 0x1.921fb54442d18p0;
  if (x < 0) {
    *r = -*r;
    n = -n;
  }
  return n & 3;
}

int reduce(float x, double* r) {
  if (x > 1e5f || x < -1e5f) return reduce_large(x, r);
  const double n = nearest(x * 0x1.45f306dc9c883p-1);
  *r = (x - n * 0x1.921fb544p0) - n * 0x1.0b4611a626331p-34;  // n has 17 bits, the first constant 33: exact
  return static_cast<int>(static_cast<int64_t>(n) & 3);
}

double sin_core(double r) {
  const double z = r * r;
  double p = z * (1.0 / 6227020800.0) - 1.0 / 39916800.0;
  p = ((p * z + 1.0 / 362880.0) * z - 1.0 / 5040.0) * z + 1.0 / 120.0;
  return r + r * (z * (p * z - 1.0 / 6.0));
}
double cos_core(double r) {
  const double z = r * r;
  double p = z * (-1.0 / 87178291200.0) + 1.0 / 479001600.0;
  p = ((p * z - 1.0 / 3628800.0) * z + 1.0 / 40320.0) * z - 1.0 / 720.0;
  return 1.0 + z * ((p * z + 1.0 / 24.0) * z - 0.5);
}

bool finite(float x) { return x - x == 0.0f; }

// log2 of a positive finite double; relative error about 1e-15.
double log2_core(double x) {
  const int64_t shifted = static_cast<int64_t>(bits_of(x) - 0x3fe6a09e667f3bcdull);
  const int64_t e = shifted >> 52;
  const double m = double_of(static_cast<uint64_t>(shifted & 0xfffffffffffffll) + 0x3fe6a09e667f3bcdull);
  const double f = m - 1.0, s = f / (2.0 + f), z = s * s;
  double p = 1.0 / 21.0;
  for (int k = 19; k >= 1; k -= 2) p = p * z + 1.0 / k;
  return static_cast<double>(e) + (2.0 * s * p) * 0x1.71547652b82fep0;
}
double exp2_core(double x) {  // -200 <= x <= 200
  const double n = nearest(x), r = (x - n) * 0x1.62e42fefa39efp-1;
  double p = 1.0;
  for (int k = 14; k >= 1; --k) p = 1.0 + p * (r * (1.0 / k));
  return p * double_of(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

}  // namespace

float sin_f32(float x) {
  if (!finite(x)) return x - x;
  if (x == 0.0f) return x;
  double r;
  const int n = reduce(x, &r);
  const double y = n & 1 ? cos_core(r) : sin_core(r);
  return static_cast<float>(n & 2 ? -y : y);
}

float cos_f32(float x) {
  if (!finite(x)) return x - x;
  double r;
  const int n = reduce(x, &r);
  const double y = n & 1 ? sin_core(r) : cos_core(r);
  return static_cast<float>(n == 1 || n == 2 ? -y : y);
}

float pow_f32(float x, float y) {
  if (y == 0.0f || x == 1.0f) return 1.0f;
  if (x != x || y != y) return x + y;
  const double magnitude = x < 0.0f ? -static_cast<double>(x) : static_cast<double>(x);
  const double ay = y < 0.0f ? -static_cast<double>(y) : static_cast<double>(y);
  const bool integer = ay >= 0x1p24 || nearest(ay) == ay;
  const bool odd = integer && ay < 0x1p24 && (static_cast<int64_t>(ay) & 1);
  uint32_t xbits;
  memcpy(&xbits, &x, sizeof(xbits));
  const bool negative = (xbits >> 31) != 0;
  const double sign = negative && odd ? -1.0 : 1.0;
  if (magnitude == 0.0) return static_cast<float>(sign * (y < 0.0f ? kInf : 0.0));
  if (magnitude == kInf) return static_cast<float>(sign * (y < 0.0f ? 0.0 : kInf));
  if (ay == kInf) return magnitude == 1.0 ? 1.0f : ((magnitude > 1.0) == (y > 0.0f) ? static_cast<float>(kInf) : 0.0f);
  if (negative && !integer) return __builtin_nanf("");
  double e = log2_core(magnitude) * y;
  e = e > 200.0 ? 200.0 : (e < -200.0 ? -200.0 : e);
  return static_cast<float>(sign * exp2_core(e));
}

}  // namespace netsuke
