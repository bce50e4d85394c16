// The portable vectors: fma without the instruction against the C library's, on the cases where a double rounding would show; rounding;
// sin and cos of large arguments.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"
#include "kernels/base/scalar_math.h"

#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable_test
#include "kernels/base/vec.h"

namespace {

using namespace netsuke;

float float_of(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

bool same(float a, float b) { return std::memcmp(&a, &b, 4) == 0 || (a != a && b != b); }

void check_fma() {
  TestRandom random(17);
  int64_t bad = 0;
  for (int i = 0; i < 400000; ++i) {
    float v[3][4];
    for (int lane = 0; lane < 4; ++lane) {
      float a = float_of(random.next()), b = float_of(random.next()), c = float_of(random.next());
      if (i % 2) {  // near ties: c is the product's rounding, moved by a few of its last bits or far below them
        a = float_of((random.next() & 0x807fffff) | static_cast<uint32_t>(90 + random.below(70)) << 23);
        b = float_of((random.next() & 0x807fffff) | static_cast<uint32_t>(90 + random.below(70)) << 23);
        c = -a * b * (i % 4 == 1 ? 1.0f : std::ldexp(1.0f, static_cast<int>(random.below(60)) - 30));
        if (random.below(3) == 0) c = float_of((random.next() & 0x80000000u) | static_cast<uint32_t>(1 + random.below(250)) << 23);
      }
      if (i % 16 == 7) a = float_of(random.next() & 0x803fffff), c = float_of(random.next() & 0x80ffffff);  // subnormal
      v[0][lane] = a;
      v[1][lane] = b;
      v[2][lane] = c;
    }
    float out[4];
    store(out, fma(load(v[0]), load(v[1]), load(v[2])));
    for (int lane = 0; lane < 4; ++lane) bad += !same(out[lane], std::fma(v[0][lane], v[1][lane], v[2][lane]));
  }
  CHECK(bad == 0);
}

void check_rounding() {
  TestRandom random(18);
  int64_t bad = 0;
  for (int i = 0; i < 100000; ++i) {
    const float v = i % 2 ? float_of(random.next()) : static_cast<float>(random.below(4000001) - 2000000) / 4;
    bad += !same(round_even(splat(v))[0], std::nearbyintf(v)) + !same(round_down(splat(v))[1], std::floor(v));
  }
  CHECK(bad == 0);
  CHECK(std::signbit(splat(-0.0f)[2]));
}

// Large arguments, where the reduction by pi/2 needs many bits of it.
void check_trigonometry() {
  TestRandom random(19);
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const float v = float_of(random.next());
    if (!std::isfinite(v) || std::fabs(v) < 1e-30f) continue;
    const double s = std::sin(static_cast<double>(v)), c = std::cos(static_cast<double>(v));
    worst = std::fmax(worst, std::fabs(sin_f32(v) - s) / std::fabs(s));
    worst = std::fmax(worst, std::fabs(cos_f32(v) - c) / std::fabs(c));
  }
  CHECK(worst < 0x1p-23);
}

}  // namespace

int main() {
  check_fma();
  check_rounding();
  check_trigonometry();
  return check_result();
}
