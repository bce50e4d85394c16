// The AVX-512 VNNI source itself, executed through SIMDe where the CPU has no AVX-512.
#pragma GCC target("avx2,fma,bmi,bmi2")
#define NETSUKE_SIMDE
#include "kernels/qgemm/x86_avx512vnni.cc"
//
#include "kernels/qgemm/test_cases.h"

int main(int argc, char** argv) {
  using namespace netsuke;
  if (!isa_available(Isa::kAvx2)) {
    std::printf("skipped: the emulation is compiled for AVX2, which this CPU lacks\n");
    return 77;
  }
  qgemm::override_kernels_for_test(Isa::kAvx512Vnni, &qgemm::kernels_simde);
  qgemm::check_many(Isa::kAvx512Vnni, argc > 1 ? std::atoi(argv[1]) : 300, 7);
  return check_result();
}
