// Microseconds and GB/s (input bytes) of qmean and qavgpool at the shapes of networks, one thread.
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/qpool/qpool.h"

int main() {
  using namespace netsuke;
  TestRandom random(1);
  std::vector<uint8_t> x(56 * 56 * 256), y(56 * 56 * 256);
  for (uint8_t& v : x) v = random.code();
  const QPoolParams params{3, 0.9f, Codes{7, 0, 255}};
  const struct { int64_t positions, channels; } means[] = {{49, 512}, {49, 2048}, {56 * 56, 72}, {14 * 14, 480}};
  for (const auto& test : means) {
    for (Isa isa : test_isas()) {
      const QPoolKernels& kernels = qpool_kernels(isa);
      const double s = bench_seconds([&] {
        for (int64_t c = 0; c < test.channels; c += 64) {
          kernels.mean(x.data() + c, test.positions, test.channels, std::min<int64_t>(64, test.channels - c), params, y.data() + c);
        }
      });
      std::printf("mean of %4lld x %4lld  %-28s %7.1f us %5.1f GB/s\n", static_cast<long long>(test.positions), static_cast<long long>(test.channels),
                  kernels.mean_name, s * 1e6, static_cast<double>(test.positions * test.channels) / s * 1e-9);
    }
  }
  const PoolWindow window{{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, false, true};  // Inception
  PoolShape shape;
  Shape out;
  if (!pool_shape(window, test_shape({1, 35, 35, 192}), &shape, &out).ok()) return 1;
  for (Isa isa : test_isas()) {
    const QPoolKernels& kernels = qpool_kernels(isa);
    const double s = bench_seconds([&] {
      for (int64_t row = 0; row < 35; ++row) kernels.avg(window, shape, x.data(), row, params, y.data() + row * 35 * 192);
    });
    std::printf("3x3 of 35 x 35 x 192 %-28s %7.1f us %5.1f GB/s\n", kernels.avg_name, s * 1e6, 35 * 35 * 192 / s * 1e-9);
  }
  return 0;
}
