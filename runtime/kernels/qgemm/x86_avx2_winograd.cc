// The Winograd transforms compiled for AVX2.
#include "kernels/qgemm/avx2_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

NK_INLINE void finish_row(const Tile& t, int64_t row, const int32_t* sums) {
  if (is_plain16(t)) {
    const __m256i* s = reinterpret_cast<const __m256i*>(sums);
    return store_row16(t, row, _mm256_load_si256(s), _mm256_load_si256(s + 1));
  }
  Tile one = t;
  const int64_t at = row * t.out_stride * (t.requant->out_f32 ? 4 : 1);
  one.out = static_cast<uint8_t*>(t.out) + at;
  one.residual = t.residual == nullptr ? nullptr : static_cast<const uint8_t*>(t.residual) + at;
  finish_sums16(one, sums);
}

constexpr int kWinogradWidth = 16;
#define WINOGRAD_BITS 256
#define WINOGRAD_PIXELS
template <int kCount>
NK_INLINE void finish_pixels(const Tile& tile, const int32_t (*sums)[kWinogradWidth]) {
  if (!is_plain16(tile)) {
    for (int j = 0; j < kCount; ++j) finish_row(tile, j, sums[j]);
    return;
  }
  __m256i acc[kCount][2];
  NK_UNROLL(4)
  for (int j = 0; j < kCount; ++j) {
    const __m256i* s = reinterpret_cast<const __m256i*>(sums[j]);
    acc[j][0] = _mm256_load_si256(s);
    acc[j][1] = _mm256_load_si256(s + 1);
  }
  store_rows(tile, acc);
}
#include "kernels/qgemm/winograd.inc"

}  // namespace

void winograd_input4_x86_avx2(const WinogradInput& in);
void winograd_input2_x86_avx2(const WinogradInput& in);
void winograd_output4_x86_avx2(const WinogradOutput& out);
void winograd_output2_x86_avx2(const WinogradOutput& out);
void winograd_input4_x86_avx2(const WinogradInput& in) { winograd_input<6>(in); }
void winograd_input2_x86_avx2(const WinogradInput& in) { winograd_input<4>(in); }
void winograd_output4_x86_avx2(const WinogradOutput& out) { winograd_output<4>(out); }
void winograd_output2_x86_avx2(const WinogradOutput& out) { winograd_output<2>(out); }

}  // namespace qgemm
}  // namespace netsuke
