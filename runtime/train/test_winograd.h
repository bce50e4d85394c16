// Winograd kernels of a table against the matrices they stand for.
#ifndef NETSUKE_TRAIN_TEST_WINOGRAD_H_
#define NETSUKE_TRAIN_TEST_WINOGRAD_H_

#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "train/kernels.h"

namespace netsuke {
namespace train {

// Lavin and Gray 2016 (arXiv 1509.09308), F(4, 3): B^T; G with rows times (24, 24, 24, 24, 24, 6) / (4, 4, 4, 1, 1, 1); A^T.
constexpr int kBt[6][6] = {{4, 0, -5, 0, 1, 0}, {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0}, {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
constexpr int kG4[6][4] = {{6, 0, 0, 0}, {-1, -1, -1, -1}, {-1, 1, -1, 1}, {1, 2, 4, 8}, {1, -2, 4, -8}, {0, 0, 0, 6}};
constexpr int kG3[6][3] = {{6, 0, 0}, {-1, -1, -1}, {-1, 1, -1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 6}};

template <int N>
int transformed(const int (&matrix)[6][N], const int* x, int at) {  // x [N][N]
  int sum = 0;
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) sum += matrix[at / 6][i] * x[i * N + j] * matrix[at % 6][j];
  }
  return sum;
}

template <int N>
void compare_pairs(const int (&matrix)[6][N], void (*kernel)(const WinogradPairs&), bool weights, std::mt19937& rng) {
  constexpr int kChannels = 32, kPixels = N * N;
  std::vector<uint8_t> bytes(2 * kPixels * kChannels);
  for (uint8_t& b : bytes) b = weights ? static_cast<uint8_t>(rng() % 255 - 127) : static_cast<uint8_t>(rng());
  const uint8_t zero = weights ? 0 : N == 4 ? 127 : 9;
  if (N == 4) {
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(b % 255);
  }
  const uint8_t* pixel[2][kPixels];
  for (int i = 0; i < 2 * kPixels; ++i) pixel[i / kPixels][i % kPixels] = bytes.data() + i * kChannels;
  const int64_t stride = 3 * 16 * 2, panel = 3 * 16;
  std::vector<uint32_t> v(static_cast<size_t>(36 * stride), 7);
  const int16_t second = weights ? 4 : 1;
  kernel({pixel[0], pixel[1], kChannels, zero, {1, second}, v.data(), stride, panel});
  for (int at = 0; at < 36; ++at) {
    for (int c = 0; c < kChannels; ++c) {
      int x[2][kPixels];
      for (int i = 0; i < 2 * kPixels; ++i) {
        const uint8_t b = pixel[i / kPixels][i % kPixels][c];
        x[i / kPixels][i % kPixels] = weights ? static_cast<int8_t>(b) : b - zero;
      }
      const uint32_t got = v[static_cast<size_t>(at * stride + c / 16 * panel + c % 16)];
      CHECK(static_cast<int16_t>(got & 0xFFFFu) == transformed(matrix, x[0], at));
      CHECK(static_cast<int16_t>(got >> 16) == second * transformed(matrix, x[1], at));
    }
  }
}

inline void compare_winograd(const Table& table) {
  const Winograd& w = table.winograd;
  if (w.input == nullptr) return;
  std::mt19937 rng(11);
  compare_pairs(kBt, w.input_pairs, false, rng);
  compare_pairs(kG4, w.gradient_pairs, false, rng);
  compare_pairs(kG3, w.weight_pairs, true, rng);
  std::vector<uint8_t> bytes(36 * 32);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  for (int i = 0; i < 36; ++i) bytes[static_cast<size_t>(i * 32)] = kBt[2][i / 6] * kBt[2][i % 6] > 0 ? 255 : 0;  // the largest result
  const uint8_t* pixel[36];
  for (int i = 0; i < 36; ++i) pixel[i] = bytes.data() + i * 32;
  int16_t factor[32];
  for (int i = 0; i < 32; ++i) factor[i] = static_cast<int16_t>(i % 2 + 1);
  for (const bool scaled : {false, true}) {
    std::vector<int16_t> v(36 * 64, 7);
    w.input({pixel, 32, scaled ? uint8_t{127} : uint8_t{0}, scaled ? factor : nullptr, v.data(), 64});
    for (int at = 0; at < 36; ++at) {
      for (int c = 0; c < 32; ++c) {
        int x[36];
        for (int i = 0; i < 36; ++i) x[i] = (pixel[i][c] - (scaled ? 127 : 0)) * (scaled ? factor[c] : 1);
        CHECK(v[static_cast<size_t>(at * 64 + c)] == transformed(kBt, x, at));
      }
    }
  }
  // Sums of one channel with random operands come back exactly, also when the products wrapped around 2^32.
  for (const bool window : {false, true}) {
    std::vector<int32_t> m(36 * 48, 0);
    const int taps = window ? 4 : 3, out = window ? 3 : 4;
    int64_t y[16][16] = {};
    for (int c = 0; c < 16; ++c) {
      for (int k = 0; k < 100; ++k) {
        int x[36], g[16];
        for (int& e : x) e = static_cast<int>(rng() % 256);
        for (int& e : g) e = static_cast<int>(rng() % 255) - 127;
        for (int at = 0; at < 36; ++at) {
          int u = 0;
          for (int i = 0; i < taps * taps; ++i) u += window ? kG4[at / 6][i / 4] * g[i] * kG4[at % 6][i % 4] : kG3[at / 6][i / 3] * g[i] * kG3[at % 6][i % 3];
          auto& sum = m[static_cast<size_t>(at * 48 + c)];
          sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(transformed(kBt, x, at)) * static_cast<uint32_t>(u));
        }
        for (int o = 0; o < out * out; ++o) {
          for (int t = 0; t < taps * taps; ++t) y[o][c] += x[(o / out + t / taps) * 6 + o % out + t % taps] * g[t];
        }
      }
    }
    std::vector<int32_t> got(16 * 16, 5);
    if (window) {
      w.window(m.data(), 48, got.data());
    } else {
      w.output(m.data(), 48, got.data(), true);  // adds to the 5
    }
    for (int o = 0; o < out * out; ++o) {
      for (int c = 0; c < 16; ++c) CHECK(got[static_cast<size_t>(o * 16 + c)] == y[o][c] + (window ? 0 : 5));
    }
  }
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_TEST_WINOGRAD_H_
