// For the kernels' benchmarks: the best of several rounds, each long enough to be timed.
#ifndef NETSUKE_KERNELS_BASE_BENCH_OP_H_
#define NETSUKE_KERNELS_BASE_BENCH_OP_H_

#include <chrono>
#include <cstdio>

namespace netsuke {

// Seconds of one call: least of `rounds` rounds of about 1 ms. The least, because other processes only ever add time.
template <typename Body>
double bench_seconds(const Body& body, int rounds = 40) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [&](int repeats) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) body();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const double first = seconds(2) / 2;
  const int repeats = first > 1e-3 ? 1 : static_cast<int>(1e-3 / (first + 1e-9)) + 1;
  double best = 1e9;
  for (int round = 0; round < rounds; ++round) {
    const double now = seconds(repeats) / repeats;
    if (now < best) best = now;
  }
  return best;
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_BENCH_OP_H_
