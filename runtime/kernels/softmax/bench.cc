// Nanoseconds an element of softmax and layernorm rows, one thread: lengths of attention and of transformer widths, codes out.
#include <vector>

#include "kernels/base/bench_op.h"
#include "kernels/base/test_op.h"

int main() {
  using namespace netsuke;
  struct Case {
    const char* op;
    int64_t rows, n;
    bool quant;
  };
  const Case cases[] = {{"softmax", 591, 197, true},   {"softmax", 591, 197, false},   {"softmax", 1024, 49, true},  {"softmax", 128, 1024, true},
                        {"layernorm", 197, 192, true}, {"layernorm", 197, 192, false}, {"layernorm", 197, 768, true}};
  TestRandom random(1);
  ThreadPool pool(1);
  for (const Case& test : cases) {
    std::vector<float> x(static_cast<size_t>(test.rows * test.n)), gamma(static_cast<size_t>(test.n), 1.5f), y(x.size());
    for (float& v : x) v = random.uniform(-6.0f, 6.0f);
    const bool norm = std::strcmp(test.op, "layernorm") == 0;
    for (Isa isa : test_isas()) {
      TestAttrs attrs;
      attrs.set("axis", 1);
      if (norm) attrs.set("eps", 1e-6f);
      if (test.quant) attrs.set("quant_scale", norm ? 0.05f : 0.004f).set("quant_zero", norm ? 128 : 0);
      std::vector<Tensor> in = {make_tensor(DType::kF32, {test.rows, test.n}, x)};
      if (norm) {
        in.push_back(make_tensor(DType::kF32, {test.n}, gamma));
        in.push_back(make_tensor(DType::kF32, {test.n}, gamma));
      }
      const std::unique_ptr<Op> op = find_op(test.op)();
      Tensor out;
      const int n_in = static_cast<int>(in.size());
      if (!op->build(BuildArgs{attrs, in, 1, isa, 1}).ok() || !op->infer(in.data(), n_in, &out, 1).ok()) return 1;
      out.data = y.data();
      std::vector<uint8_t> scratch(op->scratch_bytes(in.data(), n_in, &out, 1, 1) + 64);
      void* aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
      const double s = bench_seconds([&] { (void)op->run(RunArgs{in.data(), n_in, &out, 1, aligned, pool}).ok(); });
      std::printf("%-10s %5lld x %-5lld %-34s %8.1f us %6.2f ns an element\n", test.op, static_cast<long long>(test.rows),
                  static_cast<long long>(test.n), op->kernel_name(), s * 1e6, s * 1e9 / static_cast<double>(x.size()));
    }
  }
  return 0;
}
