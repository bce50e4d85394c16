// GB/s (bytes read and written) of quantize and dequantize, one thread.
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/quantize/quantize.h"

int main() {
  using namespace netsuke;
  TestRandom random(1);
  // A 224 x 224 image, a layer in the L2 cache, a layer beyond it.
  for (const int64_t n : {int64_t{3 * 224 * 224}, int64_t{56 * 56 * 24}, int64_t{4 * 1024 * 1024}}) {
    std::vector<float> x(static_cast<size_t>(n)), z(x.size());
    std::vector<uint8_t> y(x.size());
    for (float& v : x) v = random.uniform(-4.0f, 4.0f);
    for (Isa isa : test_isas()) {
      const QuantizeKernels& kernels = quantize_kernels(isa);
      const double q = bench_seconds([&] { kernels.quantize(x.data(), y.data(), n, 0.03f, Codes{128, 0, 255}); });
      const double d = bench_seconds([&] { kernels.dequantize(y.data(), z.data(), n, 0.03f, 128); });
      std::printf("%8lld values  %-28s %6.1f GB/s   %-28s %6.1f GB/s\n", static_cast<long long>(n), kernels.quantize_name,
                  5e-9 * static_cast<double>(n) / q, kernels.dequantize_name, 5e-9 * static_cast<double>(n) / d);
    }
  }
  return 0;
}
