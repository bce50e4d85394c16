// The forms of channels, made once when a layer is built.
#include "kernels/bgemm/forms.h"

#include "base/cpu.h"

namespace netsuke {
namespace bgemm {

#if defined(__x86_64__) || defined(_M_X64)
extern const FormKernels form_kernels_x86_avx512gfni;
#endif

namespace {

const FormKernels* g_forms = nullptr;
bool g_overridden = false;

struct Bytes {
  uint8_t halves[128], seven[128], parity[128];
};
constexpr Bytes make_bytes() {
  Bytes b = {};
  for (int i = 0; i < 128; ++i) {
    b.halves[i] = channel_halves(i);
    b.seven[i] = channel_seven(i);
    b.parity[i] = static_cast<uint8_t>(ones_of(i) & 1);
  }
  return b;
}
constexpr Bytes kBytes = make_bytes();

}  // namespace

void override_form_kernels_for_test(const FormKernels* kernels, bool overridden) {
  g_forms = kernels;
  g_overridden = overridden;
}

const FormKernels* form_kernels() {
  if (g_overridden) return g_forms;
#if defined(__x86_64__) || defined(_M_X64)
  if (cpu_features().avx512_vbmi && cpu_features().avx512_gfni) return &form_kernels_x86_avx512gfni;
#endif
  return nullptr;
}

void channel_forms(uint64_t word, uint8_t* to) {
  int parities = 0;
  for (int k = 0; k < 10; ++k) {
    const int bits = k < 9 ? static_cast<int>(word >> (7 * k) & 127) : parities & 127;
    if (k < 9) parities |= kBytes.parity[bits] << k;
    to[2 * k * 64] = kBytes.halves[bits];
    to[(2 * k + 1) * 64] = kBytes.seven[bits];
  }
  const int r = kBytes.parity[parities & 127], p7 = bit_of(parities, 7), p8 = bit_of(parities, 8), last = static_cast<int>(word >> 63);
  const int three = r | p7 << 1 | p8 << 2;
  to[20 * 64] = static_cast<uint8_t>(1 | e2_of(three) << 1 | (p7 ^ p8) << 2 | (r ^ p8) << 3 | (r ^ p7 ^ p8) << 4 | 1 << 5 | last << 6 | 1 << 7);
}

}  // namespace bgemm
}  // namespace netsuke
