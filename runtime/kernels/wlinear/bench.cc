// wlinear at the shapes of language models: time, GMAC/s and the weight bytes read per second. bench_wlinear [n k [s8|f32|bf16 [bits]]].
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/wlinear/wlinear.h"

namespace netsuke {
namespace {

void bench(Isa isa, WlinearShape shape, int bits, WlinearCompute compute, int64_t rows) {
  const WlinearKernels& kernels = wlinear_kernels(isa, compute);
  const bool s8 = compute == WlinearCompute::kS8;
  TestRandom random(1);
  std::vector<int8_t> w(static_cast<size_t>(shape.n * shape.k));
  const int half = 1 << (bits - 1);
  for (int8_t& v : w) v = static_cast<int8_t>(random.range(1 - half, half - 1));
  std::vector<float> scale(static_cast<size_t>(shape.n * shape.groups()), 0.01f), x(static_cast<size_t>(rows * shape.k)), y(static_cast<size_t>(rows * shape.n));
  for (float& v : x) v = random.uniform(-1, 1);
  WlinearWeights weights;
  Buffer scratch;
  if (!weights.pack(shape, compute, w.data(), WlinearFloat(), scale.data(), nullptr, nullptr, s8 ? kernels.byte_offset : 128).ok()) return;
  if (!scratch.allocate(wlinear_scratch_bytes(shape, rows, compute)).ok()) return;
  ThreadPool pool(1);
  const double s = bench_seconds([&] { wlinear_run(kernels, weights, compute, x.data(), rows, y.data(), scratch.data(), pool); });
  const double macs = static_cast<double>(rows * shape.n * shape.k);
  std::printf("%-16s %s %d bits, group %-5lld M = %-4lld %9.1f us  %7.1f GMAC/s  %6.1f GB/s of weights\n", kernels.name, s8 ? "s8  " : compute == WlinearCompute::kBf16 ? "bf16" : "f32 ", bits,
              static_cast<long long>(shape.group), static_cast<long long>(rows), s * 1e6, macs / s * 1e-9, static_cast<double>(weights.bytes()) / s * 1e-9);
}

}  // namespace
}  // namespace netsuke

int main(int argc, char** argv) {
  using namespace netsuke;
  WlinearShape shape;
  shape.n = argc > 2 ? std::atoll(argv[1]) : 4096;
  shape.k = argc > 2 ? std::atoll(argv[2]) : 4096;
  const std::string wanted = argc > 3 ? argv[3] : "";
  for (Isa isa : test_isas()) {
    if (isa == Isa::kPortable) continue;
    for (int64_t rows : {1, 2, 8, 128}) {
      for (int bits : {2, 3, 4, 8}) {
        if (argc > 4 && std::atoi(argv[4]) != bits) continue;
        for (int64_t group : {32, 128}) {
          shape.group = group;
          if (wanted.empty() || wanted == "s8") bench(isa, shape, bits, WlinearCompute::kS8, rows);
          if (wanted.empty() || wanted == "f32") bench(isa, shape, bits, WlinearCompute::kF32, rows);
        }
        if (wanted.empty() || wanted == "bf16") bench(isa, shape, bits, WlinearCompute::kBf16, rows);
      }
    }
  }
  return 0;
}
