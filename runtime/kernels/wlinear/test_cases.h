// wlinear of one kernel table against plain loops that follow docs/numerics.md section 12 word for word.
#ifndef NETSUKE_KERNELS_WLINEAR_TEST_CASES_H_
#define NETSUKE_KERNELS_WLINEAR_TEST_CASES_H_

#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "kernels/base/test_op.h"
#include "kernels/wlinear/wlinear.h"

namespace netsuke {

struct WlinearCase {
  WlinearShape shape;
  int bits = 4;  // of integer codes
  WlinearFloat form;
  bool zero = false, bias = false;
  int64_t rows = 1;
  std::vector<uint8_t> w;  // s8 bits or float codes
  std::vector<float> scale, biases, x;
  std::vector<int8_t> zeros;
};

inline float wlinear_number(const WlinearCase& c, uint8_t code) {
  if (c.form.bits == 0) return static_cast<float>(static_cast<int8_t>(code));
  const int magnitude = code & ((1 << (c.form.bits - 1)) - 1), exponent = magnitude >> c.form.mantissa, m = magnitude & ((1 << c.form.mantissa) - 1);
  const float value = exponent == 0 ? std::ldexp(static_cast<float>(m), 1 - c.form.bias - c.form.mantissa)
                                    : std::ldexp(static_cast<float>(m + (1 << c.form.mantissa)), exponent - c.form.bias - c.form.mantissa);
  return code >> (c.form.bits - 1) & 1 ? -value : value;
}

// To bfloat16 through binary64, where every rounding is exact to see: 8 significant bits, nearest even; below 2^-100 zero.
inline float wlinear_bf16(float x) {
  if (!std::isfinite(x)) return x;
  int exponent;
  const double fraction = std::frexp(static_cast<double>(x), &exponent);
  const double y = std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
  if (std::fabs(y) < 0x1p-100) return 0.0f;
  return std::fabs(y) >= 0x1p128 ? std::copysign(INFINITY, x) : static_cast<float>(y);
}

inline std::vector<float> wlinear_reference(const WlinearCase& c, WlinearCompute compute) {
  const int64_t n = c.shape.n, k = c.shape.k, group = c.shape.group, groups = c.shape.groups();
  std::vector<float> y;
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* x = c.x.data() + r * k;
    for (int64_t o = 0; o < n; ++o) {
      float acc = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t begin = g * group, end = std::min(k, begin + group);
        const float zero = c.zero ? c.zeros[static_cast<size_t>(o * groups + g)] : 0.0f, scale = c.scale[static_cast<size_t>(o * groups + g)];
        const auto weight = [&](int64_t i) { return wlinear_number(c, c.w[static_cast<size_t>(o * k + i)]) - zero; };
        if (compute == WlinearCompute::kBf16) {
          float p = 0;
          for (int64_t i = begin; i < end; i += 2) {
            if (i + 1 < end) p = std::fma(wlinear_bf16(x[i + 1]), weight(i + 1), p);
            p = std::fma(wlinear_bf16(x[i]), weight(i), p);
          }
          acc = std::fma(p, scale, acc);
          continue;
        }
        if (compute == WlinearCompute::kF32) {
          float p = 0;
          for (int64_t i = begin; i < end; ++i) p = std::fma(x[i], weight(i), p);
          acc = std::fma(p, scale, acc);
          continue;
        }
        float top = 0, x_scale = 0;
        bool finite = true;
        for (int64_t i = begin; i < end; ++i) {
          finite = finite && std::isfinite(x[i]);
          top = std::max(top, std::fabs(x[i]));
        }
        int64_t sum = 0;
        if (!finite) {
          x_scale = std::nanf("");
        } else if (top >= 0x1p-100f) {
          x_scale = top / 127.0f;
          const float inverse = 127.0f / top;
          for (int64_t i = begin; i < end; ++i) {
            const float t = x[i] * inverse;
            sum += static_cast<int64_t>(std::nearbyint(std::min(std::max(t, -127.0f), 127.0f))) * static_cast<int64_t>(weight(i));
          }
        }
        const float step = x_scale * scale;
        acc = acc + static_cast<float>(sum) * step;
      }
      y.push_back(c.bias ? acc + c.biases[static_cast<size_t>(o)] : acc);
    }
  }
  return y;
}

inline WlinearCase wlinear_case(TestRandom& random, bool s8) {
  WlinearCase c;
  const int64_t groups[] = {32, 64, 128, 96};
  c.shape.n = random.range(1, 80);
  c.shape.k = random.range(0, 1) != 0 ? 32 * random.range(1, 9) : random.range(1, 290);
  c.shape.group = random.range(0, 3) == 0 ? c.shape.k : std::min(c.shape.k, groups[random.range(0, 3)]);
  const int widths[] = {2, 3, 4, 8};
  c.bits = widths[random.range(0, 3)];
  if (!s8 && random.range(0, 2) == 0) {
    const WlinearFloat forms[] = {{8, 3, 7}, {8, 2, 15}, {6, 2, 3}, {4, 1, 1}};
    c.form = forms[random.range(0, 3)];
  }
  c.zero = c.form.bits == 0 && random.range(0, 1) != 0;
  c.bias = random.range(0, 1) != 0;
  c.rows = random.range(0, 2) == 0 ? random.range(1, 40) : random.range(1, 5);
  if (random.range(0, 7) == 0) {  // many panels of one row: two or four at a time
    c.shape.n = random.range(0, 1) != 0 ? random.range(230, 330) : random.range(490, 620);
    c.shape.k = std::min<int64_t>(c.shape.k, 100);
    c.shape.group = std::min(c.shape.group, c.shape.k);
    c.rows = 1;
  }
  if (random.range(0, 11) == 0) {  // floats take them in several chunks
    c.rows = random.range(140, 300);
    c.shape.n = random.range(1, 40);
  }
  if (random.range(0, 11) == 0) {  // several slices of k, and groups that are longer than one
    c.shape.n = random.range(1, 40);
    c.shape.k = random.range(520, 1300);
    c.shape.group = random.range(0, 2) == 0 ? c.shape.k : std::min<int64_t>(c.shape.k, 32 * random.range(1, 24));
    c.rows = random.range(1, 14);
  }
  const int half = 1 << (c.bits - 1);
  const bool extreme = random.range(0, 3) == 0;
  for (int64_t i = 0; i < c.shape.n * c.shape.k; ++i) {
    if (c.form.bits != 0) {
      const int sign = 1 << (c.form.bits - 1), largest = c.form.bits < 8 ? sign - 1 : c.form.mantissa == 3 ? 0x7e : 0x7b;
      c.w.push_back(static_cast<uint8_t>(random.range(0, largest) + (random.range(0, 1) != 0 ? sign : 0)));
    } else {
      c.w.push_back(static_cast<uint8_t>(extreme ? (random.range(0, 1) != 0 ? half - 1 : -half) : random.range(-half, half - 1)));
    }
  }
  for (int64_t i = 0; i < c.shape.n * c.shape.groups(); ++i) {
    c.scale.push_back(random.uniform(-0.1f, 0.1f));
    c.zeros.push_back(static_cast<int8_t>(extreme ? (random.range(0, 1) != 0 ? 127 : -128) : random.range(-half, half - 1)));
  }
  for (int64_t i = 0; i < c.shape.n; ++i) c.biases.push_back(random.uniform(-1, 1));
  for (int64_t i = 0; i < c.rows * c.shape.k; ++i) c.x.push_back(extreme ? (random.range(0, 1) != 0 ? 1.0f : -1.0f) : random.uniform(-3, 3));
  const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, 1e-38f, 3e38f, 0x1p-101f, 0x1.ffp-101f, 0x1p-100f, 3.4e38f, 0x1.01p0f, 0x1.03p0f};
  if (random.range(0, 5) == 0) c.x[static_cast<size_t>(random.range(0, c.rows * c.shape.k - 1))] = odd[random.range(0, 11)];
  if (random.range(0, 9) == 0) std::fill(c.x.begin(), c.x.end(), random.range(0, 1) != 0 ? 0.0f : 0x1p-101f);
  return c;
}

// kinds: the ways to compute, in turn.
inline void compare_wlinear(const WlinearKernels& kernels, int cases, const std::vector<WlinearCompute>& kinds) {
  for (int i = 0; i < cases; ++i) {
    TestRandom random(static_cast<uint64_t>(i));
    const WlinearCompute compute = kinds[static_cast<size_t>(i) % kinds.size()];
    const bool s8 = compute == WlinearCompute::kS8;
    const WlinearCase c = wlinear_case(random, s8);
    const std::vector<float> want = wlinear_reference(c, compute);
    WlinearWeights weights;
    CHECK_OK(weights.pack(c.shape, compute, c.w.data(), c.form, c.scale.data(), c.zero ? c.zeros.data() : nullptr, c.bias ? c.biases.data() : nullptr,
                          s8 ? kernels.byte_offset : 128));
    for (int threads : {1, 3}) {
      ThreadPool pool(threads);
      if (threads == 1 && i % 3 == 0) weights.count_as_far();
      Buffer scratch;
      CHECK_OK(scratch.allocate(wlinear_scratch_bytes(c.shape, c.rows, compute)));
      std::vector<float> got(want.size() + 1, -77.0f);
      wlinear_run(kernels, weights, compute, c.x.data(), c.rows, got.data(), scratch.data(), pool);
      CHECK(got.back() == -77.0f);  // nothing written behind y
      bool same = true;
      for (size_t j = 0; j < want.size(); ++j) same = same && (std::memcmp(&want[j], &got[j], 4) == 0 || (std::isnan(want[j]) && std::isnan(got[j])));
      if (!CHECK(same)) {
        std::fprintf(stderr, "  case %d: %s, compute %d, %d bits, form %d, [%lld, %lld] group %lld, %lld rows, zero %d\n", i, kernels.name, static_cast<int>(compute), c.bits, c.form.bits,
                     static_cast<long long>(c.shape.n), static_cast<long long>(c.shape.k), static_cast<long long>(c.shape.group),
                     static_cast<long long>(c.rows), c.zero);
      }
    }
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_WLINEAR_TEST_CASES_H_
