// GB/s (bytes read and written) of qadd and qmul, one thread: same shape, channel vector, scalar.
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/qelementwise/qelementwise.h"

int main() {
  using namespace netsuke;
  struct Case {
    const char* name;
    std::vector<int64_t> a, b;
  };
  const Case cases[] = {{"residual 56x56x64", {1, 56, 56, 64}, {1, 56, 56, 64}}, {"residual 14x14x1024", {1, 14, 14, 1024}, {1, 14, 14, 1024}},
                        {"gate 28x28x72", {1, 28, 28, 72}, {1, 1, 1, 72}},       {"gate 14x14x480", {1, 14, 14, 480}, {1, 1, 1, 480}},
                        {"mask 56x56x24", {1, 56, 56, 24}, {1, 56, 56, 1}},      {"scalar 56x56x64", {1, 56, 56, 64}, {1}}};
  TestRandom random(1);
  QBinaryParams params{3, 128, 0.3f, 0.4f, 0.01f, Codes{5, 0, 255}};
  ThreadPool pool(1);
  for (const Case& test : cases) {
    const Shape a = test_shape(test.a), b = test_shape(test.b);
    Shape out;
    if (!broadcast(a, b, &out).ok()) return 1;
    std::vector<uint8_t> x(static_cast<size_t>(a.elements())), z(static_cast<size_t>(b.elements())), y(static_cast<size_t>(out.elements()));
    for (uint8_t& v : x) v = random.code();
    for (uint8_t& v : z) v = random.code();
    const double bytes = static_cast<double>(x.size() + z.size() + y.size());
    for (Isa isa : test_isas()) {
      const QBinaryKernels& kernels = qelementwise_kernels(isa);
      const double s = bench_seconds([&] { qbinary_run(kernels.add, a, x.data(), b, z.data(), out, y.data(), params, pool); });
      const double p = bench_seconds([&] { qbinary_run(kernels.mul, a, x.data(), b, z.data(), out, y.data(), params, pool); });
      std::printf("%-20s %-26s %7.1f us %5.1f GB/s   %-26s %7.1f us %5.1f GB/s\n", test.name, kernels.add_name, s * 1e6, bytes / s * 1e-9,
                  kernels.mul_name, p * 1e6, bytes / p * 1e-9);
    }
  }
  return 0;
}
