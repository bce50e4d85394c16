// x86_avx512vbmi.cc of this folder, executed through SIMDe and compared with the plain loop.
#include "kernels/base/simde_target.h"

#define NETSUKE_TABLE simde
#include "kernels/lut/x86_avx512vbmi.cc"

#include "kernels/lut/test_cases.h"

int main() {
  netsuke::compare_lut(netsuke::lut_kernels_simde);
  return netsuke::check_result();
}
