// AVX2 tiles over kPicked (picked.h): per 4 codes of 4 rows x 16 outputs 8 vpmaddubsw and 4 vpmaddwd, where kS16x2 takes 16 vpmaddwd, and codes
// are read where they are. Register-resident on one Zen 3 core (kS16x2 81 GMAC/s): plain units 115 GMAC/s, offset units 98.
#include "kernels/qgemm/avx2_requant.h"
#include "kernels/qgemm/picked.h"

namespace netsuke {
namespace qgemm {
namespace {

NK_INLINE __m256i load32(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
NK_INLINE __m256i load16x2(const uint8_t* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

// With offsets no register is left for them; without, two loads more a row would cost 8 %.
alignas(32) const int16_t kOneEach[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
#define kOnes (*reinterpret_cast<const __m256i*>(kOneEach))

// The products of a unit with kRows rows. As instructions, in this order: of intrinsics GCC 12 gathers the loads of all rows first and
// spills sums.
template <int kRows, bool kOffset, int kHalves>
NK_INLINE void add_unit(const uint8_t* const (&a)[kRows], const PickedAt& at, const uint8_t* weights, __m256i (&acc)[kRows][kHalves]) {
  const __m256i pick0 = _mm256_set1_epi32(static_cast<int32_t>(at.pick[0])), pick1 = _mm256_set1_epi32(static_cast<int32_t>(at.pick[1]));
  const __m256i ones = _mm256_set1_epi16(1), zero = _mm256_setzero_si256(), starts = kOffset ? load32(weights + kPickedWeights) : zero;
  const __m256i start[2] = {_mm256_unpacklo_epi8(zero, starts), _mm256_unpackhi_epi8(zero, starts)};  // 256 * c / 256
  NK_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    const __m256i x = load16x2(a[r] + at.window);
    const __m256i x0 = _mm256_shuffle_epi8(x, pick0), x1 = _mm256_shuffle_epi8(x, pick1);
    NK_UNROLL(2)
    for (int half = 0; half < kHalves; ++half) {
      __m256i p, q;
      __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(p) : "x"(x0), "m"(*reinterpret_cast<const __m256i*>(weights + 32 * half)));
      __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(q) : "x"(x1), "m"(*reinterpret_cast<const __m256i*>(weights + 64 + 32 * half)));
      if (kOffset) {
        __asm__ volatile("vpaddw %1, %0, %0" : "+x"(p) : "x"(start[half]));
      }
      __asm__ volatile("vpaddw %1, %0, %0" : "+x"(p) : "x"(q));
      if (kOffset) {
        __asm__ volatile("vpmaddwd %1, %0, %0" : "+x"(p) : "m"(kOnes));
      } else {
        __asm__ volatile("vpmaddwd %1, %0, %0" : "+x"(p) : "x"(ones));
      }
      __asm__ volatile("vpaddd %1, %0, %0" : "+x"(acc[r][half]) : "x"(p));
    }
  }
}

// kHalves: 1 computes only the first 8 columns.
template <int kRows, int kHalves>
NK_INLINE uintptr_t one_tile(const Tile& t) {
  __m256i acc[kRows][kHalves];
  NK_UNROLL(2)
  for (int half = 0; half < kHalves; ++half) {
    const __m256i start = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.init + 8 * half));
    NK_UNROLL(4)
    for (int r = 0; r < kRows; ++r) acc[r][half] = start;
  }
  const uint8_t* panel = static_cast<const uint8_t*>(t.b);
  int64_t head = 0;
  memcpy(&head, panel, 8);
  const int32_t* counts = reinterpret_cast<const int32_t*>(panel + head);
  const PickedAt* at = reinterpret_cast<const PickedAt*>(counts + 2 * t.runs);
  const uint8_t* unit = panel + 64;
  uintptr_t ahead = t.ahead;
  const uintptr_t step = static_cast<uintptr_t>(t.ahead_step);
  for (int64_t run = 0; run < t.runs; ++run, counts += 2) {
    const uint8_t* a[kRows];
    NK_UNROLL(4)
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const uint8_t*>(t.a[r]) + t.run_offset[run];
    for (int32_t i = counts[0]; i > 0; --i, unit += kPickedPlain, ahead += step) {
      prefetch(ahead);
      add_unit<kRows, false, kHalves>(a, *at++, unit, acc);
    }
    for (int32_t i = counts[1]; i > 0; --i, unit += kPickedOffset, ahead += step) {
      prefetch(ahead);
      add_unit<kRows, true, kHalves>(a, *at++, unit, acc);
    }
  }
  if constexpr (kHalves == 1) {
    store_rows(t, acc);
  } else if (is_plain16(t)) {
    store_rows(t, acc);
  } else {
    alignas(32) int32_t sums[kRows][16];
    NK_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums[r]), acc[r][0]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums[r] + 8), acc[r][1]);
    }
    finish_sums16(t, &sums[0][0]);
  }
  return ahead;
}

template <int kRows>
void tile_picked(const Tile& first) {
  Tile t = first;
  const bool narrow = is_plain8(t);
  for (int64_t more = t.more;; --more) {
    t.ahead = narrow ? one_tile<kRows, 1>(t) : one_tile<kRows, 2>(t);
    if (more == 0) return;
    next_tile(&t, kRows);
  }
}

const TileFn kPicked[] = {tile_picked<1>, tile_picked<2>, tile_picked<3>, tile_picked<4>};

}  // namespace

extern const TileSet picked_set_x86_avx2;
const TileSet picked_set_x86_avx2 = {"x86_avx2", Layout::kPicked, 4, 16, kPicked, nullptr, true};

}  // namespace qgemm
}  // namespace netsuke
