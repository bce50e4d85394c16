// Every instruction set this CPU has, against plain loops.
#include "kernels/qgemm/test_cases.h"

int main(int argc, char** argv) {
  using namespace netsuke;
  const int count = argc > 1 ? std::atoi(argv[1]) : 400;
  const uint32_t seed = argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1;
  for (Isa isa : compiled_isas()) {
    if (!isa_available(isa)) continue;
    qgemm::check_many(isa, count, seed);
    if (isa == Isa::kAvx2 || isa == Isa::kNeon) {  // Winograd also where select.cc prefers the direct product
      qgemm::Kernels other = *qgemm::kernels_of(isa);
      other.winograd_least = 1;
      other.winograd2_most = 1 << 20;
      for (int64_t most : {0, 1 << 20}) {
        other.winograd4_most = most;
        qgemm::override_kernels_for_test(isa, &other);
        qgemm::check_many(isa, count / 4, seed + 1);
      }
      qgemm::override_kernels_for_test(isa, nullptr);
    }
    std::printf("%s: %d checks so far\n", isa_name(isa), check_count());
  }
  return check_result();
}
