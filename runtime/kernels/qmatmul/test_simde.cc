// The AVX-512 file of this folder, executed through SIMDe and compared with the plain loops.
#include "kernels/base/simde_target.h"

#define NETSUKE_TABLE simde
#include "kernels/qmatmul/x86_avx512vnni.cc"

#include "kernels/qmatmul/test_cases.h"

int main() {
  netsuke::compare_qmatmul(netsuke::qmatmul_kernels_simde, 120);
  return netsuke::check_result();
}
