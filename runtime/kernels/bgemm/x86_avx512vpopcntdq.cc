// AVX-512 VPOPCNTDQ: eight output channels' words a register against one broadcast word of x; three instructions for 512 products.
#include "kernels/bgemm/finish.inc"
#include "kernels/bgemm/tree.inc"

namespace netsuke {
namespace bgemm {
namespace {

constexpr int kWidth = 16, kTallest = 6;

template <int kRows>
void panel_rows(const Tile& t, const uint8_t* b, int row, int column) {
  __m512i sum[kRows][2];
  for (auto& s : sum) s[0] = s[1] = _mm512_setzero_si512();
  for (int64_t r = 0; r < t.runs; ++r) {
    const uint8_t* x[kRows];
    for (int i = 0; i < kRows; ++i) x[i] = t.a[row + i] + t.run_offset[r];
    for (int64_t s = 0; s < t.steps; ++s, b += kWidth * 8) {
      const __m512i w0 = _mm512_loadu_si512(b), w1 = _mm512_loadu_si512(b + 64);
      for (int i = 0; i < kRows; ++i) {
        int64_t word;
        __builtin_memcpy(&word, x[i] + s * 8, 8);
        const __m512i v = _mm512_set1_epi64(word);
        sum[i][0] = _mm512_add_epi64(sum[i][0], _mm512_popcnt_epi64(_mm512_xor_si512(v, w0)));
        sum[i][1] = _mm512_add_epi64(sum[i][1], _mm512_popcnt_epi64(_mm512_xor_si512(v, w1)));
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    int32_t* count = t.count + (row + i) * kBlock + column;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(count), _mm512_cvtepi64_epi32(sum[i][0]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(count + 8), _mm512_cvtepi64_epi32(sum[i][1]));
  }
}

}  // namespace
}  // namespace bgemm
}  // namespace netsuke

#include "kernels/bgemm/words.inc"

#ifndef NETSUKE_TABLE  // test_simde.cc names its own
#define NETSUKE_TABLE x86_avx512vpopcntdq
#endif

namespace netsuke {
namespace bgemm {

extern const Kernels NETSUKE_TABLE_NAME(kernels);
const Kernels NETSUKE_TABLE_NAME(kernels) = {"x86_avx512vpopcntdq_6x16", Layout::kWords, 6, kWidth, tile_words, nullptr, finish, tree_counts};

}  // namespace bgemm
}  // namespace netsuke
