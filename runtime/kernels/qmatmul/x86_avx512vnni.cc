// qmatmul on AVX-512 VNNI: 8-bit values, four k a unit, tiles of 12 x 32. vpdpbusd multiplies unsigned by signed bytes, so b is
// packed as it is and a as a - 128:
//   sum (a - za)(b - zb) = sum (a - 128) b  +  (128 - za) sum b  +  (K za zb - zb sum a)          modulo 2^32
// The second term belongs to the column, the third to the row. 24 of 32 registers hold sums; a unit takes 24 vpdpbusd,
// 2 loads and 12 broadcasts.
#include "kernels/base/avx512.h"
#include "kernels/base/lanes.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

constexpr int kRows = 12, kVectors = 2, kUnitBytes = 4, kPanelBytes = 64;
constexpr bool kTerms = true;

struct BUnit { __m512i v; };

NETSUKE_LANE BUnit load_b(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }

NETSUKE_LANE I16 dot(I16 acc, const uint8_t* p, BUnit b) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return {_mm512_dpbusd_epi32(acc.v, b.v, _mm512_set1_epi32(four))};
}

void pack_a(const uint8_t* a, int64_t k, int64_t k_padded, const QMatmulParams& params, uint8_t* packed, int32_t* row_term) {
  const __m256i flip = _mm256_set1_epi8(-128);
  __m256i sums = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 32 <= k; i += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i));
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(codes, _mm256_setzero_si256()));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed + i), _mm256_xor_si256(codes, flip));
  }
  int64_t lanes[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums);
  int64_t sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
  for (; i < k_padded; ++i) {
    packed[i] = i < k ? a[i] ^ 0x80 : 0;
    sum += i < k ? a[i] : 0;
  }
  *row_term = static_cast<int32_t>(static_cast<uint32_t>(params.b_zero * (k * params.a_zero - sum)));
}

// n <= 16 bytes, the rest zero.
NETSUKE_LANE __m128i load_row(const uint8_t* p, int64_t n) {
  if (n >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  uint8_t buffer[16] = {};
  if (n > 0) std::memcpy(buffer, p, static_cast<size_t>(n));
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(buffer));
}

NETSUKE_LANE void store_16(uint8_t* y, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(y), v); }

// Four k of 16 columns from row-major b: bytes, then pairs of bytes, are interleaved.
void pack_b_rows(const uint8_t* b, int64_t stride, int64_t cols, int64_t k, int64_t unit, uint8_t* y) {
  __m128i row[4];
  for (int i = 0; i < 4; ++i) row[i] = load_row(b + (4 * unit + i) * stride, 4 * unit + i < k ? cols : 0);
  const __m128i low01 = _mm_unpacklo_epi8(row[0], row[1]), low23 = _mm_unpacklo_epi8(row[2], row[3]);
  const __m128i high01 = _mm_unpackhi_epi8(row[0], row[1]), high23 = _mm_unpackhi_epi8(row[2], row[3]);
  store_16(y, _mm_unpacklo_epi16(low01, low23));
  store_16(y + 16, _mm_unpackhi_epi16(low01, low23));
  store_16(y + 32, _mm_unpacklo_epi16(high01, high23));
  store_16(y + 48, _mm_unpackhi_epi16(high01, high23));
}

// Four columns of 16 k: a 4 x 4 transposition of 32-bit words. y is the first of up to four units.
void pack_b_columns(const uint8_t* b, int64_t stride, int64_t cols, int64_t k, int64_t units, uint8_t* y) {
  __m128i column[4], unit[4];
  for (int i = 0; i < 4; ++i) column[i] = load_row(b + i * stride, i < cols ? k : 0);
  const __m128i low01 = _mm_unpacklo_epi32(column[0], column[1]), low23 = _mm_unpacklo_epi32(column[2], column[3]);
  const __m128i high01 = _mm_unpackhi_epi32(column[0], column[1]), high23 = _mm_unpackhi_epi32(column[2], column[3]);
  unit[0] = _mm_unpacklo_epi64(low01, low23);
  unit[1] = _mm_unpackhi_epi64(low01, low23);
  unit[2] = _mm_unpacklo_epi64(high01, high23);
  unit[3] = _mm_unpackhi_epi64(high01, high23);
  for (int64_t u = 0; u < units; ++u) store_16(y + u * kVectors * kPanelBytes, unit[u]);
}

void pack_b(const uint8_t* b, int64_t stride, bool transposed, int64_t cols, int64_t k, int64_t k_padded, const QMatmulParams& params,
            uint8_t* packed, int32_t* col_terms) {
  const int64_t units = k_padded / 4;
  for (int v = 0; v < kVectors; ++v) {
    const int64_t left = cols - 16 * v;
    uint8_t* y = packed + v * kPanelBytes;
    if (left <= 0) {
      for (int64_t u = 0; u < units; ++u) std::memset(y + u * kVectors * kPanelBytes, 0, kPanelBytes);
    } else if (transposed) {
      for (int64_t u = 0; u < units; u += 4) {
        for (int n = 0; n < 16; n += 4) {
          pack_b_columns(b + (16 * v + n) * stride + 4 * u, stride, left - n, k - 4 * u, units - u < 4 ? units - u : 4,
                         y + u * kVectors * kPanelBytes + 4 * n);
        }
      }
    } else {
      for (int64_t u = 0; u < units; ++u) pack_b_rows(b + 16 * v, stride, left, k, u, y + u * kVectors * kPanelBytes);
    }
    __m512i sums = _mm512_setzero_si512();
    for (int64_t u = 0; u < units; ++u) {
      sums = _mm512_dpbusd_epi32(sums, _mm512_loadu_si512(y + u * kVectors * kPanelBytes), _mm512_set1_epi8(1));
    }
    _mm512_storeu_si512(col_terms + 16 * v, _mm512_mullo_epi32(sums, _mm512_set1_epi32(128 - params.a_zero)));
  }
}

}  // namespace
}  // namespace netsuke

#include "kernels/qmatmul/tile.inc"

#ifndef NETSUKE_TABLE  // test_simde.cc names its own
#define NETSUKE_TABLE avx512vnni
#endif

namespace netsuke {
extern const QMatmulKernels NETSUKE_TABLE_NAME(qmatmul_kernels);
const QMatmulKernels NETSUKE_TABLE_NAME(qmatmul_kernels) = {
    "qmatmul_a8a8_x86_avx512vnni_12x32", kRows, 16 * kVectors, 4, 1, pack_a, pack_b, run_tile};
}  // namespace netsuke
