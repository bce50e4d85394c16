// Speed of every integer convolution of four networks at batch 1: best and median time, GMAC/s, and the sum a network.
//   bench_qgemm [threads] [isa] [filter] [weight bits] [activation bits]
// Weights are bell-shaped codes, as trained or normally initialised layers have. The first layer of a network keeps 8 bits.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {
namespace {

struct Shape {
  const char* net;
  int count;  // how often the layer occurs
  int size, in, out, kernel, stride, groups;
};

// Layers of the same shape are listed once. The input is size x size.
const Shape kShapes[] = {
    {"resnet18", 1, 224, 3, 64, 7, 2, 1},      {"resnet18", 4, 56, 64, 64, 3, 1, 1},      {"resnet18", 1, 56, 64, 128, 3, 2, 1},
    {"resnet18", 1, 56, 64, 128, 1, 2, 1},     {"resnet18", 3, 28, 128, 128, 3, 1, 1},    {"resnet18", 1, 28, 128, 256, 3, 2, 1},
    {"resnet18", 1, 28, 128, 256, 1, 2, 1},    {"resnet18", 3, 14, 256, 256, 3, 1, 1},    {"resnet18", 1, 14, 256, 512, 3, 2, 1},
    {"resnet18", 1, 14, 256, 512, 1, 2, 1},    {"resnet18", 3, 7, 512, 512, 3, 1, 1},     {"resnet18", 1, 1, 512, 1000, 1, 1, 1},
    {"resnet50", 1, 224, 3, 64, 7, 2, 1},      {"resnet50", 1, 56, 64, 64, 1, 1, 1},      {"resnet50", 3, 56, 64, 64, 3, 1, 1},
    {"resnet50", 4, 56, 64, 256, 1, 1, 1},     {"resnet50", 2, 56, 256, 64, 1, 1, 1},     {"resnet50", 1, 56, 256, 128, 1, 1, 1},
    {"resnet50", 1, 56, 128, 128, 3, 2, 1},    {"resnet50", 4, 28, 128, 512, 1, 1, 1},    {"resnet50", 1, 56, 256, 512, 1, 2, 1},
    {"resnet50", 3, 28, 512, 128, 1, 1, 1},    {"resnet50", 3, 28, 128, 128, 3, 1, 1},    {"resnet50", 1, 28, 512, 256, 1, 1, 1},
    {"resnet50", 1, 28, 256, 256, 3, 2, 1},    {"resnet50", 6, 14, 256, 1024, 1, 1, 1},   {"resnet50", 1, 28, 512, 1024, 1, 2, 1},
    {"resnet50", 5, 14, 1024, 256, 1, 1, 1},   {"resnet50", 5, 14, 256, 256, 3, 1, 1},    {"resnet50", 1, 14, 1024, 512, 1, 1, 1},
    {"resnet50", 1, 14, 512, 512, 3, 2, 1},    {"resnet50", 3, 7, 512, 2048, 1, 1, 1},    {"resnet50", 1, 14, 1024, 2048, 1, 2, 1},
    {"resnet50", 2, 7, 2048, 512, 1, 1, 1},    {"resnet50", 2, 7, 512, 512, 3, 1, 1},     {"resnet50", 1, 1, 2048, 1000, 1, 1, 1},
    {"mobilenetv2", 1, 224, 3, 32, 3, 2, 1},   {"mobilenetv2", 1, 112, 32, 32, 3, 1, 32}, {"mobilenetv2", 1, 112, 32, 16, 1, 1, 1},
    {"mobilenetv2", 1, 112, 16, 96, 1, 1, 1},  {"mobilenetv2", 1, 112, 96, 96, 3, 2, 96}, {"mobilenetv2", 1, 56, 96, 24, 1, 1, 1},
    {"mobilenetv2", 2, 56, 24, 144, 1, 1, 1},  {"mobilenetv2", 1, 56, 144, 144, 3, 1, 144}, {"mobilenetv2", 1, 56, 144, 24, 1, 1, 1},
    {"mobilenetv2", 1, 56, 144, 144, 3, 2, 144}, {"mobilenetv2", 1, 28, 144, 32, 1, 1, 1}, {"mobilenetv2", 3, 28, 32, 192, 1, 1, 1},
    {"mobilenetv2", 2, 28, 192, 192, 3, 1, 192}, {"mobilenetv2", 2, 28, 192, 32, 1, 1, 1}, {"mobilenetv2", 1, 28, 192, 192, 3, 2, 192},
    {"mobilenetv2", 1, 14, 192, 64, 1, 1, 1},  {"mobilenetv2", 4, 14, 64, 384, 1, 1, 1},  {"mobilenetv2", 4, 14, 384, 384, 3, 1, 384},
    {"mobilenetv2", 3, 14, 384, 64, 1, 1, 1},  {"mobilenetv2", 1, 14, 384, 96, 1, 1, 1},  {"mobilenetv2", 3, 14, 96, 576, 1, 1, 1},
    {"mobilenetv2", 2, 14, 576, 576, 3, 1, 576}, {"mobilenetv2", 2, 14, 576, 96, 1, 1, 1}, {"mobilenetv2", 1, 14, 576, 576, 3, 2, 576},
    {"mobilenetv2", 1, 7, 576, 160, 1, 1, 1},  {"mobilenetv2", 3, 7, 160, 960, 1, 1, 1},  {"mobilenetv2", 3, 7, 960, 960, 3, 1, 960},
    {"mobilenetv2", 2, 7, 960, 160, 1, 1, 1},  {"mobilenetv2", 1, 7, 960, 320, 1, 1, 1},  {"mobilenetv2", 1, 7, 320, 1280, 1, 1, 1},
    {"mobilenetv2", 1, 1, 1280, 1000, 1, 1, 1},
    {"resnet20", 1, 32, 3, 16, 3, 1, 1},       {"resnet20", 6, 32, 16, 16, 3, 1, 1},      {"resnet20", 1, 32, 16, 32, 3, 2, 1},
    {"resnet20", 5, 16, 32, 32, 3, 1, 1},      {"resnet20", 1, 16, 32, 64, 3, 2, 1},      {"resnet20", 5, 8, 64, 64, 3, 1, 1},
    {"resnet20", 1, 1, 64, 10, 1, 1, 1},
    {"vit_tiny", 12, 197, 192, 576, 1, 1, 0},  {"vit_tiny", 12, 197, 192, 192, 1, 1, 0},  {"vit_tiny", 12, 197, 192, 768, 1, 1, 0},
    {"vit_tiny", 12, 197, 768, 192, 1, 1, 0},  // groups 0: a linear layer of `size` rows
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Result {
  double best = 0, median = 0, build = 0;  // seconds
  size_t packed = 0;
  int64_t macs = 0;
  std::string kernel;
};

Result measure(const Shape& s, Isa isa, int weight_bits, int bits, ThreadPool& pool) {
  const float most = static_cast<float>((1 << (weight_bits - 1)) - 1);
  const uint32_t codes = uint32_t{1} << bits;
  std::mt19937 rng(1);
  std::normal_distribution<float> bell(0.0f, most / 4);
  Geometry g;
  const bool linear = s.groups == 0;
  g.x_hi = static_cast<int32_t>(codes) - 1;
  g.in_channels = s.in;
  g.out_channels = s.out;
  g.groups = linear ? 1 : s.groups;
  g.kh = g.kw = s.kernel;
  g.stride_h = g.stride_w = s.stride;
  g.pad_top = g.pad_left = g.pad_bottom = g.pad_right = s.kernel / 2;
  Extent e{1, linear ? 1 : s.size, s.size, 0, 0};
  if (!output_extent(g, &e).ok()) return {};
  std::vector<int8_t> w(static_cast<size_t>(g.out_channels * g.kh * g.kw * g.in_per_group()));
  for (int8_t& v : w) v = static_cast<int8_t>(std::max(-most, std::min(most, bell(rng))));
  const size_t padded = static_cast<size_t>(g.out_channels + 2 * kChannelPad);
  std::vector<float> mult(padded, 1e-4f), bias(padded, 0.5f);
  Buffer x, out;  // aligned as the engine's arena is
  if (!x.allocate(static_cast<size_t>(e.h * e.w * s.in)).ok() || !out.allocate(static_cast<size_t>(e.oh * e.ow * s.out)).ok()) return {};
  for (size_t i = 0; i < x.bytes(); ++i) x.data()[i] = static_cast<uint8_t>(rng() % codes);
  Requant q;
  q.mult = mult.data();
  q.bias = bias.data();
  Weights weights;
  weights.w = w.data();
  Layer layer;
  const double building = now();
  if (!layer.build(g, weights, q, isa, pool.threads()).ok()) return {};
  const double built = now() - building;
  Buffer scratch;
  if (!scratch.allocate(layer.scratch_bytes(e, pool.threads())).ok()) return {};
  Result r;
  r.kernel = layer.kernel_name();
  r.build = built;
  r.packed = layer.packed_bytes();
  r.macs = e.oh * e.ow * s.out * g.kh * g.kw * g.in_per_group();
  std::vector<double> times;
  const double end = now() + 0.08;
  while (times.size() < 12 || (now() < end && times.size() < 2000)) {
    const double start = now();
    layer.run(e, x.data(), nullptr, out.data(), scratch.data(), pool);
    times.push_back(now() - start);
  }
  std::sort(times.begin(), times.end());
  r.best = times.front();
  r.median = times[times.size() / 2];
  return r;
}

// GMAC/s of the tallest tile of the default set with everything in L1: what a layer's products could reach at most. (A Winograd layer
// may exceed it: its GMAC/s count the products of the definition.)
double tile_limit(Isa isa) {
  const TileSet& set = kernels_of(isa)->sets[0];
  constexpr int64_t kGroups = 64;
  const int64_t group = group_of(set.layout), element = element_of(set.layout), row_bytes = kGroups * group * element;
  Buffer a, b, out;
  if (!a.allocate(static_cast<size_t>(row_bytes * set.rows)).ok() || !b.allocate(static_cast<size_t>(row_bytes * set.width)).ok() ||
      !out.allocate(static_cast<size_t>(set.rows * set.width * 4)).ok()) {
    return 0;
  }
  std::memset(a.data(), 1, a.bytes());
  std::memset(b.data(), 1, b.bytes());
  const std::vector<int32_t> init(static_cast<size_t>(set.width), 0);
  const void* rows[kMaxRows];
  for (int r = 0; r < set.rows; ++r) rows[r] = a.data() + r * row_bytes;
  const int64_t offset = 0;
  Tile t = {};
  t.a = rows;
  t.run_offset = &offset;
  t.runs = 1;
  t.groups = kGroups;
  t.b = b.data();
  t.init = init.data();
  t.rows = set.rows;
  t.columns = set.width;
  t.out = out.data();
  t.out_stride = set.width;
  t.ahead = reinterpret_cast<uintptr_t>(b.data());
  double best = 1e9;
  for (int trial = 0; trial < 2000; ++trial) {
    const double start = now();
    for (int i = 0; i < 100; ++i) set.fn[set.rows - 1](t);
    best = std::min(best, now() - start);
  }
  return 100.0 * static_cast<double>(kGroups * group * set.rows * set.width) / best;
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

int main(int argc, char** argv) {
  using namespace netsuke;
  using namespace netsuke::qgemm;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  Isa isa = best_isa();
  if (argc > 2 && (!isa_from_name(argv[2], &isa) || !isa_available(isa))) {
    std::fprintf(stderr, "instruction set %s is not available here\n", argv[2]);
    return 1;
  }
  const int weight_bits = argc > 4 ? std::atoi(argv[4]) : 8, bits = argc > 5 ? std::atoi(argv[5]) : 8;
  if (weight_bits < 2 || weight_bits > 8 || bits < 1 || bits > 8) return 1;
  ThreadPool pool(threads);
  double best = 0, median = 0, macs = 0, build = 0, packed = 0;
  const char* net = "";
  const auto total = [&] {
    if (best > 0) {
      std::printf("%-11s total %54s %9.3f ms %9.3f ms %7.1f GMAC/s; packed in %.1f ms to %.1f MB\n\n", net, "", best * 1e3, median * 1e3,
                  macs / best * 1e-9, build * 1e3, packed * 1e-6);
    }
    best = median = macs = build = packed = 0;
  };
  const double limit = qgemm::tile_limit(isa) * threads;
  std::printf("tile in L1: %.1f GMAC/s with %d thread(s); the last column is a layer's share of it\n", limit * 1e-9, threads);
  std::printf("%-11s layer, count, kernel, best, median, GMAC/s at best; %s, %d thread(s)\n", "net", isa_name(isa), threads);
  for (const qgemm::Shape& s : kShapes) {
    if (argc > 3 && std::strstr(s.net, argv[3]) == nullptr) continue;
    if (std::strcmp(net, s.net) != 0) total();
    net = s.net;
    const bool first = s.in == 3;
    const Result r = measure(s, isa, first ? 8 : weight_bits, first ? 8 : bits, pool);
    char text[64];
    std::snprintf(text, sizeof(text), "%d: %d -> %d, k%d s%d g%d", s.size, s.in, s.out, s.kernel, s.stride, s.groups);
    std::printf("%-11s %-30s x%-2d %-27s %9.1f us %9.1f us %7.1f GMAC/s %4.0f %%\n", s.net, text, s.count, r.kernel.c_str(), r.best * 1e6,
                r.median * 1e6, r.macs / r.best * 1e-9, 100.0 * r.macs / r.best / limit);
    best += s.count * r.best;
    build += s.count * r.build;
    packed += s.count * static_cast<double>(r.packed);
    median += s.count * r.median;
    macs += s.count * static_cast<double>(r.macs);
  }
  total();
  return 0;
}
