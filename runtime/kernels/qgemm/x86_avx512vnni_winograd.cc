// The Winograd transforms compiled for AVX-512, the form over 8-bit lanes and the products between transforms.
#include "kernels/qgemm/avx512_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kWinogradWidth = 32;

// Outputs that winograd_codes does not take.
NK_INLINE void finish_row(const Tile& t, int64_t row, const int32_t* sums) {
  Tile one = t;
  const int64_t at = row * t.out_stride * (t.requant->out_f32 ? 4 : 1);
  one.out = static_cast<uint8_t*>(t.out) + at;
  one.residual = t.residual == nullptr ? nullptr : static_cast<const uint8_t*>(t.residual) + at;
  finish_sums<kWinogradWidth>(one, sums);
}

#define WINOGRAD_BITS 512
#include "kernels/qgemm/winograd.inc"

// Codes of whole panels, 16 channels of four pixels at a time. Constants stay in registers for all tiles.
template <int kOut, bool kResidual>
void winograd_codes(const WinogradOutput& o) {
  const Requant& q = *o.tile.requant;
  const CodePack pack = code_pack(q);
  const __m512i r_zero = _mm512_set1_epi32(q.r_zero);
  const __m512 r_mult = _mm512_set1_ps(q.r_mult);
  const int64_t right = o.tile.out_stride, down = o.image_width * right, m_stride = o.m_stride;
  const int tiles = o.tiles, rows = o.rows;
  for (int c = 0; c < kWinogradWidth; c += 16) {
    const __m512 mult = _mm512_loadu_ps(q.mult + o.tile.channel + c), bias = _mm512_loadu_ps(q.bias + o.tile.channel + c);
    const wi start = *reinterpret_cast<const wi_any*>(o.init + c);
    const int32_t* m = o.m + c;
    uint8_t* out = static_cast<uint8_t*>(o.tile.out) + c;
    const uint8_t* residual = static_cast<const uint8_t*>(o.tile.residual) + (kResidual ? c : 0);
    int columns = o.columns;
    for (int t = 0; t < tiles; ++t, m += kWinogradWidth, columns -= kOut, out += kOut * right, residual += kResidual ? kOut * right : 0) {
      const bool whole = rows == kOut && columns >= kOut;
      winograd_sums<kOut>(m, m_stride, start, [&](int n, const wi* sums) NK_LAMBDA_INLINE {
        __m512 scaled[4];
        NK_UNROLL(4)
        for (int k = 0; k < 4; ++k) {
          const int i = (n + k) % kOut, j = (n + k) / kOut;
          scaled[k] = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums[k]), mult), bias);
          if (kResidual && n + k < kOut * kOut && (whole || (i < rows && j < columns))) {
            const __m128i r = _mm_loadu_si128(reinterpret_cast<const __m128i*>(residual + i * down + j * right));
            const __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(r), r_zero));
            scaled[k] = _mm512_add_ps(scaled[k], _mm512_mul_ps(f, r_mult));
          }
        }
        const __m512i codes = codes64(pack, scaled);
        const __m128i quarters[4] = {_mm512_castsi512_si128(codes), _mm512_extracti32x4_epi32(codes, 1), _mm512_extracti32x4_epi32(codes, 2),
                                     _mm512_extracti32x4_epi32(codes, 3)};
        NK_UNROLL(4)
        for (int k = 0; k < 4; ++k) {
          const int i = (n + k) % kOut, j = (n + k) / kOut;
          const bool inside = n + k < kOut * kOut && (whole || (i < rows && j < columns));
          if (inside) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * down + j * right), quarters[k]);
        }
      });
    }
  }
}

template <int kOut>
void winograd_store(const WinogradOutput& o) {
  if (!is_packed(o.tile, kWinogradWidth)) return winograd_output<kOut>(o);
  o.tile.requant->residual == Residual::kU8 ? winograd_codes<kOut, true>(o) : winograd_codes<kOut, false>(o);
}

typedef uint8_t wb __attribute__((vector_size(64), may_alias));
typedef uint8_t wb_loaded __attribute__((vector_size(64), aligned(1), may_alias));

// B^T d for F(3, 3), modulo 2^8.
NK_INLINE void forward(const wb (&d)[5], wb (&t)[5]) {
  const wb e = d[3] - d[1], f = d[0] - d[2], g = d[1] - d[2];
  t[0] = f + f + e;
  t[1] = e - d[1] - d[2];
  t[2] = d[3] - d[2] + g + g;
  t[3] = e;
  t[4] = d[4] - d[2] - e - e;
}

// F(3x3) over 8-bit lanes, 64 channels at a time.
void winograd_input3_bytes(const WinogradInput& in) {
  const wb middle = (wb){} + static_cast<uint8_t>(128);
  for (int64_t c = 0; c < in.channels; c += 64) {
    wb half[5][5];
    NK_UNROLL(5)
    for (int j = 0; j < 5; ++j) {
      wb d[5], t[5];
      NK_UNROLL(5)
      for (int i = 0; i < 5; ++i) d[i] = *reinterpret_cast<const wb_loaded*>(in.x + i * in.row_stride + j * in.pixel_stride + c);
      forward(d, t);
      NK_UNROLL(5)
      for (int i = 0; i < 5; ++i) half[i][j] = t[i];
    }
    NK_UNROLL(5)
    for (int i = 0; i < 5; ++i) {
      wb t[5];
      forward(half[i], t);
      NK_UNROLL(5)
      for (int j = 0; j < 5; ++j) *reinterpret_cast<wb*>(static_cast<uint8_t*>(in.v) + (i * 5 + j) * in.v_stride + c) = t[j] + middle;
    }
  }
}

// F(2x2) over 8-bit lanes. 128 added to the codes of two rows and two columns adds 128 to every position.
void winograd_input_bytes(const WinogradInput& in) {
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
template <typename A, int kTiles, bool kAhead>
void winograd_product(const WinogradProduct& p) {
  int32_t* m = p.m;
  const int64_t stride = p.channels * static_cast<int64_t>(sizeof(A)), groups = p.groups, ahead_step = p.ahead_step;
  uintptr_t ahead = p.ahead;
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
      if (kAhead) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
        ahead += static_cast<uintptr_t>(ahead_step);
      }
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

template <typename A, bool kAhead>
struct Products {
  void (*fn[12])(const WinogradProduct&);
  template <int... kTiles>
  static constexpr Products make(Numbers<kTiles...>) { return {{winograd_product<A, kTiles + 1, kAhead>...}}; }
};

template <typename A>
void winograd_products(const WinogradProduct& p) {
  static constexpr auto kNear = Products<A, false>::make(Count<12>::Type());
  static constexpr auto kFar = Products<A, true>::make(Count<12>::Type());
  (p.ahead_step == 0 ? kNear.fn : kFar.fn)[p.tiles - 1](p);
}

}  // namespace

void winograd_input4_x86_avx512vnni(const WinogradInput& in);
void winograd_input2_x86_avx512vnni(const WinogradInput& in);
void winograd_input3_narrow_x86_avx512vnni(const WinogradInput& in);
void winograd_output3_x86_avx512vnni(const WinogradOutput& out);
void winograd_input_narrow_x86_avx512vnni(const WinogradInput& in);
void winograd_product_x86_avx512vnni(const WinogradProduct& p);
void winograd_product_narrow_x86_avx512vnni(const WinogradProduct& p);
void winograd_output4_x86_avx512vnni(const WinogradOutput& out);
void winograd_output2_x86_avx512vnni(const WinogradOutput& out);
void winograd_input4_x86_avx512vnni(const WinogradInput& in) { winograd_input<6>(in); }
void winograd_input2_x86_avx512vnni(const WinogradInput& in) { winograd_input<4>(in); }
void winograd_input3_narrow_x86_avx512vnni(const WinogradInput& in) { winograd_input3_bytes(in); }
void winograd_output3_x86_avx512vnni(const WinogradOutput& out) { winograd_store<3>(out); }
void winograd_input_narrow_x86_avx512vnni(const WinogradInput& in) { winograd_input_bytes(in); }
void winograd_product_x86_avx512vnni(const WinogradProduct& p) { winograd_products<int16_t>(p); }
void winograd_product_narrow_x86_avx512vnni(const WinogradProduct& p) { winograd_products<uint8_t>(p); }
void winograd_output4_x86_avx512vnni(const WinogradOutput& out) { winograd_store<4>(out); }
void winograd_output2_x86_avx512vnni(const WinogradOutput& out) { winograd_store<2>(out); }

}  // namespace qgemm
}  // namespace netsuke
