// bench_linear [threads] [isa] [peak]: GFLOP/s of linear layers in f32 and bf16; one row (M = 1) is bounded by memory, so GB/s of weights is printed too.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "kernels/base/op_runner.h"

namespace {

using namespace netsuke;

// One thread: its CPU time, so that other load on the machine disturbs less. More: the wall clock.
double seconds(int threads) {
  if (threads == 1) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Case {
  int64_t m, n, k;
};
constexpr Case kCases[] = {{1, 1000, 512}, {1, 1000, 2048}, {1, 4096, 4096}, {4, 1024, 1024}, {16, 1024, 1024}, {197, 576, 192}, {197, 768, 192}, {197, 192, 768}, {512, 1024, 1024}};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  Isa isa = best_isa();
  if (argc > 2 && !isa_from_name(argv[2], &isa)) return 2;
  const double peak = argc > 3 ? std::atof(argv[3]) : 0;  // GFLOP/s of one core, if known
  TestRandom random(1);
  for (const Case& c : kCases) {
    for (bool bf16 : {false, true}) {
      std::vector<TestTensor> inputs = {random.floats(make_shape({c.m, c.k})), random.floats(make_shape({c.n, c.k}), true), random.floats(make_shape({c.n}), true)};
      if (bf16) {
        TestTensor half(DType::kBF16, inputs[1].shape, true);
        for (int64_t i = 0; i < half.size(); ++i) std::memcpy(half.data<uint16_t>() + i, inputs[1].bytes.data() + 4 * i + 2, 2);
        inputs[1] = half;
      }
      OpRunner runner("linear", "{\"act\":\"relu\"}", inputs, 1, isa, threads);
      std::vector<TestTensor> out;
      if (!runner.status().ok() || !runner.prepare(inputs, &out).ok() || !runner.run().ok()) return 1;
      double best = 1e9, total = 0;
      for (int i = 0; i < 300 && total < 0.15; ++i) {
        const int repeats = c.m * c.n * c.k < 5000000 ? 10 : 1;  // the CPU clock ticks in microseconds
        const double start = seconds(threads);
        for (int r = 0; r < repeats; ++r) (void)runner.run();
        const double took = (seconds(threads) - start) / repeats;
        best = std::min(best, took);
        total += took * repeats;
      }
      const double rate = 2e-9 * static_cast<double>(c.m * c.n * c.k) / best;
      std::printf("%4d x %4d x %4d %s %8.3f ms %7.1f GFLOP/s %6.1f GB/s", (int)c.m, (int)c.n, (int)c.k, bf16 ? "bf16" : "f32 ", best * 1e3, rate,
                  1e-9 * static_cast<double>(c.n * c.k * (bf16 ? 2 : 4)) / best);
      if (peak > 0) std::printf(" %5.1f %%", 100 * rate / (peak * threads));
      std::printf("  %s\n", runner.op().kernel_name());
    }
  }
  return 0;
}
