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
// F(4, 2) by the same construction, points 0, 1, -1, 2, infinity: rows of B^T are the coefficients of (x + 1) (x - 1) (x - 2), ..., those
// of G the points' powers times 6 over the row's value at its own point.
constexpr int kBtTwo[5][5] = {{2, -1, -2, 1, 0}, {0, -2, -1, 1, 0}, {0, 2, -3, 1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}};
constexpr int kG4Two[5][4] = {{3, 0, 0, 0}, {-3, -3, -3, -3}, {-1, 1, -1, 1}, {1, 2, 4, 8}, {0, 0, 0, 6}};
constexpr int kG2[5][2] = {{3, 0}, {-3, -3}, {-1, 1}, {1, 2}, {0, 6}};

template <int P, int N>
int transformed(const int (&matrix)[P][N], const int* x, int at) {  // x [N][N]
  int sum = 0;
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) sum += matrix[at / P][i] * x[i * N + j] * matrix[at % P][j];
  }
  return sum;
}

template <int P, int N>
void compare_pairs(const int (&matrix)[P][N], void (*kernel)(const WinogradPairs&), bool weights, std::mt19937& rng) {
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
  std::vector<uint32_t> v(static_cast<size_t>(P * P * stride), 7);
  const int16_t second = weights ? 4 : 1;
  kernel({pixel[0], pixel[1], kChannels, zero, {1, second}, v.data(), stride, panel});
  for (int at = 0; at < P * P; ++at) {
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

template <int P>
void compare_input(const int (&matrix)[P][P], void (*kernel)(const WinogradInput&), std::mt19937& rng) {
  std::vector<uint8_t> bytes(P * P * 32);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  for (int i = 0; i < P * P; ++i) bytes[static_cast<size_t>(i * 32)] = matrix[2][i / P] * matrix[2][i % P] > 0 ? 255 : 0;  // the largest result
  const uint8_t* pixel[P * P];
  for (int i = 0; i < P * P; ++i) pixel[i] = bytes.data() + i * 32;
  int16_t factor[32];
  for (int i = 0; i < 32; ++i) factor[i] = static_cast<int16_t>(i % 2 + 1);
  for (const bool scaled : {false, true}) {
    std::vector<int16_t> v(P * P * 64, 7);
    kernel({pixel, 32, scaled ? uint8_t{127} : uint8_t{0}, scaled ? factor : nullptr, v.data(), 64});
    for (int at = 0; at < P * P; ++at) {
      for (int c = 0; c < 32; ++c) {
        int x[P * P];
        for (int i = 0; i < P * P; ++i) x[i] = (pixel[i][c] - (scaled ? 127 : 0)) * (scaled ? factor[c] : 1);
        CHECK(v[static_cast<size_t>(at * 64 + c)] == transformed(matrix, x, at));
      }
    }
  }
}

// Sums of one channel with random operands come back exactly, also when the products wrapped around 2^32. N taps, or N pixels of dY.
template <int P, int N>
void compare_sums(const int (&data)[P][P], const int (&matrix)[P][N], const Winograd& w, std::mt19937& rng) {
  constexpr int kOut = P + 1 - N;  // 4 outputs of a tile, or taps of a window
  std::vector<int32_t> m(P * P * 48, 0);
  int64_t y[kOut * kOut][16] = {};
  for (int c = 0; c < 16; ++c) {
    for (int k = 0; k < 100; ++k) {
      int x[P * P], g[N * N];
      for (int& e : x) e = static_cast<int>(rng() % 256);
      for (int& e : g) e = static_cast<int>(rng() % 255) - 127;
      for (int at = 0; at < P * P; ++at) {
        auto& sum = m[static_cast<size_t>(at * 48 + c)];
        const auto product = static_cast<uint32_t>(transformed(data, x, at)) * static_cast<uint32_t>(transformed(matrix, g, at));
        sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + product);
      }
      for (int o = 0; o < kOut * kOut; ++o) {
        for (int t = 0; t < N * N; ++t) y[o][c] += x[(o / kOut + t / N) * P + o % kOut + t % N] * g[t];
      }
    }
  }
  std::vector<int32_t> got(16 * 16, 5);
  const int before = kOut == 4 ? 5 : 0;
  if (kOut == 4) {
    w.output(m.data(), 48, got.data(), true);  // adds to the 5
  } else {
    w.window(m.data(), 48, got.data());
  }
  for (int o = 0; o < kOut * kOut; ++o) {
    for (int c = 0; c < 16; ++c) CHECK(got[static_cast<size_t>(o * 16 + c)] == y[o][c] + before);
  }
}

// A tile whose channels are no multiple of 32.
inline void compare_sixteen(const Table& table, std::mt19937& rng) {
  std::vector<uint8_t> bytes(36 * 48);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  const uint8_t* pixel[36];
  for (int i = 0; i < 36; ++i) pixel[i] = bytes.data() + i * 48;
  std::vector<int16_t> got(36 * 64, 7), expected(got);
  train_kernels_portable.winograd.input({pixel, 48, 3, nullptr, expected.data(), 64});
  table.winograd.input({pixel, 48, 3, nullptr, got.data(), 64});
  CHECK(got == expected);
}

inline void compare_winograd(const Table& table) {
  const Winograd &w = table.winograd, &two = table.winograd_two;
  if (w.input == nullptr) return;
  std::mt19937 rng(11);
  compare_pairs(kBt, w.input_pairs, false, rng);
  compare_pairs(kG4, w.gradient_pairs, false, rng);
  compare_pairs(kG3, w.weight_pairs, true, rng);
  compare_input(kBt, w.input, rng);
  compare_sixteen(table, rng);
  compare_sums(kBt, kG3, w, rng);
  compare_sums(kBt, kG4, w, rng);
  if (two.input == nullptr) return;
  compare_pairs(kBtTwo, two.input_pairs, false, rng);
  compare_pairs(kG4Two, two.gradient_pairs, false, rng);
  compare_pairs(kG2, two.weight_pairs, true, rng);
  compare_input(kBtTwo, two.input, rng);
  compare_sums(kBtTwo, kG2, two, rng);
  compare_sums(kBtTwo, kG4Two, two, rng);
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_TEST_WINOGRAD_H_
