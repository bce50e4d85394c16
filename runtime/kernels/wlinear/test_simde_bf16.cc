// The file with VDPBF16PS, two fma in the place of the instruction, compared with the plain loops.
#include "kernels/base/simde_target.h"

#define NETSUKE_TABLE simde
#include "kernels/wlinear/x86_avx512bf16.cc"

#include "kernels/wlinear/test_cases.h"

int main() {
  netsuke::compare_wlinear(netsuke::wlinear_kernels_simde, 100, {netsuke::WlinearCompute::kBf16});
  return netsuke::check_result();
}
