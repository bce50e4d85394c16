#include "limits/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace netsuke {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Only interference makes a stretch slower, so the best of many counts. Stretches are shorter than a scheduler's time slice (3 ms and
// more), and the loops take turns: with stretches of 10 ms, one loop after the other, a busy neighbour once cost float32 60 % of its rate.
constexpr double kStretch = 0.001;
// A rate counts as found when this many stretches came within kNear of it; until then a loop gets up to kPatience times its share.
constexpr int kConfirmations = 3;
constexpr double kNear = 0.98;
constexpr int kPatience = 4;

// One rate in the making: giga units of work a second.
struct Rate {
  std::function<uint64_t(int64_t)> run;  // rounds -> something to keep
  double work = 0;                       // of a round
  double* out = nullptr;
  int64_t rounds = 1;
  std::vector<double> seen;

  bool found() const {
    return std::count_if(seen.begin(), seen.end(), [&](double rate) { return rate >= kNear * *out; }) >= kConfirmations;
  }
};

double stretch(Rate* rate) {
  static std::atomic<uint64_t> sink{0};
  if (rate->rounds > 1) sink.fetch_xor(rate->run(1), std::memory_order_relaxed);  // fills the cache that other loops emptied
  const auto begin = Clock::now();
  sink.fetch_xor(rate->run(rate->rounds), std::memory_order_relaxed);
  return seconds_since(begin);
}

void measure(std::vector<Rate>* rates, double seconds_each) {
  for (Rate& rate : *rates) {
    while (stretch(&rate) < kStretch && rate.rounds < (int64_t{1} << 40)) rate.rounds *= 2;
  }
  const double share = seconds_each * static_cast<double>(rates->size());
  const auto start = Clock::now();
  for (bool searching = true; searching;) {
    const double passed = seconds_since(start);
    searching = passed < share;
    for (Rate& rate : *rates) {
      if (passed >= share && (passed >= kPatience * share || rate.found())) continue;
      searching = true;
      const double took = stretch(&rate);
      if (took <= 0) continue;
      rate.seen.push_back(rate.work * static_cast<double>(rate.rounds) / took * 1e-9);
      *rate.out = std::max(*rate.out, rate.seen.back());
    }
  }
}

limits::Loops loops_of(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512Vnni: {
      limits::Loops loops = limits::avx512vnni_loops();
      if (cpu_features().avx512_bf16) loops.bf16 = limits::avx512bf16_loop();
      loops.bits = cpu_features().avx512_vpopcntdq ? limits::avx512vpopcntdq_loop() : limits::avx2_loops().bits;
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
  *out = Limits();
  // Sizes that fit the level with room to spare on every CPU of the last ten years, and one that fits none.
  constexpr size_t kL1 = 16 << 10, kL2 = 192 << 10, kL3 = 6 << 20, kDram = size_t{256} << 20;
  std::unique_ptr<uint8_t, Free> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kDram)));
  if (!memory) return error(Code::kOutOfMemory, "no 256 MiB for the memory loops");
  std::memset(memory.get(), 1, kDram);
  std::vector<Rate> rates;
  const auto add_loop = [&](const limits::Loop& loop, double* to) {
    if (loop.run == nullptr) return;
    rates.emplace_back();
    rates.back().run = loop.run;
    rates.back().work = loop.macs;
    rates.back().out = to;
  };
  const auto add_read = [&](size_t bytes, double* to) {
    rates.emplace_back();
    rates.back().run = [&loops, &memory, bytes](int64_t rounds) {
      uint64_t sum = 0;
      for (int64_t i = 0; i < rounds; ++i) sum += loops.read(memory.get(), bytes);
      return sum;
    };
    rates.back().work = static_cast<double>(bytes);
    rates.back().out = to;
  };
  add_loop(loops.f32, &out->f32_gmacs);
  add_loop(loops.bf16, &out->bf16_gmacs);
  add_loop(loops.int16, &out->int16_gmacs);
  add_loop(loops.int8, &out->int8_gmacs);
  add_loop(loops.bits, &out->bit_gmacs);
  add_read(kL1, &out->l1_gbs);
  add_read(kL2, &out->l2_gbs);
  add_read(kL3, &out->l3_gbs);
  add_read(kDram, &out->dram_gbs);
  measure(&rates, seconds / 9);
  return Status();
}

}  // namespace netsuke
