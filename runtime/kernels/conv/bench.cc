// bench_conv [threads] [isa] [filter] [peak]: GFLOP/s of convolutions of common networks at batch 1, best of many runs; with the FMA peak of one core
// in GFLOP/s also the share of it.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <cstdio>
#include <cstdlib>

#include "kernels/base/op_runner.h"
#include "kernels/fgemm/fgemm.h"

namespace {

using namespace netsuke;

// One thread: its CPU time, so that other load on the machine disturbs less. More: the wall clock.
double seconds(int threads) {
  if (threads == 1) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Case {
  const char* name;
  int64_t size, c, o, k, stride, groups;
};
constexpr Case kCases[] = {
    {"resnet stem 7x7/2", 224, 3, 64, 7, 2, 1},      {"mobilenet stem 3x3/2", 224, 3, 32, 3, 2, 1},
    {"resnet 3x3 56", 56, 64, 64, 3, 1, 1},          {"resnet 3x3 28", 28, 128, 128, 3, 1, 1},
    {"resnet 3x3 14", 14, 256, 256, 3, 1, 1},        {"resnet 3x3 7", 7, 512, 512, 3, 1, 1},
    {"resnet 3x3/2 56", 56, 64, 128, 3, 2, 1},       {"resnet 1x1/2 56", 56, 64, 128, 1, 2, 1},
    {"resnet50 1x1 56 a", 56, 64, 256, 1, 1, 1},     {"resnet50 1x1 56 b", 56, 256, 64, 1, 1, 1},
    {"resnet50 1x1 28 a", 28, 128, 512, 1, 1, 1},    {"resnet50 1x1 28 b", 28, 512, 128, 1, 1, 1},
    {"resnet50 1x1 14 a", 14, 256, 1024, 1, 1, 1},   {"resnet50 1x1 14 b", 14, 1024, 256, 1, 1, 1},
    {"resnet50 1x1 7 a", 7, 512, 2048, 1, 1, 1},     {"resnet50 1x1 7 b", 7, 2048, 512, 1, 1, 1},
    {"mobilenet 1x1 112", 112, 16, 96, 1, 1, 1},     {"mobilenet 1x1 56", 56, 144, 24, 1, 1, 1},
    {"mobilenet 1x1 14", 14, 384, 64, 1, 1, 1},      {"mobilenet 1x1 7", 7, 320, 1280, 1, 1, 1},
    {"depthwise 3x3 112", 112, 32, 32, 3, 1, 32},    {"depthwise 3x3/2 112", 112, 96, 96, 3, 2, 96},
    {"depthwise 3x3 56", 56, 144, 144, 3, 1, 144},   {"depthwise 3x3 14", 14, 384, 384, 3, 1, 384},
    {"depthwise 5x5 28", 28, 240, 240, 5, 1, 240},   {"resnext 3x3 56 g32", 56, 128, 128, 3, 1, 32},
};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  Isa isa = best_isa();
  if (argc > 2 && !isa_from_name(argv[2], &isa)) return 2;
  const double peak = argc > 4 ? std::atof(argv[4]) : 0;  // GFLOP/s of one core, if known
  TestRandom random(1);
  for (const Case& c : kCases) {
    if (argc > 3 && std::string(c.name).find(argv[3]) == std::string::npos) continue;
    const int64_t pad = (c.k - 1) / 2;
    char attrs[200];
    std::snprintf(attrs, sizeof(attrs), "{\"strides\":[%d,%d],\"pads\":[%d,%d,%d,%d],\"groups\":%d,\"act\":\"relu\"}", (int)c.stride,
                  (int)c.stride, (int)pad, (int)pad, (int)pad, (int)pad, (int)c.groups);
    const std::vector<TestTensor> inputs = {random.floats(make_shape({1, c.size, c.size, c.c})),
                                            random.floats(make_shape({c.o, c.k, c.k, c.c / c.groups}), true), random.floats(make_shape({c.o}), true)};
    OpRunner runner("conv", attrs, inputs, 1, isa, threads);
    std::vector<TestTensor> out;
    if (!runner.status().ok() || !runner.prepare(inputs, &out).ok()) {
      std::fprintf(stderr, "%s: %s\n", c.name, runner.status().message().c_str());
      return 1;
    }
    (void)runner.run();
    double best = 1e9, total = 0;
    for (int i = 0; i < 200 && total < 0.15; ++i) {
      const double start = seconds(threads);
      (void)runner.run();
      const double took = seconds(threads) - start;
      best = std::min(best, took);
      total += took;
    }
    const double rate = 2e-9 * static_cast<double>(runner.cost().macs) / best;
    std::printf("%-22s %9.3f ms %7.1f GFLOP/s", c.name, best * 1e3, rate);
    if (peak > 0) std::printf(" %5.1f %%", 100 * rate / (peak * threads));
    std::printf("  %s\n", runner.op().kernel_name());
  }
  return 0;
}
