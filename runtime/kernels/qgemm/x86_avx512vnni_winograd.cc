// The Winograd transforms compiled for AVX-512, the form over 8-bit lanes and the products between transforms.
#include "kernels/qgemm/avx512_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kWinogradWidth = 32;

// Outputs that are not PlainCodes.
NK_INLINE void finish_row(const Tile& t, int64_t row, const int32_t* sums) {
  Tile one = t;
  const int64_t at = row * t.out_stride * (t.requant->out_f32 ? 4 : 1);
  one.out = static_cast<uint8_t*>(t.out) + at;
  one.residual = t.residual == nullptr ? nullptr : static_cast<const uint8_t*>(t.residual) + at;
  finish_sums<kWinogradWidth>(one, sums);
}

#define NK_MEMBER inline __attribute__((always_inline))

// Codes of a whole panel: the constants of 16 channels stay in registers for all pixels of a tile. The same operations as store_codes16.
struct PlainCodes {
  static NK_MEMBER bool applies(const Tile& t) { return is_plain(t, kWinogradWidth); }
  NK_MEMBER PlainCodes(const Tile& t, int c)
      : mult(_mm512_loadu_ps(t.requant->mult + t.channel + c)), bias(_mm512_loadu_ps(t.requant->bias + t.channel + c)),
        lo(_mm512_set1_ps(t.requant->code_lo)), hi(_mm512_set1_ps(t.requant->code_hi)), r_mult(_mm512_set1_ps(t.requant->r_mult)),
        zero(_mm512_set1_epi32(t.requant->zero)), r_zero(_mm512_set1_epi32(t.requant->r_zero)), out(static_cast<uint8_t*>(t.out)),
        residual(t.requant->residual == Residual::kU8 ? static_cast<const uint8_t*>(t.residual) : nullptr) {}
  template <typename Vector>
  NK_MEMBER void store(int64_t at, Vector sum) const {
    __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sum), mult), bias);
    if (residual != nullptr) {
      const __m512i r = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(residual + at)));
      v = _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(r, r_zero)), r_mult));
    }
    v = _mm512_min_ps(_mm512_max_ps(v, lo), hi);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at), _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), zero)));
  }
  __m512 mult, bias, lo, hi, r_mult;
  __m512i zero, r_zero;
  uint8_t* out;
  const uint8_t* residual;
};

#define WINOGRAD_BITS 512
#define WINOGRAD_PLAIN PlainCodes
#include "kernels/qgemm/winograd.inc"

// F(2x2) over 8-bit lanes, 64 channels at a time. 128 added to the codes of two rows and two columns adds 128 to every position.
void winograd_input_bytes(const WinogradInput& in) {
  typedef uint8_t wb __attribute__((vector_size(64), may_alias));
  typedef uint8_t wb_loaded __attribute__((vector_size(64), aligned(1), may_alias));
  const wb middle = (wb){} + static_cast<uint8_t>(128);
  for (int64_t c = 0; c < in.channels; c += 64) {
    wb half[4][4];
    NK_UNROLL(4)
    for (int j = 0; j < 4; ++j) {
      wb d[4];
      NK_UNROLL(4)
      for (int i = 0; i < 4; ++i) d[i] = *reinterpret_cast<const wb_loaded*>(in.x + i * in.row_stride + j * in.pixel_stride + c);
      if (j < 2) {
        d[0] += middle;
        d[1] += middle;
      }
      half[0][j] = d[0] - d[2];
      half[1][j] = d[1] + d[2];
      half[2][j] = d[2] - d[1];
      half[3][j] = d[1] - d[3];
    }
    NK_UNROLL(4)
    for (int i = 0; i < 4; ++i) {
      const wb(&h)[4] = half[i];
      const wb t[4] = {h[0] - h[2], i == 1 ? h[1] + h[2] + middle : h[1] + h[2], h[2] - h[1], h[1] - h[3]};
      NK_UNROLL(4)
      for (int j = 0; j < 4; ++j) *reinterpret_cast<wb*>(static_cast<uint8_t*>(in.v) + (i * 4 + j) * in.v_stride + c) = t[j];
    }
  }
}

NK_INLINE __m512i winograd_dot(__m512i acc, __m512i x, __m512i w, uint8_t) { return _mm512_dpbusd_epi32(acc, x, w); }
NK_INLINE __m512i winograd_dot(__m512i acc, __m512i x, __m512i w, int16_t) { return _mm512_dpwssd_epi32(acc, x, w); }

// kTiles x 32 channels, one position after the other without a call for each. Rows at one stride need 4 addresses instead of 12: with one a row
// the compiler keeps some in vector registers. 98 to 100 % of what vpdpbusd and vpdpwssd allow from 128 channels on.
template <typename A, int kTiles>
void winograd_product(const WinogradProduct& p) {
  int32_t* m = p.m;
  const int64_t stride = p.channels * static_cast<int64_t>(sizeof(A)), groups = p.groups;
  for (int position = 0; position < p.positions; ++position, m += kTiles * kWinogradWidth) {
    const uint8_t* a[4];  // of rows 0, 3, 6, 9: the others are one or two strides behind
    NK_UNROLL(4)
    for (int i = 0; i < 4; ++i) a[i] = static_cast<const uint8_t*>(p.v) + position * p.v_stride * static_cast<int64_t>(sizeof(A)) + 3 * i * stride;
    const uint8_t* b = p.b + position * p.b_stride;
    const int32_t* init = p.init + position * p.init_stride;
    __m512i acc[kTiles][2];
    const __m512i start[2] = {_mm512_loadu_si512(init), _mm512_loadu_si512(init + 16)};
    NK_UNROLL(16)
    for (int r = 0; r < kTiles; ++r) {
      acc[r][0] = start[0];
      acc[r][1] = start[1];
    }
    NK_UNROLL(2)
    for (int64_t k = 0; k < groups; ++k, b += 128) {
      const __m512i w0 = _mm512_loadu_si512(b), w1 = _mm512_loadu_si512(b + 64);
      NK_UNROLL(16)
      for (int r = 0; r < kTiles; ++r) {
        int32_t group;
        memcpy(&group, a[r / 3] + r % 3 * stride, 4);
        const __m512i x = _mm512_set1_epi32(group);
        acc[r][0] = winograd_dot(acc[r][0], x, w0, A());
        acc[r][1] = winograd_dot(acc[r][1], x, w1, A());
      }
      NK_UNROLL(4)
      for (int i = 0; i < 4; ++i) a[i] += 4;
    }
    NK_UNROLL(16)
    for (int r = 0; r < kTiles; ++r) {
      _mm512_storeu_si512(m + r * kWinogradWidth, acc[r][0]);
      _mm512_storeu_si512(m + r * kWinogradWidth + 16, acc[r][1]);
    }
  }
}

template <typename A>
struct Products {
  void (*fn[12])(const WinogradProduct&);
  template <int... kTiles>
  static constexpr Products make(Numbers<kTiles...>) { return {{winograd_product<A, kTiles + 1>...}}; }
};

constexpr auto kProducts = Products<int16_t>::make(Count<12>::Type());
constexpr auto kNarrowProducts = Products<uint8_t>::make(Count<12>::Type());

}  // namespace

void winograd_input4_x86_avx512vnni(const WinogradInput& in);
void winograd_input2_x86_avx512vnni(const WinogradInput& in);
void winograd_input_narrow_x86_avx512vnni(const WinogradInput& in);
void winograd_product_x86_avx512vnni(const WinogradProduct& p);
void winograd_product_narrow_x86_avx512vnni(const WinogradProduct& p);
void winograd_output4_x86_avx512vnni(const WinogradOutput& out);
void winograd_output2_x86_avx512vnni(const WinogradOutput& out);
void winograd_input4_x86_avx512vnni(const WinogradInput& in) { winograd_input<6>(in); }
void winograd_input2_x86_avx512vnni(const WinogradInput& in) { winograd_input<4>(in); }
void winograd_input_narrow_x86_avx512vnni(const WinogradInput& in) { winograd_input_bytes(in); }
void winograd_product_x86_avx512vnni(const WinogradProduct& p) { kProducts.fn[p.tiles - 1](p); }
void winograd_product_narrow_x86_avx512vnni(const WinogradProduct& p) { kNarrowProducts.fn[p.tiles - 1](p); }
void winograd_output4_x86_avx512vnni(const WinogradOutput& out) { winograd_output<4>(out); }
void winograd_output2_x86_avx512vnni(const WinogradOutput& out) { winograd_output<2>(out); }

}  // namespace qgemm
}  // namespace netsuke
