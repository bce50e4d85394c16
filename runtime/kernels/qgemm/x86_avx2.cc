// AVX2 tiles over kS16x2: x - x_zero and w as s16, vpmaddwd + vpaddd, exact for every code and every weight (-128 included).
//
// Why not vpmaddubsw: it multiplies 32 pairs but saturates at 255 * (127 + 127). Register-resident loops on one Zen 3 core at
// 3.2 GHz (limit of the two multiplier pipes: 103 GMAC/s for all of them):
//   vpmaddubsw + vpmaddwd + vpaddd     101 GMAC/s, not exact
//   vpmaddwd + vpaddd (this file)       83 GMAC/s, exact
//   vpsignb + the first                 82 GMAC/s, exact only for weights >= -127
#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {

void winograd_input4_x86_avx2(const WinogradInput& in);
void winograd_input2_x86_avx2(const WinogradInput& in);
void winograd_output4_x86_avx2(const WinogradOutput& out);
void winograd_output2_x86_avx2(const WinogradOutput& out);
void depthwise_x86_avx2(const DepthwiseRow& row);
int64_t depthwise_bytes_x86_avx2(int64_t taps);
void depthwise_pack_x86_avx2(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);
extern const TileSet narrow_set_x86_avx2, picked_set_x86_avx2;
PickedSize picked_pack_x86_avx2(const PickedPanel& panel, uint8_t* dst, uint8_t* scratch, uint32_t* lost);

namespace {

template <bool kBytes>
struct Stored {
  using Type = int16_t;
};
template <>
struct Stored<true> {
  using Type = int8_t;
};
NK_INLINE __m256i load_weights(const int16_t* b) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(b)); }
NK_INLINE __m256i load_weights(const int8_t* b) { return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(b))); }

// kBytes: B is still s8 (one vpmovsxbw more a vector, no panel to expand first). kHalves: 1 computes only the first 8 columns.
template <int kRows, bool kBytes, int kHalves, bool kAhead>
NK_INLINE uintptr_t one_tile(const Tile& t) {
  __m256i acc[kRows][kHalves];
  NK_UNROLL(2)
  for (int half = 0; half < kHalves; ++half) {
    const __m256i start = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.init + 8 * half));
    NK_UNROLL(8)
    for (int r = 0; r < kRows; ++r) acc[r][half] = start;
  }
  using B = typename Stored<kBytes>::Type;
  const B* b = static_cast<const B*>(t.b);
  uintptr_t ahead = t.ahead;
  const uintptr_t step = static_cast<uintptr_t>(t.ahead_step);
  for (int64_t run = 0; run < t.runs; ++run) {
    const int16_t* a[kRows];
    NK_UNROLL(8)
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const int16_t*>(t.a[r]) + t.run_offset[run];
    for (int64_t k = 0; k < t.groups; ++k, b += 32) {
      if (kAhead) {
        prefetch(ahead);
        ahead += step;
      }
      const __m256i w0 = load_weights(b), w1 = kHalves == 2 ? load_weights(b + 16) : w0;
      NK_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        memcpy(&pair, a[r] + 2 * k, 4);
        const __m256i x = _mm256_set1_epi32(pair);
        acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, w0));
        if constexpr (kHalves == 2) acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, w1));
      }
    }
  }
  if constexpr (kHalves == 1) {
    store_rows(t, acc);
  } else if (t.requant == nullptr && t.columns == 16) {
    NK_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      int32_t* out = static_cast<int32_t*>(t.out) + r * t.out_stride;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), acc[r][0]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), acc[r][1]);
    }
  } else if (is_plain16(t)) {
    store_rows(t, acc);
  } else {
    alignas(32) int32_t sums[kRows][16];
    NK_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums[r]), acc[r][0]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums[r] + 8), acc[r][1]);
    }
    finish_sums16(t, &sums[0][0]);
  }
  return ahead;
}

template <int kRows, bool kBytes, bool kAhead>
NK_INLINE void tiles_of(const Tile& first) {
  Tile t = first;
  const bool narrow = is_plain8(t);
  for (int64_t more = t.more;; --more) {
    t.ahead = narrow ? one_tile<kRows, kBytes, 1, kAhead>(t) : one_tile<kRows, kBytes, 2, kAhead>(t);
    if (more == 0) return;
    next_tile(&t, kRows);
  }
}

// A prefetch with each group costs 2 to 5 % where weights are in L1 anyway.
template <int kRows, bool kBytes>
void tile_s16x16(const Tile& t) {
  if (t.requant == nullptr && t.more == 0) {  // Winograd: a copy of the tile costs 8 % at 32 channels
    one_tile<kRows, kBytes, 2, true>(t);
  } else if (t.ahead_step != 0) {
    tiles_of<kRows, kBytes, true>(t);
  } else {
    tiles_of<kRows, kBytes, false>(t);
  }
}

void widen(const uint8_t* src, int64_t count, int32_t zero, int16_t* dst) {
  const __m256i z = _mm256_set1_epi16(static_cast<int16_t>(zero));
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i), _mm256_sub_epi16(v, z));
  }
  for (; i < count; ++i) dst[i] = static_cast<int16_t>(src[i] - zero);
}

void expand(const int8_t* src, int64_t count, int16_t* dst) {
  for (int64_t i = 0; i < count; i += 16) {
    const __m256i v = _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(src + i)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(dst + i), v);
  }
}

const TileFn kTiles16[] = {tile_s16x16<1, false>, tile_s16x16<2, false>, tile_s16x16<3, false>,
                           tile_s16x16<4, false>, tile_s16x16<5, false>, tile_s16x16<6, false>};
const TileFn kBytes16[] = {tile_s16x16<1, true>, tile_s16x16<2, true>, tile_s16x16<3, true>,
                           tile_s16x16<4, true>, tile_s16x16<5, true>, tile_s16x16<6, true>};

#define NETSUKE_QGEMM_x86_avx2
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, kTiles##width, kBytes##width, true},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};

}  // namespace

extern const Kernels kernels_x86_avx2;
const Kernels kernels_x86_avx2 = {kSets,
                                  1,
                                  widen,
                                  expand,
                                  32,
                                  depthwise_x86_avx2,
                                  depthwise_bytes_x86_avx2,
                                  depthwise_pack_x86_avx2,
                                  &kSets[0],
                                  24,
                                  128 * 128,
                                  256 * 256,
                                  winograd_input4_x86_avx2,
                                  winograd_input2_x86_avx2,
                                  winograd_output4_x86_avx2,
                                  winograd_output2_x86_avx2,
                                  &narrow_set_x86_avx2,
                                  &picked_set_x86_avx2,
                                  picked_pack_x86_avx2};

}  // namespace qgemm
}  // namespace netsuke
