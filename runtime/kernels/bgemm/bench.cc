// One-bit layers: time, GMAC/s, and their share of what this core reaches with XOR, popcount and additions on registers.
//   bench_bgemm [threads] [isa]
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/bgemm/layer.h"
#include "kernels/signpack/signpack.h"
#include "limits/limits.h"

namespace netsuke {
namespace bgemm {
namespace {

struct Shape {
  const char* net;
  int64_t count, size, in, out, kernel, stride, groups;
};

const Shape kShapes[] = {
    {"resnet18", 4, 56, 64, 64, 3, 1, 1},    {"resnet18", 1, 56, 64, 128, 3, 2, 1},  {"resnet18", 3, 28, 128, 128, 3, 1, 1},
    {"resnet18", 1, 28, 128, 256, 3, 2, 1},  {"resnet18", 3, 14, 256, 256, 3, 1, 1}, {"resnet18", 1, 14, 256, 512, 3, 2, 1},
    {"resnet18", 3, 7, 512, 512, 3, 1, 1},   {"pointwise", 1, 56, 64, 128, 1, 1, 1}, {"pointwise", 1, 14, 512, 512, 1, 1, 1},
    {"other", 1, 28, 128, 128, 5, 1, 1},     {"other", 1, 28, 128, 128, 3, 1, 2},    {"other", 1, 1, 4096, 4096, 1, 1, 1},
};

// What: 0 packed signs in and out, 1 f32 residual in and f32 out with the packed signs of it beside, 2 the same with codes.
double measure(const Shape& s, int what, Isa isa, ThreadPool& pool, std::string* name) {
  Geometry g;
  g.in_channels = s.in;
  g.out_channels = s.out;
  g.groups = s.groups;
  g.kh = g.kw = s.kernel;
  g.stride_h = g.stride_w = s.stride;
  g.pad_top = g.pad_left = g.pad_bottom = g.pad_right = s.kernel / 2;
  Extent e{1, s.size, s.size, 0, 0};
  if (!qgemm::output_extent(g, &e).ok()) return 0;
  TestRandom random(1);
  std::vector<uint64_t> w(static_cast<size_t>(s.out * s.kernel * s.kernel * words_of(s.in / s.groups)));
  Buffer x, out, residual, bits, scratch;
  const size_t outputs = static_cast<size_t>(e.oh * e.ow * s.out) * 4;
  if (!x.allocate(static_cast<size_t>(s.size * s.size * words_of(s.in)) * 8).ok() || !out.allocate(outputs).ok() ||
      !residual.allocate(outputs).ok() || !bits.allocate(outputs).ok()) {
    return 0;
  }
  for (uint64_t& v : w) v = random.next() << 32 ^ random.next();
  for (size_t i = 0; i < x.bytes(); ++i) x.data()[i] = random.code();
  std::memset(residual.data(), 0, residual.bytes());
  const std::vector<float> ones(static_cast<size_t>(s.out + 128), 0.5f);
  const std::vector<int32_t> thresholds(ones.size(), 1);
  Finish f;
  f.out_bits = what == 0;
  f.out_f32 = what == 1;
  f.with_bits = what != 0;
  f.mult = f.bias = f.threshold_f32 = ones.data();
  f.threshold = thresholds.data();
  f.residual = what != 0;
  f.r_mult = 1;
  Layer layer;
  if (!layer.build(g, 0, w.data(), nullptr, f, isa, s.size > 1).ok() || !scratch.allocate(layer.scratch_bytes(e, pool.threads())).ok()) return 0;
  *name = layer.kernel_name();
  const auto* words = reinterpret_cast<const uint64_t*>(x.data());
  auto* packed = reinterpret_cast<uint64_t*>(bits.data());
  return bench_seconds([&] { layer.run(e, words, what != 0 ? residual.data() : nullptr, out.data(), packed, scratch.data(), pool); }, 25);
}

// Packing the layer's input from f32, as a layer of its own would: what a fused epilogue saves.
double packing(const Shape& s, Isa isa) {
  const size_t size = static_cast<size_t>(s.size * s.size * s.in);
  const std::vector<float> x(size, 0.5f), threshold(static_cast<size_t>(words_of(s.in) * 64), 0.0f);
  const std::vector<uint64_t> flip(static_cast<size_t>(words_of(s.in)), 0);
  std::vector<uint64_t> y(static_cast<size_t>(s.size * s.size * words_of(s.in)));
  const SignPackKernels& kernels = sign_pack_kernels(isa);
  return bench_seconds([&] { kernels.f32(x.data(), s.size * s.size, s.in, threshold.data(), flip.data(), y.data()); }, 15);
}

}  // namespace
}  // namespace bgemm
}  // namespace netsuke

int main(int argc, char** argv) {
  using namespace netsuke;
  using namespace netsuke::bgemm;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  Isa isa = best_isa();
  if (argc > 2 && (!isa_from_name(argv[2], &isa) || !isa_available(isa))) {
    std::fprintf(stderr, "instruction set %s is not available here\n", argv[2]);
    return 1;
  }
  Limits limits;
  if (!measure_limits(isa, 0.5, &limits).ok()) return 1;
  ThreadPool pool(threads);
  const double limit = limits.bit_gmacs * threads;
  std::printf("XOR, popcount, add on registers: %.0f GMAC/s with %d thread(s); shares are of it\n", limit, threads);
  std::printf("%-10s layer, count; signs to signs; f32 residual to f32 and signs; codes likewise; packing the input alone\n", "net");
  double total[3] = {}, macs = 0;
  for (const bgemm::Shape& s : kShapes) {
    const int64_t out = (s.size + s.stride - 1) / s.stride;
    const double work = static_cast<double>(out * out * s.out * s.kernel * s.kernel * s.in / s.groups);
    char text[64];
    std::snprintf(text, sizeof(text), "%lld: %lld -> %lld, k%lld s%lld g%lld", (long long)s.size, (long long)s.in, (long long)s.out,
                  (long long)s.kernel, (long long)s.stride, (long long)s.groups);
    std::printf("%-10s %-28s x%lld", s.net, text, (long long)s.count);
    std::string name;
    for (int what = 0; what < 3; ++what) {
      const double seconds = measure(s, what, isa, pool, &name);
      std::printf("  %8.1f us %6.0f GMAC/s %4.0f %%", seconds * 1e6, work / seconds * 1e-9, 100 * work / seconds * 1e-9 / limit);
      if (std::strcmp(s.net, "resnet18") == 0) total[what] += s.count * seconds;
    }
    if (std::strcmp(s.net, "resnet18") == 0) macs += s.count * work;
    std::printf("  %6.1f us  %s\n", packing(s, isa) * 1e6, name.c_str());
  }
  for (double seconds : total) {
    std::printf("resnet18 3x3 layers: %.3f ms, %.0f GMAC/s, %.0f %%\n", seconds * 1e3, macs / seconds * 1e-9, 100 * macs / seconds * 1e-9 / limit);
  }
  return 0;
}
