// Exact integer Winograd convolution for 3x3, stride 1: F(4x4, 3x3) needs 36 products for 16 outputs where the definition needs 144,
// F(2x2, 3x3) 16 instead of 36, and every step is an integer operation, so the result is the same int32 sum bit for bit.
//
//   V = B^T d B           d: 6x6 inputs x - x_zero (9 bits). Rows of B^T have absolute sum <= 10, of mixed sign: |V| <= 68 * 255 =
//                         17340, an int16.
//   U = U' g U'^T         the usual G of F(4, 3) has denominators; U' holds its rows times (4, -6, -6, 24, 24, 6), integers:
//                         (6 0 0) (-1 -1 -1) (-1 1 -1) (1 2 4) (1 -2 4) (0 0 6). Absolute sums <= 7: |U| <= 49 * 128 = 6272, an int16.
//   M = sum_c U * V       36 independent matrix products of int16 into int32, modulo 2^32 (kS16x2 tiles).
//   Z = A'^T M A'         A'^T = A^T diag(1, 4, 4, 1, 1, 4) with rows divided by (1, 2, 4, 4): small integers, modulo 2^32.
//   sum = Z / (9 * 2^s)   Z[i][j] = 576 / (f_i f_j) * sum exactly, so multiply by the inverse of 9 modulo 2^32 and shift right
//                         arithmetically by s = 6 - log2(f_i f_j). That recovers the sum whenever 64 * |sum| < 2^31.
//
// The last condition is what build() proves from the weights: no input can give a channel a sum of 2^25 or more (2^29 for F(2x2)).
// Trained layers stay far below (512 channels of weights with mean magnitude 20 reach 0.5 * 2^25); a layer that does not is
// computed by the direct product.
//
// F(2x2, 3x3) over 8-bit lanes, where codes reach 63 at most (6 bits) and every U fits s8:
//
//   V = B^T x B           of the codes as they are. B^T has rows (1 0 -1 0) (0 1 1 0) (0 -1 1 0) (0 1 0 -1): position (1, 1) is a sum of four
//                         codes, 0 to 252. All others are two codes minus two, -126 to 126, and are kept plus 128: bytes, modulo 2^8 all the way.
//   U = U' g U'^T         rows (2 0 0) (1 1 1) (1 -1 1) (0 0 2): |U| <= 9 * max|w|, so always for |w| <= 14; 15 and 16 depend on the weights.
//   M = sum_c U * V       16 products of u8 x s8. init takes 128 * sum(U) back, at (1, 1) 4 * x_zero * sum(U): rows of B^T except the second
//                         sum to 0, so that a zero point is felt there only.
//   Z = A^T M A = 4 * sum, exact modulo 2^32: |sum| < 2^29 brings it back.
//
// Four outputs take 16 products of 8 bits instead of 36, 2.25 times fewer.
//
// F(3x3, 3x3) over 8-bit lanes, for codes up to 7 (3 bits) and ternary weights, 3.24 times fewer:
//
//   B^T has rows (2 -1 -2 1 0) (0 -2 -1 1 0) (0 2 -3 1 0) (0 -1 0 1 0) (0 2 -1 -2 1): |V| <= 18 * 7 = 126, kept plus 128 everywhere. Only the
//   second row does not sum to 0 but to -2: the zero point is felt at (1, 1), 4 times.
//   U' has rows (3 0 0) (-3 -3 -3) (-1 1 -1) (1 2 4) (0 0 6), |U| <= 81 * max|w|; A^T (1 1 1 1 0) (0 1 -1 2 0) (0 1 1 4 1).
//   Z = 36 * sum: the inverse of 9 modulo 2^32, then a shift by two.
#include "kernels/qgemm/winograd.h"

#include <algorithm>

namespace netsuke {
namespace qgemm {
namespace {

// Rows of U' for F(4, 3), F(3, 3) and F(2, 3).
constexpr int kU4[6][3] = {{6, 0, 0}, {-1, -1, -1}, {-1, 1, -1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 6}};
constexpr int kU3[5][3] = {{3, 0, 0}, {-3, -3, -3}, {-1, 1, -1}, {1, 2, 4}, {0, 0, 6}};
constexpr int kU2[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};

template <int kIn>
void transform(const int (&rows)[kIn][3], const int16_t* g, int16_t* u) {
  int16_t half[kIn][3][16];
  for (int i = 0; i < kIn; ++i) {
    for (int x = 0; x < 3; ++x) {
      for (int c = 0; c < 16; ++c) {
        const int sum = rows[i][0] * g[x * 16 + c] + rows[i][1] * g[(3 + x) * 16 + c] + rows[i][2] * g[(6 + x) * 16 + c];
        half[i][x][c] = static_cast<int16_t>(sum);
      }
    }
  }
  for (int i = 0; i < kIn; ++i) {
    for (int j = 0; j < kIn; ++j) {
      for (int c = 0; c < 16; ++c) {
        const int sum = rows[j][0] * half[i][0][c] + rows[j][1] * half[i][1][c] + rows[j][2] * half[i][2][c];
        u[(i * kIn + j) * 16 + c] = static_cast<int16_t>(sum);
      }
    }
  }
}

// The largest |sum| (without acc_bias) that any input can give a channel.
int64_t largest_sum(const Geometry& g, const Weights& weights) {
  const int64_t taps = 9 * g.in_channels;
  int64_t largest = 0;
  for (int64_t o = 0; o < g.out_channels; ++o) {
    int64_t positive = 0, negative = 0;
    for (int64_t k = 0; k < taps; ++k) {
      const int32_t w = weights.w[o * taps + k];
      positive += w > 0 ? w : 0;
      negative += w < 0 ? -w : 0;
    }
    const int64_t up = std::max(g.x_hi - g.x_zero, 0), down = g.x_zero;
    largest = std::max(largest, std::max(positive * up + negative * down, negative * up + positive * down));
  }
  return largest;
}

// Whether codes and weights fit 8-bit lanes (above).
bool fits_bytes(int out, const Geometry& g, const Weights& weights) {
  if (g.x_hi > (out == 2 ? 63 : 7)) return false;
  alignas(64) int16_t taps[9 * kWinogradLanes], u[25 * kWinogradLanes] = {};
  int least = 0, most = 0;
  for (int64_t o = 0; o < g.out_channels; ++o) {
    for (int64_t c = 0; c < g.in_channels; c += kWinogradLanes) {
      gather_weights(g, weights, o, c, taps);
      transform_weights(out, taps, u);
      for (int16_t v : u) {
        least = std::min<int>(least, v);
        most = std::max<int>(most, v);
      }
    }
  }
  return least >= -128 && most <= 127;
}

}  // namespace

void transform_weights(int out, const int16_t* g, int16_t* u) {
  if (out == 4) {
    transform(kU4, g, u);
  } else if (out == 3) {
    transform(kU3, g, u);
  } else {
    transform(kU2, g, u);
  }
}

void gather_weights(const Geometry& g, const Weights& weights, int64_t o, int64_t first, int16_t* dst) {
  const int64_t c = g.in_channels, count = std::min<int64_t>(kWinogradLanes, c - first);
  for (int tap = 0; tap < 9; ++tap) {
    const int8_t* src = weights.w + (o * 9 + tap) * c + first;
    for (int i = 0; i < kWinogradLanes; ++i) dst[tap * kWinogradLanes + i] = i < count ? src[i] : static_cast<int16_t>(0);
  }
}

// GMAC/s of the definition's products on one Zen 3 core with AVX2 (exact direct limit 84):
//                  direct   F(2x2)   F(4x4)
//   56x56,  64       78      128      202
//   28x28, 128       78      147      241
//   14x14, 256       78      159      156-187   U of F(4x4) is 8 times the weights, of F(2x2) 3.6 times: F(2x2) is taken
//    7x7,  512       77       96       95       direct is taken: 6 MB more for 0.3 ms a layer breaks the memory promise
//   32x32,  16       72       --       68       direct is taken
// The same on one Zen 5 core with VNNI (vpdpbusd 500, vpdpwssd 250 in L1); the last two need narrow codes:
//                  direct   F(4x4)   F(2x2) over 8 bits   F(3x3) over 8 bits
//   56x56,  64      470      690      825                 1035
//   28x28, 128      490      840      960                 1145
//   14x14, 256      500       --     1030                 1280
//    7x7,  512      500       --      845                   --    16 tiles for 12.25, F(3x3) 9 for 5.4
// F(2x2) over 16 bits gains nothing with VNNI: vpdpwssd multiplies half as many pairs as vpdpbusd.
std::vector<std::string> winograd_ways(const Geometry& g, const Weights& weights, const Kernels& kernels) {
  std::vector<std::string> ways;
  const bool shape = g.kh == 3 && g.kw == 3 && g.stride_h == 1 && g.stride_w == 1 && g.dil_h == 1 && g.dil_w == 1 && g.groups == 1;
  if (!shape) return ways;
  const int64_t channels = std::min(g.in_channels, g.out_channels), size = g.in_channels * g.out_channels, largest = largest_sum(g, weights);
  const bool narrow = kernels.winograd_narrow_set != nullptr && channels >= kernels.winograd_narrow_least && largest < (int64_t{1} << 29);
  if (narrow && size <= kernels.winograd3_most && fits_bytes(3, g, weights)) ways.push_back("winograd3_narrow");
  if (narrow && fits_bytes(2, g, weights)) ways.push_back("winograd2_narrow");
  if (kernels.winograd_set == nullptr || channels < kernels.winograd_least) return ways;
  if (size <= kernels.winograd4_most && largest < (int64_t{1} << 25)) {
    ways.push_back("winograd4");
  } else if (size <= kernels.winograd2_most && largest < (int64_t{1} << 29)) {
    ways.push_back("winograd2");
  }
  return ways;
}

}  // namespace qgemm
}  // namespace netsuke
