// qmatmul on AVX2: 16-bit values, two k a unit, tiles of 6 x 16. Of the 16 registers 12 hold sums; a unit of 6 x 16 x 2 products
// takes 12 vpmaddwd, 12 vpaddd, 2 loads and 6 broadcasts: 32 products a cycle at 2 vpmaddwd a cycle.
#include "kernels/base/lanes.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

constexpr int kRows = 6, kVectors = 1, kUnitBytes = 4, kPanelBytes = 64;
constexpr bool kTerms = false;

struct BUnit { __m256i a, b; };

NETSUKE_LANE BUnit load_b(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}

NETSUKE_LANE I16 dot(I16 acc, const uint8_t* p, BUnit b) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  const __m256i a = _mm256_set1_epi32(pair);
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(a, b.a)), _mm256_add_epi32(acc.b, _mm256_madd_epi16(a, b.b))};
}

// 16 codes minus zero, as 16-bit values.
NETSUKE_LANE void widen(__m128i codes, __m256i zero, uint8_t* y) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm256_sub_epi16(_mm256_cvtepu8_epi16(codes), zero));
}

void pack_a(const uint8_t* a, int64_t k, int64_t k_padded, const QMatmulParams& params, uint8_t* packed, int32_t* row_term) {
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(params.a_zero));
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)), zero, packed + 2 * i);
  int16_t* tail = reinterpret_cast<int16_t*>(packed);
  for (; i < k_padded; ++i) tail[i] = i < k ? static_cast<int16_t>(a[i] - params.a_zero) : 0;
}

// n <= 16 bytes of a row, the rest filled with the zero point, which packs to 0.
NETSUKE_LANE __m128i load_row(const uint8_t* p, int64_t n, int32_t zero) {
  if (n >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  uint8_t buffer[16];
  std::memset(buffer, zero, 16);
  if (n > 0) std::memcpy(buffer, p, static_cast<size_t>(n));
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(buffer));
}

void pack_b_rows(const uint8_t* b, int64_t stride, int64_t cols, int64_t k, int32_t b_zero, uint8_t* packed) {
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(b_zero));
  for (int64_t i = 0; i < k; i += 2, packed += 64) {
    const __m128i even = load_row(b + i * stride, cols, b_zero);
    const __m128i odd = i + 1 < k ? load_row(b + (i + 1) * stride, cols, b_zero) : _mm_set1_epi8(static_cast<char>(b_zero));
    widen(_mm_unpacklo_epi8(even, odd), zero, packed);
    widen(_mm_unpackhi_epi8(even, odd), zero, packed + 32);
  }
}

// Eight columns of 16 k: their 8 pairs become 8 units of 8 columns (an 8 x 8 transposition of 16-bit words).
NETSUKE_LANE void transpose_pairs(const __m128i* column, __m128i* unit) {
  __m128i s[8], t[8];
  for (int i = 0; i < 4; ++i) {
    s[2 * i] = _mm_unpacklo_epi16(column[2 * i], column[2 * i + 1]);
    s[2 * i + 1] = _mm_unpackhi_epi16(column[2 * i], column[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      t[4 * i + 2 * j] = _mm_unpacklo_epi32(s[4 * i + j], s[4 * i + 2 + j]);
      t[4 * i + 2 * j + 1] = _mm_unpackhi_epi32(s[4 * i + j], s[4 * i + 2 + j]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    unit[2 * i] = _mm_unpacklo_epi64(t[i], t[4 + i]);
    unit[2 * i + 1] = _mm_unpackhi_epi64(t[i], t[4 + i]);
  }
}

void pack_b_columns(const uint8_t* b, int64_t stride, int64_t cols, int64_t k, int32_t b_zero, uint8_t* packed) {
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(b_zero));
  for (int64_t i = 0; i < k; i += 16) {
    const int64_t units = (k - i + 1) / 2 < 8 ? (k - i + 1) / 2 : 8;
    for (int half = 0; half < 2; ++half) {
      __m128i column[8], unit[8];
      for (int j = 0; j < 8; ++j) {
        const int64_t n = 8 * half + j;
        column[j] = load_row(b + n * stride + i, n < cols ? k - i : 0, b_zero);
      }
      transpose_pairs(column, unit);
      for (int64_t u = 0; u < units; ++u) widen(unit[u], zero, packed + (i / 2 + u) * 64 + half * 32);
    }
  }
}

void pack_b(const uint8_t* b, int64_t stride, bool transposed, int64_t cols, int64_t k, int64_t k_padded, const QMatmulParams& params,
            uint8_t* packed, int32_t* col_terms) {
  if (transposed) pack_b_columns(b, stride, cols, k, params.b_zero, packed);
  else pack_b_rows(b, stride, cols, k, params.b_zero, packed);
}

}  // namespace
}  // namespace netsuke

#include "kernels/qmatmul/tile.inc"

namespace netsuke {
const QMatmulKernels qmatmul_kernels_avx2 = {"qmatmul_a8a8_x86_avx2_6x16", kRows, 16 * kVectors, 2, 2, pack_a, pack_b, run_tile};
}  // namespace netsuke
