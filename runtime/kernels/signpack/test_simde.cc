// The AVX-512 file of this folder, executed through SIMDe and compared with the plain loops.
#include "kernels/base/simde_target.h"

#define NETSUKE_TABLE simde
#include "kernels/signpack/x86_avx512vnni.cc"

#include "kernels/signpack/test_cases.h"

int main() {
  netsuke::compare_sign_pack(netsuke::sign_pack_kernels_simde);
  return netsuke::check_result();
}
