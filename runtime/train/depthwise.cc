// One channel a group: there is no product to tile, a sum has kh * kw terms (the weight gradient's: batch and positions). Plain loops over
// channels of s16 values, exact in int64 (int32 where the bound allows it), compiled for the baseline CPU.
#include <algorithm>
#include <cstring>

#include "train/products.h"

namespace netsuke {
namespace train {
namespace {

// [n][h][w][c] codes to s16 values with `pad` of zeros around.
Padded borders(const Conv& c) { return {c.top, c.left, c.h + c.top + c.bottom, c.w + c.left + c.right, c.c, nullptr, Lane::kS16}; }

int32_t weight_at(const Codes& w, int64_t i) {
  return w.wide ? static_cast<const int16_t*>(w.data)[i] : static_cast<const int8_t*>(w.data)[i];
}

// Tap-major weights: a row of channels for every tap.
std::vector<int32_t> by_tap(const Codes& w, int64_t channels, int64_t taps, const uint8_t* exponents, int top) {
  std::vector<int32_t> out(static_cast<size_t>(channels * taps));
  for (int64_t c = 0; c < channels; ++c) {
    const int shift = exponents != nullptr ? top - exponents[c] : 0;
    for (int64_t t = 0; t < taps; ++t) out[static_cast<size_t>(t * channels + c)] = weight_at(w, c * taps + t) * (1 << shift);
  }
  return out;
}

void add_products(int64_t* acc, const int16_t* x, const int32_t* w, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) acc[c] += static_cast<int64_t>(x[c]) * w[c];
}

}  // namespace

Status Trainer::depthwise_forward(const Conv& c, const Codes& x, const Codes& w, const float* mult, const float* bias, float* y) {
  const Image image = {x.data, c.n, c.h, c.w, c.c, c.c, x.zero, x.wide};
  const Padded pad = borders(c);
  NETSUKE_TRY(reserve(&a_, padded_bytes(image, pad)));
  pad_image(image, pad, a_.data(), pool_);
  const auto* a = reinterpret_cast<const int16_t*>(a_.data());
  const std::vector<int32_t> weights = by_tap(w, c.c, c.kh * c.kw, nullptr, 0);
  const int64_t oh = c.oh(), ow = c.ow();
  pool_.parallel_for(c.n * oh, [&](int64_t row, int) {
    std::vector<int64_t> acc(static_cast<size_t>(c.c));
    for (int64_t ox = 0; ox < ow; ++ox) {
      std::fill(acc.begin(), acc.end(), 0);
      for (int64_t ky = 0; ky < c.kh; ++ky) {
        const int64_t line = (row / oh * pad.hp + row % oh * c.stride_h + ky * c.dilation_h) * pad.wp;
        for (int64_t kx = 0; kx < c.kw; ++kx) {
          add_products(acc.data(), a + (line + ox * c.stride_w + kx * c.dilation_w) * c.c, weights.data() + (ky * c.kw + kx) * c.c, c.c);
        }
      }
      float* to = y + (row * ow + ox) * c.c;
      for (int64_t o = 0; o < c.c; ++o) {
        const float v = static_cast<float>(acc[static_cast<size_t>(o)]) * mult[o];
        to[o] = bias != nullptr ? v + bias[o] : v;
      }
    }
  });
  return Status();
}

Status Trainer::depthwise_input(const Conv& c, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx) {
  const int64_t oh = c.oh(), ow = c.ow();
  const Image image = {g.data, c.n, oh, ow, c.o, c.o, g.zero, g.wide};
  const Padded pad = {0, 0, oh, ow, c.o, nullptr, Lane::kS16};
  NETSUKE_TRY(reserve(&a_, padded_bytes(image, pad)));
  pad_image(image, pad, a_.data(), pool_);
  const auto* a = reinterpret_cast<const int16_t*>(a_.data());
  int top = 0;
  for (int64_t o = 0; exponents != nullptr && o < c.o; ++o) top = std::max<int>(top, exponents[o]);
  const std::vector<int32_t> weights = by_tap(w, c.c, c.kh * c.kw, exponents, top);
  pool_.parallel_for(c.n * c.h, [&](int64_t row, int) {
    std::vector<int64_t> acc(static_cast<size_t>(c.c));
    for (int64_t x = 0; x < c.w; ++x) {
      std::fill(acc.begin(), acc.end(), 0);
      for (int64_t ky = 0; ky < c.kh; ++ky) {
        const int64_t sy = row % c.h + c.top - ky * c.dilation_h;
        if (sy < 0 || sy % c.stride_h != 0 || sy / c.stride_h >= oh) continue;
        for (int64_t kx = 0; kx < c.kw; ++kx) {
          const int64_t sx = x + c.left - kx * c.dilation_w;
          if (sx < 0 || sx % c.stride_w != 0 || sx / c.stride_w >= ow) continue;
          const int64_t from = ((row / c.h * oh + sy / c.stride_h) * ow + sx / c.stride_w) * c.o;
          add_products(acc.data(), a + from, weights.data() + (ky * c.kw + kx) * c.c, c.c);
        }
      }
      for (int64_t o = 0; o < c.c; ++o) dx[(row * c.w + x) * c.c + o] = static_cast<float>(acc[static_cast<size_t>(o)]) * mult;
    }
  });
  return Status();
}

Status Trainer::depthwise_weight(const Conv& c, const Codes& x, const Codes& g, const float* mult, float* dw) {
  const int64_t oh = c.oh(), ow = c.ow(), taps = c.kh * c.kw;
  const Image image = {x.data, c.n, c.h, c.w, c.c, c.c, x.zero, x.wide}, gradient = {g.data, c.n, oh, ow, c.o, c.o, g.zero, g.wide};
  const Padded pad = borders(c), plain = {0, 0, oh, ow, c.o, nullptr, Lane::kS16};
  NETSUKE_TRY(reserve(&a_, padded_bytes(image, pad)));
  NETSUKE_TRY(reserve(&b_, padded_bytes(gradient, plain)));
  pad_image(image, pad, a_.data(), pool_);
  pad_image(gradient, plain, b_.data(), pool_);
  const auto* a = reinterpret_cast<const int16_t*>(a_.data());
  const auto* b = reinterpret_cast<const int16_t*>(b_.data());
  pool_.parallel_for(taps, [&](int64_t tap, int) {
    std::vector<int64_t> acc(static_cast<size_t>(c.c), 0);
    for (int64_t row = 0; row < c.n * oh; ++row) {
      const int64_t line = (row / oh * pad.hp + row % oh * c.stride_h + tap / c.kw * c.dilation_h) * pad.wp;
      for (int64_t ox = 0; ox < ow; ++ox) {
        const int16_t* from = a + (line + ox * c.stride_w + tap % c.kw * c.dilation_w) * c.c;
        const int16_t* with = b + (row * ow + ox) * c.c;
        for (int64_t o = 0; o < c.c; ++o) acc[static_cast<size_t>(o)] += static_cast<int32_t>(from[o]) * with[o];
      }
    }
    for (int64_t o = 0; o < c.c; ++o) dw[o * taps + tap] = static_cast<float>(acc[static_cast<size_t>(o)]) * mult[o];
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
