// AVX2: table lookups of nibbles (Layout::kNibbles). Four rows by 64 channels: eight accumulators of bytes, which hold 62 lookups of at
// most 4 each before they are widened.
#include <cstring>

#include "kernels/bgemm/finish.inc"
#include "kernels/bgemm/tree.inc"

#define NK_PRAGMA(text) _Pragma(#text)
#define NK_UNROLL(n) NK_PRAGMA(GCC unroll n)

namespace netsuke {
namespace bgemm {
namespace {

constexpr int kPairs = 31;  // bytes of x before a byte of the accumulators could overflow: 2 * 4 * 31 = 248

struct Tables {
  alignas(64) uint8_t row[17][16];
};

constexpr Tables make_tables() {
  Tables t = {};
  for (int x = 0; x < 16; ++x) {
    for (int w = 0; w < 16; ++w) {
      const int d = x ^ w;
      t.row[x][w] = static_cast<uint8_t>((d & 1) + (d >> 1 & 1) + (d >> 2 & 1) + (d >> 3 & 1));
    }
  }
  for (int w = 0; w < 16; ++w) t.row[16][w] = 2;
  return t;
}

constexpr Tables kTables = make_tables();

NETSUKE_LANE __m256i table_of(uint8_t offset) {
  const uint8_t* base = &kTables.row[0][0];
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(base + 2 * static_cast<uint64_t>(offset))));
}

// In assembly, so that each sum stays in its register: the compiler would add pairs of lookups first, which needs more registers than
// there are, or copy sums around.
NETSUKE_LANE __m256i count(__m256i acc, __m256i table, __m256i nibbles) {
  const __m256i found = _mm256_shuffle_epi8(table, nibbles);
  __asm__("vpaddb %1, %0, %0" : "+x"(acc) : "x"(found));
  return acc;
}

// 16-bit sums of a tile, modulo 2^16. Bytes are not split into words one by one: `pairs` sums the accumulators as words, b[2i] + 256 * b[2i + 1],
// `odd` their upper bytes alone, so what the lower ones add is pairs - 256 * odd. Three operations a register instead of seven.
template <int kRows, int kVectors>
struct Sums {
  __m256i pairs[kRows][kVectors], odd[kRows][kVectors];
};

template <int kRows, int kVectors>
NETSUKE_LANE void widen(__m256i (&acc)[kRows][kVectors], Sums<kRows, kVectors>* sums) {
  NK_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    NK_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      sums->pairs[i][v] = _mm256_add_epi16(sums->pairs[i][v], acc[i][v]);
      sums->odd[i][v] = _mm256_add_epi16(sums->odd[i][v], _mm256_srli_epi16(acc[i][v], 8));
      acc[i][v] = _mm256_setzero_si256();
    }
  }
}

// 32 sums of 16 bits to 32 of 32 bits in their own order.
NETSUKE_LANE void store_counts(__m256i pairs, __m256i odd, int32_t* count) {
  const __m256i even = _mm256_sub_epi16(pairs, _mm256_slli_epi16(odd, 8));
  const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);  // channels 0-7 and 16-23, 8-15 and 24-31
  auto* to = reinterpret_cast<__m256i*>(count);
  _mm256_storeu_si256(to, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(low)));
  _mm256_storeu_si256(to + 1, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(high)));
  _mm256_storeu_si256(to + 2, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(low, 1)));
  _mm256_storeu_si256(to + 3, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(high, 1)));
}

template <int kRows, int kVectors>
void tile_of(const Tile& t, int row) {
  Sums<kRows, kVectors> sums;
  std::memset(&sums, 0, sizeof(sums));
  __m256i acc[kRows][kVectors];
  NK_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    NK_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) acc[i][v] = _mm256_setzero_si256();
  }
  const uint8_t* b = t.b;
  int64_t room = kPairs;
  for (int64_t run = 0; run < t.runs; ++run) {
    const uint8_t* x[kRows];
    NK_UNROLL(8)
    for (int i = 0; i < kRows; ++i) x[i] = t.a[row + i] + t.run_offset[run];
    for (int64_t left = t.steps; left > 0;) {
      const int64_t n = left < room ? left : room;
      NK_UNROLL(4)
      for (int64_t s = 0; s < 2 * n; ++s, b += kBlock) {
        __m256i w[kVectors];
        NK_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) w[v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(b + 32 * v));
        NK_UNROLL(8)
        for (int i = 0; i < kRows; ++i) {
          const __m256i table = table_of(x[i][s]);
          NK_UNROLL(8)
          for (int v = 0; v < kVectors; ++v) acc[i][v] = count(acc[i][v], table, w[v]);
        }
      }
      NK_UNROLL(8)
      for (int i = 0; i < kRows; ++i) x[i] += 2 * n;
      left -= n;
      room -= n;
      if (room == 0) {
        widen(acc, &sums);
        room = kPairs;
      }
    }
  }
  if (room < kPairs) widen(acc, &sums);
  NK_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    NK_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) store_counts(sums.pairs[i][v], sums.odd[i][v], t.count + (row + i) * kBlock + 32 * v);
  }
}

template <int kVectors>
void tile_rows(const Tile& t) {
  switch (t.rows) {
    case 1: return tile_of<1, kVectors>(t, 0);
    case 2: return tile_of<2, kVectors>(t, 0);
    case 3: return tile_of<3, kVectors>(t, 0);
    default: return tile_of<4, kVectors>(t, 0);
  }
}

void tile_nibbles(const Tile& t) { t.columns <= 32 ? tile_rows<1>(t) : tile_rows<2>(t); }

// 8 * nibble, low nibble first.
void expand(const uint8_t* bytes, int64_t count, uint8_t* dst) {
  const __m256i low = _mm256_set1_epi16(0x000f), high = _mm256_set1_epi16(0x0f00);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i)));
    const __m256i pair = _mm256_or_si256(_mm256_and_si256(v, low), _mm256_and_si256(_mm256_slli_epi16(v, 4), high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + 2 * i), _mm256_slli_epi16(pair, 3));
  }
  for (; i < count; ++i) {
    dst[2 * i] = static_cast<uint8_t>((bytes[i] & 15) * 8);
    dst[2 * i + 1] = static_cast<uint8_t>((bytes[i] >> 4) * 8);
  }
}

}  // namespace

extern const Kernels kernels_x86_avx2;
const Kernels kernels_x86_avx2 = {"x86_avx2_4x64", Layout::kNibbles, 4, kBlock, tile_nibbles, expand, finish, tree_counts};

}  // namespace bgemm
}  // namespace netsuke
