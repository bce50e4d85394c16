#include "limits/limits.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace netsuke {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Best rate over short stretches: the machine may be busy, and only interference makes a stretch slower.
constexpr double kStretch = 0.01;

template <typename Run>
double best_rate(double seconds, double work_per_round, const Run& run) {
  volatile uint64_t sink = 0;
  int64_t rounds = 1;
  double took = 0;
  for (; took < kStretch && rounds < (int64_t{1} << 40); rounds *= 2) {
    const auto begin = Clock::now();
    sink = sink + run(rounds);
    took = seconds_since(begin);
  }
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    sink = sink + run(rounds);
    took = seconds_since(begin);
    if (took > 0) best = std::max(best, work_per_round * static_cast<double>(rounds) / took);
  } while (seconds_since(start) < seconds);
  return best;
}

double macs_rate(const limits::Loop& loop, double seconds) {
  if (loop.run == nullptr) return 0;
  return best_rate(seconds, loop.macs, loop.run) / 1e9;
}

double read_rate(const limits::Loops& loops, const uint8_t* data, size_t bytes, double seconds) {
  return best_rate(seconds, static_cast<double>(bytes), [&](int64_t rounds) {
           uint64_t sum = 0;
           for (int64_t i = 0; i < rounds; ++i) sum += loops.read(data, bytes);
           return sum;
         }) / 1e9;
}

limits::Loops loops_of(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512Vnni: {
      limits::Loops loops = limits::avx512vnni_loops();
      if (cpu_features().avx512_bf16) loops.bf16 = limits::avx512bf16_loop();
      return loops;
    }
    case Isa::kAvx2:
      return limits::avx2_loops();
#endif
#if defined(__aarch64__)
    case Isa::kNeonDot:
      return limits::neondot_loops();
    case Isa::kNeon:
      return limits::neon_loops();
#endif
    default:
      return limits::portable_loops();
  }
}

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};

}  // namespace

Status measure_limits(Isa isa, double seconds, Limits* out) {
  if (!isa_available(isa)) return error(Code::kUnsupported, "this CPU has no %s", isa_name(isa));
  if (!(seconds >= 0.1 && seconds <= 10)) return error(Code::kInvalidArgument, "seconds must be in 0.1..10");
  const limits::Loops loops = loops_of(isa);
  const double each = seconds / 8;
  *out = Limits();
  out->f32_gmacs = macs_rate(loops.f32, each);
  out->bf16_gmacs = macs_rate(loops.bf16, each);
  out->int16_gmacs = macs_rate(loops.int16, each);
  out->int8_gmacs = macs_rate(loops.int8, each);
  // Sizes that fit the level with room to spare on every CPU of the last ten years, and one that fits none.
  constexpr size_t kL1 = 16 << 10, kL2 = 192 << 10, kL3 = 6 << 20, kDram = size_t{256} << 20;
  std::unique_ptr<uint8_t, Free> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kDram)));
  if (!memory) return error(Code::kOutOfMemory, "no 256 MiB for the memory loops");
  std::memset(memory.get(), 1, kDram);
  out->l1_gbs = read_rate(loops, memory.get(), kL1, each);
  out->l2_gbs = read_rate(loops, memory.get(), kL2, each);
  out->l3_gbs = read_rate(loops, memory.get(), kL3, each);
  out->dram_gbs = read_rate(loops, memory.get(), kDram, each);
  return Status();
}

}  // namespace netsuke
