// AVX-512 VNNI tiles. kU8x4: vpdpbusd takes u8 codes and s8 weights as they are and adds four products into int32 without an
// intermediate that could saturate, so it is exact as it stands. kS16x2 (the matrix products inside Winograd): vpdpwssd.
//
// 12 rows x 32 channels: 24 accumulators, 2 weights, 1 broadcast of 32 registers; 14 loads for 24 products. 8 x 48 and 16 x 16 serve
// channel counts that 32 does not divide (select.cc).
#include "kernels/base/avx512.h"

#include <cstring>

#include "kernels/qgemm/avx512_requant.h"

namespace netsuke {
namespace qgemm {

void depthwise_x86_avx512vnni(const DepthwiseRow& row);
int64_t depthwise_bytes_x86_avx512vnni(int64_t taps);
void depthwise_pack_x86_avx512vnni(const int8_t* w, int64_t taps, const int32_t* init, const Requant& q, int64_t channel, uint8_t* dst);
void winograd_input4_x86_avx512vnni(const WinogradInput& in);
void winograd_input2_x86_avx512vnni(const WinogradInput& in);
void winograd_output4_x86_avx512vnni(const WinogradOutput& out);
void winograd_output2_x86_avx512vnni(const WinogradOutput& out);
void winograd_input3_narrow_x86_avx512vnni(const WinogradInput& in);
void winograd_output3_x86_avx512vnni(const WinogradOutput& out);
void winograd_input_narrow_x86_avx512vnni(const WinogradInput& in);
void winograd_product_x86_avx512vnni(const WinogradProduct& p);
void winograd_product_narrow_x86_avx512vnni(const WinogradProduct& p);

namespace {

NK_INLINE __m512i dot(__m512i acc, __m512i x, __m512i w, uint8_t) { return _mm512_dpbusd_epi32(acc, x, w); }
NK_INLINE __m512i dot(__m512i acc, __m512i x, __m512i w, int16_t) { return _mm512_dpwssd_epi32(acc, x, w); }

// A: uint8_t (groups of four) or int16_t (groups of two); a group is 32 bits either way.
template <typename A, int kVectors, int kRows>
void tile(const Tile& t) {
  constexpr int kGroup = 4 / sizeof(A), kWidth = 16 * kVectors;
  __m512i acc[kRows][kVectors];
  NK_UNROLL(4)
  for (int v = 0; v < kVectors; ++v) {
    const __m512i start = _mm512_loadu_si512(t.init + 16 * v);
    NK_UNROLL(16)
    for (int r = 0; r < kRows; ++r) acc[r][v] = start;
  }
  const uint8_t* b = static_cast<const uint8_t*>(t.b);
  uintptr_t ahead = t.ahead;
  for (int64_t run = 0; run < t.runs; ++run) {
    const A* a[kRows];
    NK_UNROLL(16)
    for (int r = 0; r < kRows; ++r) a[r] = static_cast<const A*>(t.a[r]) + t.run_offset[run];
    for (int64_t k = 0; k < t.groups; ++k, b += 64 * kVectors, ahead += static_cast<uintptr_t>(t.ahead_step)) {
      __builtin_prefetch(reinterpret_cast<const void*>(ahead), 0, 2);
      __m512i w[kVectors];
      NK_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(b + 64 * v);
      NK_UNROLL(16)
      for (int r = 0; r < kRows; ++r) {
        int32_t group;
        memcpy(&group, a[r] + kGroup * k, 4);
        const __m512i x = _mm512_set1_epi32(group);
        NK_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) acc[r][v] = dot(acc[r][v], x, w[v], A());
      }
    }
  }
  if (t.requant == nullptr && t.columns == kWidth) {
    NK_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      NK_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) _mm512_storeu_si512(static_cast<int32_t*>(t.out) + r * t.out_stride + 16 * v, acc[r][v]);
    }
    return;
  }
  if (is_packed(t, kWidth)) {
    return t.requant->residual == Residual::kU8 ? store_codes<kVectors, kRows, true>(t, acc) : store_codes<kVectors, kRows, false>(t, acc);
  }
  alignas(64) int32_t sums[kRows * kWidth];
  NK_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    NK_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_si512(sums + r * kWidth + 16 * v, acc[r][v]);
  }
  finish_sums<kWidth>(t, sums);
}

void widen(const uint8_t* src, int64_t count, int32_t zero, int16_t* dst) {
  const __m512i z = _mm512_set1_epi16(static_cast<int16_t>(zero));
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512i v = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i)));
    _mm512_storeu_si512(dst + i, _mm512_sub_epi16(v, z));
  }
  for (; i < count; ++i) dst[i] = static_cast<int16_t>(src[i] - zero);
}

template <typename A, int kVectors, int kMax>
struct Tiles {
  TileFn fn[kMax];
  template <int... kRow>
  static constexpr Tiles make(Numbers<kRow...>) { return {{tile<A, kVectors, kRow + 1>...}}; }
};

constexpr auto kU8x4_12x32 = Tiles<uint8_t, 2, 12>::make(Count<12>::Type());
constexpr auto kU8x4_8x48 = Tiles<uint8_t, 3, 8>::make(Count<8>::Type());
constexpr auto kU8x4_16x16 = Tiles<uint8_t, 1, 16>::make(Count<16>::Type());
constexpr auto kS16x2_12x32 = Tiles<int16_t, 2, 12>::make(Count<12>::Type());

#define NETSUKE_QGEMM_x86_avx512vnni
#define NETSUKE_QGEMM(isa, layout, rows, width) {#isa, Layout::layout, rows, width, layout##_##rows##x##width.fn, nullptr},
const TileSet kSets[] = {
#include "kernels/qgemm/kernels.inc"
};
constexpr int kSetCount = sizeof(kSets) / sizeof(kSets[0]);
static_assert(kSetCount == 4, "the Winograd set is the last row");

}  // namespace

#ifdef NETSUKE_SIMDE
#define NK_TABLE_NAME kernels_simde
#else
#define NK_TABLE_NAME kernels_x86_avx512vnni
#endif
extern const Kernels NK_TABLE_NAME;
const Kernels NK_TABLE_NAME = {kSets,
                               kSetCount,
                               widen,
                               nullptr,  // direct layers use kU8x4
                               32,
                               depthwise_x86_avx512vnni,
                               depthwise_bytes_x86_avx512vnni,
                               depthwise_pack_x86_avx512vnni,
                               &kSets[kSetCount - 1],
                               32,
                               128 * 128,
                               0,
                               winograd_input4_x86_avx512vnni,
                               winograd_input2_x86_avx512vnni,
                               winograd_output4_x86_avx512vnni,
                               winograd_output2_x86_avx512vnni,
                               nullptr,
                               nullptr,
                               nullptr,  // 8-bit products cost no more for wide codes
                               &kSets[0],
                               64,  // 32 channels: half of the input's vectors is empty, F(4x4) is 1.09 times faster
                               256 * 256,  // 7x7 outputs leave most of 3x3 tiles of 9x9 unused, and U is larger
                               winograd_input3_narrow_x86_avx512vnni,
                               winograd_input_narrow_x86_avx512vnni,
                               winograd_output3_x86_avx512vnni,
                               winograd_product_x86_avx512vnni,
                               winograd_product_narrow_x86_avx512vnni};

}  // namespace qgemm
}  // namespace netsuke
