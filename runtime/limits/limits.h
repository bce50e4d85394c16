// What one core of this machine does at best: register-resident multiply-adds and streaming reads. No kernel can beat these loops, so a
// layer's rate divided by its limit says how much is left. Speed only: nothing here computes a result that anybody uses.
#ifndef NETSUKE_LIMITS_LIMITS_H_
#define NETSUKE_LIMITS_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "base/status.h"

namespace netsuke {

// Giga multiply-adds and gigabytes a second; 0 where the instruction set has no such instruction.
struct Limits {
  double f32_gmacs = 0;
  double bf16_gmacs = 0;
  double int16_gmacs = 0;
  double int8_gmacs = 0;
  double bit_gmacs = 0;  // XOR, popcount and an addition for each product of signs
  double l1_gbs = 0;
  double l2_gbs = 0;
  double l3_gbs = 0;
  double dram_gbs = 0;
};

// Takes about `seconds` (0.1 to 10), on a busy machine up to four times as long. Fails when the CPU lacks the instruction set or 256 MiB cannot be had.
Status measure_limits(Isa isa, double seconds, Limits* out);

namespace limits {

// A loop of `count` rounds; the return value only keeps the compiler from dropping the work.
struct Loop {
  uint64_t (*run)(int64_t count) = nullptr;
  int macs = 0;  // multiply-adds a round
};

// One per instruction set file. A loop that is not set does not exist there.
struct Loops {
  Loop f32, bf16, int16, int8, bits;
  uint64_t (*read)(const uint8_t* data, size_t bytes) = nullptr;  // bytes: a multiple of 1024
};

Loops portable_loops();
#if defined(__x86_64__)
Loops avx2_loops();
Loops avx512vnni_loops();
Loop avx512bf16_loop();
Loop avx512vpopcntdq_loop();
#endif
#if defined(__aarch64__)
Loops neon_loops();
Loops neondot_loops();
#endif

}  // namespace limits
}  // namespace netsuke

#endif  // NETSUKE_LIMITS_LIMITS_H_
