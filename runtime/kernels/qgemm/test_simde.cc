// The AVX-512 VNNI source itself, executed through SIMDe where the CPU has no AVX-512.
#include "kernels/base/simde_target.h"
#pragma GCC optimize("O1")  // 49 tiles of emulated 512-bit registers: at O2 they take minutes to compile

// Names of their own, so that the library's compiled tables are left as they are.
#define depthwise_x86_avx512vnni depthwise_simde
#define depthwise_bytes_x86_avx512vnni depthwise_bytes_simde
#define depthwise_pack_x86_avx512vnni depthwise_pack_simde
#define winograd_input4_x86_avx512vnni winograd_input4_simde
#define winograd_input2_x86_avx512vnni winograd_input2_simde
#define winograd_output4_x86_avx512vnni winograd_output4_simde
#define winograd_output2_x86_avx512vnni winograd_output2_simde
#define winograd_input3_narrow_x86_avx512vnni winograd_input3_narrow_simde
#define winograd_output3_x86_avx512vnni winograd_output3_simde
#define winograd_input_narrow_x86_avx512vnni winograd_input_narrow_simde
#define winograd_product_x86_avx512vnni winograd_product_simde
#define winograd_product_narrow_x86_avx512vnni winograd_product_narrow_simde
#include "kernels/qgemm/x86_avx512vnni.cc"
//
#include "kernels/qgemm/x86_avx512vnni_depthwise.cc"
//
#include "kernels/qgemm/x86_avx512vnni_winograd.cc"
//
#include "kernels/qgemm/test_cases.h"

int main(int argc, char** argv) {
  using namespace netsuke;
  if (!isa_available(Isa::kAvx2)) {
    std::printf("skipped: the emulation is compiled for AVX2, which this CPU lacks\n");
    return 77;
  }
  qgemm::override_kernels_for_test(Isa::kAvx512Vnni, &qgemm::kernels_simde);
  qgemm::check_many(Isa::kAvx512Vnni, argc > 1 ? std::atoi(argv[1]) : 200, 7);
  qgemm::Kernels other = qgemm::kernels_simde;  // F(2x2) over 16-bit lanes, which select.cc never takes with VNNI, and Winograd for few channels
  other.winograd_least = 1;
  other.winograd4_most = 0;
  other.winograd2_most = 1 << 20;
  qgemm::override_kernels_for_test(Isa::kAvx512Vnni, &other);
  qgemm::check_many(Isa::kAvx512Vnni, argc > 1 ? std::atoi(argv[1]) : 60, 8);
  other.winograd_narrow_least = 1;
  for (int out : {2, 3}) qgemm::check_narrow_winograd(out, Isa::kAvx512Vnni, argc > 1 ? std::atoi(argv[1]) : 40, 9);
  return check_result();
}
