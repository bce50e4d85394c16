// The AVX-512 file of this folder, executed through SIMDe and compared with the plain loops.
#include "kernels/base/simde_target.h"

#define NETSUKE_TABLE simde
#include "kernels/wlinear/x86_avx512vnni.cc"

#include "kernels/wlinear/test_cases.h"

int main() {
  netsuke::compare_wlinear(netsuke::wlinear_kernels_simde, 150, {netsuke::WlinearCompute::kS8, netsuke::WlinearCompute::kF32, netsuke::WlinearCompute::kBf16});
  return netsuke::check_result();
}
