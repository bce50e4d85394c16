// GB/s (codes mapped) of the table kernels, one thread.
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/lut/lut.h"

int main() {
  using namespace netsuke;
  TestRandom random(1);
  std::vector<uint8_t> table(256 * 64), x(256 * 1024), y(x.size());
  std::vector<float> floats(256), z(x.size());
  for (uint8_t& v : table) v = random.code();
  for (uint8_t& v : x) v = random.code();
  for (const int64_t n : {int64_t{196}, int64_t{1000}, int64_t{16384}, int64_t{262144}}) {
    const auto rate = [&](double seconds) { return static_cast<double>(n) / seconds * 1e-9; };
    for (Isa isa : test_isas()) {
      const LutKernels& kernels = lut_kernels(isa, cpu_features());
      std::printf("%7lld codes  %-22s %6.2f GB/s\n", static_cast<long long>(n), kernels.name,
                  rate(bench_seconds([&] { kernels.map(x.data(), y.data(), n, table.data()); })));
    }
    std::printf("%7lld codes  %-22s %6.2f GB/s\n", static_cast<long long>(n), "plain loop",
                rate(bench_seconds([&] { lut_reference(x.data(), y.data(), n, table.data()); })));
    std::printf("%7lld codes  %-22s %6.2f GB/s\n", static_cast<long long>(n), "f32 table",
                rate(bench_seconds([&] { lut_f32(x.data(), z.data(), n, floats.data()); })));
    std::printf("%7lld codes  %-22s %6.2f GB/s\n", static_cast<long long>(n / 64 * 64), "64 channel tables",
                rate(bench_seconds([&] { lut_channels(x.data(), y.data(), n / 64, 64, table.data()); })));
  }
  return 0;
}
