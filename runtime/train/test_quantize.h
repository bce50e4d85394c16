// Codes of a table against those of the plain loops.
#ifndef NETSUKE_TRAIN_TEST_QUANTIZE_H_
#define NETSUKE_TRAIN_TEST_QUANTIZE_H_

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "train/kernels.h"
#include "train/random.h"

namespace netsuke {
namespace train {

inline void compare_quantize(const Table& table) {
  std::mt19937 rng(7);
  std::uniform_real_distribution<float> value(-3.0f, 3.0f);
  const Seed seed = {0x123456789ABCDEFull, 42};
  for (const int64_t count : {1, 63, 64, 200, 1000}) {
    for (const int64_t period : {1, 3, 8, 40}) {
      std::vector<float> x(static_cast<size_t>(count)), scale(static_cast<size_t>(period));
      for (float& v : x) v = value(rng);
      for (float& s : scale) s = 0.05f + std::abs(value(rng)) * 0.1f;
      if (count % 2 == 0) scale[0] = count == 64 ? 0x1p-126f : 0.125f;  // divided or multiplied, the same
      if (count > 70) x[65] = NAN, x[66] = INFINITY, x[67] = -INFINITY;
      for (const bool noise : {false, true}) {
        for (const bool wide : {false, true}) {
          std::vector<int16_t> a(static_cast<size_t>(count)), b(a);
          Quantize q = {x.data(), scale.data(), period, -31, 31, wide ? 0 : 31, noise ? &seed : nullptr, a.data(), wide};
          train_kernels_portable.quantize(q, 0, count);
          q.out = b.data();
          table.quantize(q, 0, count);
          CHECK(memcmp(a.data(), b.data(), static_cast<size_t>(count) * (wide ? 2 : 1)) == 0);
        }
      }
    }
  }
}

// Numbers a few steps of f32 away from where the code changes, with noise and without.
inline void compare_near_ties(const Table& table) {
  constexpr int64_t kCount = 4096, kPeriod = 24;
  std::mt19937 rng(11);
  const Seed seed = {3, 5};
  std::vector<float> x(static_cast<size_t>(kCount)), scale(static_cast<size_t>(kPeriod));
  for (const float size : {1e-6f, 0.03f, 1e12f}) {
    for (const bool noise : {false, true}) {
      for (float& s : scale) s = size * (1.0f + static_cast<float>(rng() % 1000000) * 1e-6f);
      float drawn[kNoiseBlock];
      for (int64_t i = 0; i < kCount; ++i) {
        if (i % kNoiseBlock == 0) noise_block(seed, i / kNoiseBlock, drawn);
        const double code = static_cast<double>(rng() % 260) - 130, edge = code - (noise ? static_cast<double>(drawn[i % kNoiseBlock]) : 0.5);
        float v = static_cast<float>(edge * static_cast<double>(scale[static_cast<size_t>(i % kPeriod)]));
        for (int64_t step = i % 7; step > 0; --step) v = std::nextafter(v, step % 2 == 0 ? INFINITY : -INFINITY);
        for (int64_t step = i % 11; step > 8; --step) v = std::nextafter(v, INFINITY);
        x[static_cast<size_t>(i)] = i % 5 == 0 ? std::nextafter(v, 0.0f) : v;
      }
      std::vector<uint8_t> a(x.size()), b(x.size());
      Quantize q = {x.data(), scale.data(), kPeriod, -127, 127, 127, noise ? &seed : nullptr, a.data(), false};
      train_kernels_portable.quantize(q, 0, kCount);
      q.out = b.data();
      table.quantize(q, 0, kCount);
      CHECK(a == b);
    }
  }
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_TEST_QUANTIZE_H_
