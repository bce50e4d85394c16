// The AVX-512 files of this folder, executed through SIMDe and compared with plain loops.
#include "kernels/base/simde_target.h"
#pragma GCC optimize("O1")

#define NETSUKE_TABLE simde
#include "kernels/bgemm/x86_avx512vpopcntdq.cc"
#include "kernels/bgemm/x86_avx512gfni.cc"

#include "kernels/bgemm/test_cases.h"

int main(int argc, char** argv) {
  using namespace netsuke;
  if (!isa_available(Isa::kAvx2)) {
    std::printf("skipped: the emulation is compiled for AVX2, which this CPU lacks\n");
    return 77;
  }
  bgemm::override_kernels_for_test(&bgemm::kernels_simde);
  bgemm::override_form_kernels_for_test(&bgemm::form_kernels_simde, true);
  bgemm::check_many(Isa::kAvx512Vnni, argc > 1 ? std::atoi(argv[1]) : 200, 1000);
  return check_result();
}
