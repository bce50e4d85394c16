// wlinear on AVX-512 VNNI: vpdpbusd takes the codes u = w + 2^(bits-1) unsigned and x signed, without saturation, into 32 bits.
#include "kernels/base/avx512.h"

#define NETSUKE_LANES 16
#ifndef NETSUKE_TABLE
#define NETSUKE_TABLE avx512vnni
#endif
#include "kernels/wlinear/generic.inc"

namespace netsuke {
namespace {

constexpr int kBytes = 64;

typedef __m512i Bytes;

NK_INLINE Bytes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
NK_INLINE Bytes splat_quad(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

template <int kBits>
NK_INLINE Bytes unfold(const uint8_t* block, int q, int v) {
  const uint8_t* at = block + kBytes * v;
  if (kBits == 8) return load_codes(at + kQuadBytes * q);
  if (kBits == 4) return _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q / 2)), 4 * (q % 2)), _mm512_set1_epi32(0x0f0f0f0f));
  if (kBits == 2) return _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q / 4)), 2 * (q % 4)), _mm512_set1_epi32(0x03030303));
  if (q < 6) return _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q / 2)), 3 * (q % 2)), _mm512_set1_epi32(0x07070707));
  const Bytes low = _mm512_and_si512(_mm512_srli_epi32(load_codes(at + kQuadBytes * (q - 6)), 6), _mm512_set1_epi32(0x03030303));
  const Bytes third = _mm512_and_si512(_mm512_srli_epi32(load_codes(at + 2 * kQuadBytes), q - 2), _mm512_set1_epi32(0x04040404));
  return _mm512_or_si512(low, third);
}

// Sums of a group start here, of codes u = w + offset: what that is too much goes off first.
NK_INLINE __m512i start_sum(__m512i offset, int32_t x_sum) { return _mm512_mullo_epi32(offset, _mm512_set1_epi32(x_sum)); }
NK_INLINE __m512 scale_sum(__m512 acc, __m512i sum, __m512 x_scale, __m512 scale) {
  return _mm512_add_ps(acc, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(x_scale, scale)));
}

// One row: weights are read once, so unfolding them is most of the work, and no code is shifted. A code is multiplied where it stands
// in its byte, 2^(bits * place) times its value, and each place has sums of its own, which are shifted once a group, exactly. A group's
// sums stay in int32: a place holds half of its codes or fewer, 127 * 240 * 66,311 / 2. Of 3 bits, quads 6 and 7 have no place.
template <int kBits>
constexpr int kPlaces = kBits == 8 ? 1 : kBits == 3 ? 3 : 8 / kBits;

// kChains: sums of each place, between which runs take turns.
template <int kBits, int kChains>
NK_INLINE void multiply_block(const uint8_t* at, const int8_t* x, const __m512i* masks, int64_t panel_bytes, __m512i (*sums)[kChains][kPlaces<kBits>], int vecs) {
  constexpr int kPer = 8 / kBits, kRuns = kBits;
  const auto add = [&](int v, int chain, int place, Bytes w, Bytes four) __attribute__((always_inline)) {
    __m512i& sum = sums[v][chain][place];
    sum = _mm512_dpbusd_epi32(sum, w, four);
    NK_KEEP(sum);  // GCC 12 would move every sum to another register and back
  };
#pragma GCC unroll 8
  for (int r = 0; r < kRuns; ++r) {
    Bytes four[kPer];
#pragma GCC unroll 4
    for (int i = 0; i < kPer; ++i) {
      four[i] = splat_quad(x + 4 * (kPer * r + i));
      NK_KEEP(four[i]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) {
      Bytes run = load_codes(at + v / 2 * panel_bytes + kBytes * (v % 2) + kQuadBytes * r);
      NK_KEEP(run);  // one load for all places
#pragma GCC unroll 4
      for (int i = 0; i < kPer; ++i) add(v, r % kChains, i, kBits == 8 ? run : _mm512_and_si512(run, masks[i]), four[i]);
    }
  }
  if (kBits != 3) return;
#pragma GCC unroll 2
  for (int q = 6; q < 8; ++q) {
    const Bytes four = splat_quad(x + 4 * q);
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) add(v, q % kChains, 2, unfold<3>(at + v / 2 * panel_bytes, q, v % 2), four);
  }
}

template <int kBits, int kChains>
NK_INLINE __m512i sum_of_places(const __m512i (*sums)[kPlaces<kBits>]) {
  __m512i total;
#pragma GCC unroll 4
  for (int i = 0; i < kPlaces<kBits>; ++i) {
    const __m512i all = kChains == 1 ? sums[0][i] : _mm512_add_epi32(sums[0][i], sums[kChains - 1][i]);
    const __m512i place = kBits != 8 && i > 0 && i < 8 / kBits ? _mm512_srai_epi32(all, kBits * i) : all;
    total = i == 0 ? place : _mm512_add_epi32(total, place);
  }
  return total;
}

// Row `row` of panels index .. index + kPanels - 1 of the job. kAsk: bytes of each block that are asked for ahead.
template <int kBits, int kPanels, int kChains, int kAsk>
void one_row(const WlinearS8& job, int64_t row, int index) {
  constexpr int kVecs = 2 * kPanels;  // 16 channels each
  const WlinearPanel& panel = job.panel;
  const int64_t panel_bytes = panel.blocks * wlinear_block_bytes(kBits);
  const uint8_t* block = panel.w + index * panel_bytes;
  const int8_t* x = job.x + row * panel.blocks * kWBlock;
  __m512i masks[8 / kBits];
  for (int i = 0; i < 8 / kBits; ++i) masks[i] = _mm512_set1_epi8(static_cast<char>(((1 << kBits) - 1) << (kBits * i)));
  __m512 acc[kVecs];
  for (auto& a : acc) a = _mm512_setzero_ps();
  for (int64_t g = 0, b = 0; g < panel.groups; ++g) {
    const int32_t x_sum = job.x_sum[g * job.x_stride + row];
    __m512i sums[kVecs][kChains][kPlaces<kBits>];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      for (auto& chain : sums[v]) {
        for (auto& sum : chain) sum = _mm512_setzero_si512();
      }
      const int64_t lane = ((index + v / 2) * panel.groups + g) * kPanel + 16 * (v % 2);
      const __m512i offset = panel.offset == nullptr ? _mm512_set1_epi32(panel.same_offset) : _mm512_loadu_si512(panel.offset + lane);
      sums[v][0][0] = start_sum(offset, -x_sum);
    }
    for (int64_t end = b + panel.group_blocks; b < end && b < panel.blocks; ++b, block += wlinear_block_bytes(kBits), x += kWBlock) {
      if (kAsk != 0) ask_ahead(block, kAsk, kAsk == 64 ? kAhead : kAhead / 2);
      multiply_block<kBits, kChains>(block, x, masks, panel_bytes, sums, kVecs);
    }
    const __m512 x_scale = _mm512_set1_ps(job.x_scale[g * job.x_stride + row]);
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const float* scale = panel.scale + ((index + v / 2) * panel.groups + g) * kPanel + 16 * (v % 2);
      acc[v] = scale_sum(acc[v], sum_of_places<kBits, kChains>(sums[v]), x_scale, _mm512_loadu_ps(scale));
    }
  }
  float values[kPanels * kPanel];
  for (int v = 0; v < kVecs; ++v) _mm512_storeu_ps(values + 16 * v, acc[v]);
  for (int i = 0; i < kPanels; ++i) finish_row(panel, index + i, values + i * kPanel, panel.y + row * panel.y_stride);
}

// The only row. Out of the third-level cache one stream of weights comes at 95 % of the rate of plain reads, two streams at 90 %. Left to the
// hardware it is the fastest where the memory lies well for it (4 bits: 78 us) and among the slowest where not (93): every line is asked for (81
// to 83 in both), but at 8 bits, where that costs 15 %, and in groups of one block, where it gains nothing. Out of memory two streams come 5 to
// 10 % faster than one, and those of 2 and 3 bits, whose products take as long as the memory, faster with one line of a block asked for. One
// chain a place makes products wait for those before them; in groups of one block that is less than adding two takes.
template <int kBits, int kChains>
void only_row(const WlinearS8& job) {
  constexpr bool kWide = kBits == 4 || kBits == 8;
  int index = 0;
  if (job.panel.far && kWide) {
    for (; index + 2 <= job.panel.count; index += 2) one_row<kBits, 2, kChains, 0>(job, 0, index);
  }
  for (; index < job.panel.count; ++index) {
    if (job.panel.far && !kWide) one_row<kBits, 1, kChains, 64>(job, 0, index);
    else one_row<kBits, 1, kChains, kBits == 8 || kChains == 1 ? 0 : int{wlinear_block_bytes(kBits)}>(job, 0, index);
  }
}

template <int kBits>
void only_row(const WlinearS8& job) {
  if (job.panel.group_blocks == 1) only_row<kBits, 1>(job);
  else only_row<kBits, 2>(job);
}

}  // namespace
}  // namespace netsuke

#include "kernels/wlinear/many_rows_s8.inc"

namespace netsuke {
namespace {

template <int kBits>
void s8_bits(const WlinearS8& job) {
  if (job.panel.rows == 1) return only_row<kBits>(job);
  for (int index = 0; index < job.panel.count; ++index) {
    if (job.panel.rows >= 4) {
      many_rows_s8<kBits>(job, index);
      continue;
    }
    for (int64_t row = 0; row < job.panel.rows; ++row) one_row<kBits, 1, 2, 0>(job, row, index);
  }
}

void s8_panel(const WlinearS8& job) {
  switch (job.panel.bits) {
    case 2: return s8_bits<2>(job);
    case 3: return s8_bits<3>(job);
    case 4: return s8_bits<4>(job);
    default: return s8_bits<8>(job);
  }
}

}  // namespace
extern const WlinearKernels NK_TABLE(wlinear_kernels);
const WlinearKernels NK_TABLE(wlinear_kernels) = {"x86_avx512vnni", 128, s8_panel, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
