// Microseconds and GB/s (input bytes) of maxpool and avgpool at the shapes of networks, one thread.
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"
#include "kernels/pool/pool.h"

int main() {
  using namespace netsuke;
  struct Case {
    const char* name;
    PoolWindow window;
    std::vector<int64_t> x;
  };
  const Case cases[] = {{"ResNet stem 3x3 s2", {{3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, false, false}, {1, 112, 112, 64}},
                        {"VGG 2x2 s2", {{2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, false, false}, {1, 56, 56, 256}},
                        {"YOLO SPPF 5x5 s1", {{5, 5}, {1, 1}, {2, 2, 2, 2}, {1, 1}, false, false}, {1, 20, 20, 256}},
                        {"DenseNet 2x2 s2", {{2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, false, false}, {1, 28, 28, 24}}};
  TestRandom random(1);
  for (const Case& test : cases) {
    PoolShape shape;
    Shape out;
    if (!pool_shape(test.window, test_shape(test.x), &shape, &out).ok()) return 1;
    const size_t size = static_cast<size_t>(test_shape(test.x).elements()), out_size = static_cast<size_t>(out.elements());
    std::vector<uint8_t> codes(size), y(out_size);
    std::vector<float> values(size), z(out_size);
    for (uint8_t& v : codes) v = random.code();
    for (float& v : values) v = random.uniform(-1.0f, 1.0f);
    const int64_t pitch = shape.out_w * shape.c;
    for (Isa isa : test_isas()) {
      const PoolKernels& kernels = pool_kernels(isa);
      const auto rows = [&](auto kernel, const auto* x, auto* to) {
        return bench_seconds([&] {
          for (int64_t row = 0; row < shape.out_h; ++row) kernel(test.window, shape, x, row, to + row * pitch);
        });
      };
      const double a = rows(kernels.max_u8, codes.data(), y.data()), b = rows(kernels.max_f32, values.data(), z.data());
      const double c = rows(kernels.avg_f32, values.data(), z.data()), bytes = static_cast<double>(size) * 1e-9;
      std::printf("%-20s %-22s max u8 %7.1f us %5.1f GB/s   max f32 %7.1f us %5.1f GB/s   avg f32 %7.1f us %5.1f GB/s\n", test.name,
                  kernels.max_name, a * 1e6, bytes / a, b * 1e6, 4 * bytes / b, c * 1e6, 4 * bytes / c);
    }
  }
  return 0;
}
