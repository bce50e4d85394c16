// The Winograd transforms compiled for AVX-512.
#include "kernels/qgemm/avx512_requant.h"

namespace netsuke {
namespace qgemm {
namespace {

NK_INLINE void finish_row(const Tile& t, int64_t row, const int32_t* sums) {
  if (is_plain(t, 32)) {
    const __m512i acc[2] = {_mm512_loadu_si512(sums), _mm512_loadu_si512(sums + 16)};
    return store_row<2>(t, row, acc);
  }
  Tile one = t;
  const int64_t at = row * t.out_stride * (t.requant->out_f32 ? 4 : 1);
  one.out = static_cast<uint8_t*>(t.out) + at;
  one.residual = t.residual == nullptr ? nullptr : static_cast<const uint8_t*>(t.residual) + at;
  finish_sums<32>(one, sums);
}

constexpr int kWinogradWidth = 32;
#define WINOGRAD_BITS 512
#include "kernels/qgemm/winograd.inc"

}  // namespace

void winograd_input4_x86_avx512vnni(const WinogradInput& in);
void winograd_input2_x86_avx512vnni(const WinogradInput& in);
void winograd_output4_x86_avx512vnni(const WinogradOutput& out);
void winograd_output2_x86_avx512vnni(const WinogradOutput& out);
void winograd_input4_x86_avx512vnni(const WinogradInput& in) { winograd_input<6>(in); }
void winograd_input2_x86_avx512vnni(const WinogradInput& in) { winograd_input<4>(in); }
void winograd_output4_x86_avx512vnni(const WinogradOutput& out) { winograd_output<4>(out); }
void winograd_output2_x86_avx512vnni(const WinogradOutput& out) { winograd_output<2>(out); }

}  // namespace qgemm
}  // namespace netsuke
