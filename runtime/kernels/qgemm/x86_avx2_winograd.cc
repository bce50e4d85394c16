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
