// GMAC/s of qmatmul at the shapes of attention, one thread and all. Packing is included.
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

struct BenchCase {
  const char* name;
  std::vector<int64_t> a, b;
  bool transposed;
};

void bench(const BenchCase& test, Isa isa, int threads) {
  const QMatmulKernels& kernels = qmatmul_kernels(isa);
  QMatmulShape shape;
  Shape out;
  if (!qmatmul_shape(test_shape(test.a), test_shape(test.b), test.transposed, &shape, &out).ok()) return;
  TestRandom random(1);
  std::vector<uint8_t> a(static_cast<size_t>(test_shape(test.a).elements())), b(static_cast<size_t>(test_shape(test.b).elements()));
  for (uint8_t& v : a) v = random.code();
  for (uint8_t& v : b) v = random.code();
  std::vector<uint8_t> c(static_cast<size_t>(out.elements()));
  QMatmulParams params;
  params.a_zero = 3;
  params.b_zero = 128;
  params.mult = 1e-4f;
  void* scratch = nullptr;
  if (posix_memalign(&scratch, 64, qmatmul_scratch_bytes(kernels, shape, threads)) != 0) return;
  ThreadPool pool(threads);
  const double s = bench_seconds([&] { qmatmul_run(kernels, shape, params, a.data(), b.data(), c.data(), scratch, pool); });
  const double macs = static_cast<double>(shape.batch * shape.m * shape.n * shape.k);
  std::printf("%-24s %-34s %d threads  %9.1f us  %7.1f GMAC/s\n", test.name, kernels.name, threads, s * 1e6, macs / s * 1e-9);
  std::free(scratch);
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  const BenchCase cases[] = {{"ViT-Tiny q x k^T", {3, 197, 64}, {3, 197, 64}, true}, {"ViT-Tiny p x v", {3, 197, 197}, {3, 197, 64}, false},
                             {"BERT 128 q x k^T", {12, 128, 64}, {12, 128, 64}, true}, {"Swin q x k^T", {192, 49, 32}, {192, 49, 32}, true},
                             {"Swin p x v", {192, 49, 49}, {192, 49, 32}, false}, {"square 512", {512, 512}, {512, 512}, false},
                             {"ViT-Tiny p x v, 16", {48, 197, 197}, {48, 197, 64}, false}};
  const int all = static_cast<int>(std::thread::hardware_concurrency());
  for (const BenchCase& test : cases) {
    for (Isa isa : test_isas()) {
      bench(test, isa, 1);
      if (all > 1) bench(test, isa, all);
    }
  }
  return 0;
}
