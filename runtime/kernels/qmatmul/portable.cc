// qmatmul in plain C++: 16-bit values, two k a unit, tiles of 2 x 16. On x86-64 SSE2 is part of the baseline and has the pair
// product; elsewhere two 32-bit products stand for it.
#define NETSUKE_PORTABLE_LANES
#include "kernels/base/lanes.h"
#include "kernels/qmatmul/qmatmul.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace netsuke {
namespace {

constexpr int kRows = 2, kVectors = 1, kUnitBytes = 4, kPanelBytes = 64;
constexpr bool kTerms = false;

#if defined(__SSE2__)

struct BUnit { __m128i v[4]; };

NETSUKE_LANE BUnit load_b(const uint8_t* p) {
  BUnit b;
  for (int i = 0; i < 4; ++i) b.v[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
  return b;
}

NETSUKE_LANE I16 dot(I16 acc, const uint8_t* p, const BUnit& b) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  const __m128i a = _mm_set1_epi32(pair);
  for (int i = 0; i < 4; ++i) acc.v[i] += reinterpret_cast<LaneI>(_mm_madd_epi16(a, b.v[i]));
  return acc;
}

#else

struct BUnit { I16 even, odd; };

NETSUKE_LANE BUnit load_b(const uint8_t* p) {
  int16_t values[32];
  std::memcpy(values, p, 64);
  BUnit b;
  for (int i = 0; i < 16; ++i) {
    b.even.v[i / 4][i % 4] = values[2 * i];
    b.odd.v[i / 4][i % 4] = values[2 * i + 1];
  }
  return b;
}

NETSUKE_LANE I16 dot(I16 acc, const uint8_t* p, const BUnit& b) {
  int16_t pair[2];
  std::memcpy(pair, p, 4);
  const int32_t even = pair[0], odd = pair[1];
  for (int i = 0; i < 4; ++i) acc.v[i] += b.even.v[i] * even + b.odd.v[i] * odd;
  return acc;
}

#endif

void pack_a(const uint8_t* a, int64_t k, int64_t k_padded, const QMatmulParams& params, uint8_t* packed, int32_t* row_term) {
  int16_t* y = reinterpret_cast<int16_t*>(packed);
  for (int64_t i = 0; i < k; ++i) y[i] = static_cast<int16_t>(a[i] - params.a_zero);
  for (int64_t i = k; i < k_padded; ++i) y[i] = 0;
}

void pack_b(const uint8_t* b, int64_t stride, bool transposed, int64_t cols, int64_t k, int64_t k_padded, const QMatmulParams& params,
            uint8_t* packed, int32_t* col_terms) {
  const int64_t k_step = transposed ? 1 : stride, n_step = transposed ? stride : 1;
  int16_t* y = reinterpret_cast<int16_t*>(packed);
  for (int64_t unit = 0; unit < k_padded; unit += 2) {
    for (int64_t n = 0; n < 16; ++n) {
      for (int64_t i = unit; i < unit + 2; ++i) {
        const bool inside = i < k && n < cols;
        *y++ = inside ? static_cast<int16_t>(b[i * k_step + n * n_step] - params.b_zero) : static_cast<int16_t>(0);
      }
    }
  }
}

}  // namespace
}  // namespace netsuke

#include "kernels/qmatmul/tile.inc"

namespace netsuke {
const QMatmulKernels qmatmul_kernels_portable = {"qmatmul_a8a8_portable_2x16", kRows, 16 * kVectors, 2, 2, pack_a, pack_b, run_tile};
}  // namespace netsuke
