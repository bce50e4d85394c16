// The loops run on every instruction set of this CPU and give rates that can be: more than nothing, and wider instruction sets
// do not claim arithmetic they lack. Nothing here depends on how fast the machine is.
#include <cstdio>

#include "limits/limits.h"

namespace {

int failures = 0;

void check(bool condition, const char* what, const char* where) {
  if (condition) return;
  std::printf("FAILED %s: %s\n", where, what);
  ++failures;
}

}  // namespace

int main() {
  using netsuke::Isa;
  int measured = 0;
  for (Isa isa : netsuke::compiled_isas()) {
    netsuke::Limits limits;
    const char* name = netsuke::isa_name(isa);
    const netsuke::Status status = netsuke::measure_limits(isa, 0.2, &limits);
    if (!netsuke::isa_available(isa)) {
      check(status.code() == netsuke::Code::kUnsupported, "an absent instruction set is refused", name);
      continue;
    }
    ++measured;
    check(status.ok(), status.message().c_str(), name);
    check(limits.f32_gmacs > 0 && limits.int8_gmacs > 0 && limits.bit_gmacs > 0, "float32, int8 and one-bit rates", name);
    check(limits.l1_gbs > 0 && limits.l2_gbs > 0 && limits.l3_gbs > 0 && limits.dram_gbs > 0, "read rates", name);
    const bool bf16 = isa == Isa::kAvx512Vnni && netsuke::cpu_features().avx512_bf16;
    check((limits.bf16_gmacs > 0) == bf16, "bfloat16 only where the CPU has it", name);
    // Each of these instruction sets multiplies twice as many 16-bit numbers as floats, in as many instructions (portable code: whatever
    // the compiler makes of it). A float32 rate of less than a third would be a measurement gone wrong, as it was once. Sanitizers check
    // every load of the float loop.
#if !defined(__SANITIZE_ADDRESS__)
    if (isa == Isa::kAvx2 || isa == Isa::kAvx512Vnni) {
      check(limits.f32_gmacs * 3 > limits.int16_gmacs, "float32 against int16", name);
      check(limits.int16_gmacs > limits.f32_gmacs, "int16 against float32", name);
    }
#endif
    std::printf("%s f32 %.1f bf16 %.1f int16 %.1f int8 %.1f GMAC/s  L1 %.0f L2 %.0f L3 %.0f DRAM %.0f GB/s\n", name, limits.f32_gmacs,
                limits.bf16_gmacs, limits.int16_gmacs, limits.int8_gmacs, limits.l1_gbs, limits.l2_gbs, limits.l3_gbs, limits.dram_gbs);
  }
  netsuke::Limits limits;
  check(!netsuke::measure_limits(Isa::kPortable, 0.0, &limits).ok(), "zero seconds are refused", "portable");
  check(measured > 0, "no instruction set was measured", "all");
  return failures == 0 ? 0 : 1;
}
