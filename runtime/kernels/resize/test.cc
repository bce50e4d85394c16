// resize against a plain transcription of numerics.md section 6: bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_NAME "wide"
#include "kernels/resize/generic.inc"

namespace {

using namespace netsuke;

double position(const std::string& coord, int64_t i, int64_t size, int64_t out, double scale) {
  const double at = static_cast<double>(i);
  if (coord == "align_corners") return out == 1 ? 0 : at * (static_cast<double>(size - 1) / static_cast<double>(out - 1));
  if (coord == "asymmetric") return at / scale;
  if (coord == "pytorch_half_pixel" && out == 1) return 0;
  return (at + 0.5) / scale - 0.5;
}

double clamped(double v, int64_t size) { return std::fmin(std::fmax(v, 0), static_cast<double>(size - 1)); }

int64_t nearest(const std::string& mode, double v, int64_t size) {
  const double r = mode == "floor" ? std::floor(v) : (mode == "ceil" ? std::ceil(v) : (mode == "round_prefer_floor" ? std::ceil(v - 0.5) : std::floor(v + 0.5)));
  return static_cast<int64_t>(clamped(r, size));
}

template <typename T>
void check_case(const Shape& shape, int64_t oh, int64_t ow, const float* scales, const std::string& coord, const std::string& mode, const std::string& how, uint64_t seed) {
  TestRandom random(seed);
  const bool codes = sizeof(T) == 1;
  TestTensor x(codes ? DType::kU8 : DType::kF32, shape), sizes(DType::kI64, make_shape({2}), true), factor(DType::kF32, make_shape({2}), true);
  for (int64_t i = 0; i < x.size(); ++i) x.data<T>()[i] = static_cast<T>(codes ? static_cast<float>(random.below(256)) : random.unit());
  sizes.data<int64_t>()[0] = oh;
  sizes.data<int64_t>()[1] = ow;
  for (int i = 0; i < 2 && scales; ++i) factor.data<float>()[i] = scales[i];
  const std::vector<TestTensor> in = {x, scales ? TestTensor() : sizes, scales ? factor : TestTensor()};
  const int64_t h = shape.dim[1], w = shape.dim[2], c = shape.dim[3];
  const double sy = scales ? scales[0] : static_cast<double>(oh) / static_cast<double>(h), sx = scales ? scales[1] : static_cast<double>(ow) / static_cast<double>(w);
  TestTensor expected(x.dtype, make_shape({shape.dim[0], oh, ow, c}));
  for (int64_t i = 0; i < expected.size(); ++i) {
    const int64_t ch = i % c, ox = i / c % ow, oy = i / c / ow % oh, n = i / c / ow / oh;
    const double py = position(coord, oy, h, oh, sy), px = position(coord, ox, w, ow, sx);
    const auto at = [&](int64_t iy, int64_t ix) { return x.data<T>()[((n * h + iy) * w + ix) * c + ch]; };
    if (mode == "nearest") {
      expected.data<T>()[i] = at(nearest(how, py, h), nearest(how, px, w));
      continue;
    }
    const double cy = clamped(py, h), cx = clamped(px, w);
    const int64_t y0 = static_cast<int64_t>(cy), x0 = static_cast<int64_t>(cx), y1 = std::min(y0 + 1, h - 1), x1 = std::min(x0 + 1, w - 1);
    const float wy = static_cast<float>(cy - static_cast<double>(y0)), wx = static_cast<float>(cx - static_cast<double>(x0));
    const float a = at(y0, x0), b = at(y0, x1), d = at(y1, x0), e = at(y1, x1);
    const float upper = a + wx * (b - a), lower = d + wx * (e - d), y = upper + wy * (lower - upper);
    expected.data<T>()[i] = static_cast<T>(codes ? std::nearbyintf(y) : y);
  }
  const std::string attrs = "{\"mode\":\"" + mode + "\",\"coord\":\"" + coord + "\",\"nearest\":\"" + how + "\"}";
  for (Isa isa : testable_isas()) {
    std::vector<TestTensor> out;
    CHECK_OK(OpRunner("resize", attrs.c_str(), in, 1, isa, 2)(in, &out));
    if (!CHECK(!out.empty() && same_floats(expected, out[0]))) std::fprintf(stderr, "  %s %s %s\n", shape_text(shape).c_str(), attrs.c_str(), isa_name(isa));
  }
}

template <typename T>
void check_all() {
  uint64_t seed = 1;
  const float scales[] = {1.7f, 0.6f};
  for (const char* coord : {"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"}) {
    for (const char* how : {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}) {
      for (const char* mode : {"nearest", "linear"}) {
        check_case<T>(make_shape({2, 5, 7, 3}), 10, 14, nullptr, coord, mode, how, seed++);
        check_case<T>(make_shape({1, 9, 8, 37}), 4, 1, nullptr, coord, mode, how, seed++);
        check_case<T>(make_shape({1, 5, 10, 8}), 8, 6, scales, coord, mode, how, seed++);
        check_case<T>(make_shape({1, 1, 1, 5}), 3, 2, nullptr, coord, mode, how, seed++);
      }
    }
  }
}

void check_wide() {
  TestRandom random(6);
  const int64_t n = 53;
  const TestTensor x = random.floats(make_shape({4, n}));
  std::vector<uint8_t> codes(4 * n);
  for (uint8_t& q : codes) q = static_cast<uint8_t>(random.below(256));
  std::vector<float> a(n), b(n);
  std::vector<uint8_t> qa(n), qb(n);
  const float* p = x.data<float>();
  resize_kernels_wide.linear_f32({p, p + n, p + 2 * n, p + 3 * n, 0.3f, 0.8f, a.data(), n});
  resize_kernels_portable.linear_f32({p, p + n, p + 2 * n, p + 3 * n, 0.3f, 0.8f, b.data(), n});
  resize_kernels_wide.linear_u8({codes.data(), codes.data() + n, codes.data() + 2 * n, codes.data() + 3 * n, 0.3f, 0.5f, qa.data(), n});
  resize_kernels_portable.linear_u8({codes.data(), codes.data() + n, codes.data() + 2 * n, codes.data() + 3 * n, 0.3f, 0.5f, qb.data(), n});
  CHECK(a == b);
  CHECK(qa == qb);
}

void check_refusals() {
  TestRandom random(2);
  std::vector<TestTensor> out;
  const TestTensor x = random.floats(make_shape({1, 4, 4, 2}));
  TestTensor sizes(DType::kI64, make_shape({2}), true);
  CHECK(!OpRunner("resize", "{}", {x, sizes}, 1, Isa::kPortable, 1)({x, sizes}, &out).ok());  // 0 x 0
  sizes.data<int64_t>()[0] = sizes.data<int64_t>()[1] = int64_t{1} << 40;
  CHECK(!OpRunner("resize", "{}", {x, sizes}, 1, Isa::kPortable, 1)({x, sizes}, &out).ok());
  CHECK(!OpRunner("resize", "{}", {x, TestTensor(), TestTensor()}, 1, Isa::kPortable, 1)({x, TestTensor(), TestTensor()}, &out).ok());
  const TestTensor nan = floats(make_shape({2}), {NAN, 1}, true);
  CHECK(!OpRunner("resize", "{}", {x, TestTensor(), nan}, 1, Isa::kPortable, 1)({x, TestTensor(), nan}, &out).ok());
}

}  // namespace

int main() {
  check_all<float>();
  check_all<uint8_t>();
  check_wide();
  check_refusals();
  return check_result();
}
