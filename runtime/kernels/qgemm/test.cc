// Every instruction set this CPU has, against plain loops.
#include "kernels/qgemm/test_cases.h"

int main(int argc, char** argv) {
  using namespace netsuke;
  const int count = argc > 1 ? std::atoi(argv[1]) : 400;
  const uint32_t seed = argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1;
  for (Isa isa : compiled_isas()) {
    if (!isa_available(isa)) continue;
    qgemm::check_many(isa, count, seed);
    std::printf("%s: %d checks so far\n", isa_name(isa), check_count());
  }
  return check_result();
}
