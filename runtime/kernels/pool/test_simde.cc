// The AVX-512 file of this folder, executed through SIMDe and compared with the plain loops.
#include "kernels/base/simde_target.h"

#define NETSUKE_TABLE simde
#include "kernels/pool/x86_avx512vnni.cc"

#include "kernels/pool/test_cases.h"

int main() {
  netsuke::compare_pool(netsuke::pool_kernels_simde, 200);
  return netsuke::check_result();
}
