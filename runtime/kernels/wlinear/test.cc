// wlinear: every kernel of this CPU bit for bit as the plain loops, and what the operator refuses.
#include "kernels/wlinear/test_cases.h"

namespace netsuke {
namespace {

struct Inputs {
  std::vector<float> x, scale, bias;
  std::vector<int8_t> w, zero;
  std::vector<uint8_t> codes;
};

TestResult run(const TestAttrs& attrs, std::vector<Tensor> in, Isa isa = Isa::kPortable) {
  return run_op("wlinear", attrs, in, isa, 1, static_cast<int>(in.size()) - 1);
}

void refused(const TestAttrs& attrs, const std::vector<Tensor>& in, const char* because) {
  const TestResult result = run(attrs, in);
  if (!CHECK(!result.status.ok() && result.status.message().find(because) != std::string::npos)) {
    std::fprintf(stderr, "  wanted '%s', got '%s'\n", because, result.status.message().c_str());
  }
}

void test_operator() {
  Inputs v;
  v.x.assign(2 * 64, 1.0f);
  v.w.assign(3 * 64, 2);
  v.zero.assign(3 * 2, 1);
  v.scale.assign(3 * 2, 0.5f);
  v.bias.assign(3, 10.0f);
  v.codes.assign(3 * 64, 0x38);  // 1 in e4m3
  const Tensor x = make_tensor(DType::kF32, {2, 64}, v.x), w = make_tensor(DType::kS8, {3, 64}, v.w), zero = make_tensor(DType::kS8, {3, 2}, v.zero);
  const Tensor scale = make_tensor(DType::kF32, {3, 2}, v.scale), bias = make_tensor(DType::kF32, {3}, v.bias);
  const Tensor codes = make_tensor(DType::kU8, {3, 64}, v.codes);
  Tensor none;
  none.present = false;
  const auto attrs = [](int group, const char* format = "int", const char* compute = "f32") {
    return TestAttrs().set("group", group).set("format", format).set("compute", compute);
  };
  for (Isa isa : test_isas()) {
    for (const char* compute : {"f32", "bf16", "s8"}) {
      const TestResult r = run(attrs(32, "int", compute), {x, w, scale, zero, bias}, isa);
      CHECK_OK(r.status);
      for (int i = 0; i < 6; ++i) CHECK(r.out.as<const float>()[i] == 64 * 0.5f + 10);
      CHECK(r.kernel.find(compute[0] == 's' ? "wlinear_a8w3_" : compute[0] == 'b' ? "wlinear_bf16w3_" : "wlinear_f32w3_") == 0);
    }
    const TestResult r = run(attrs(32, "e4m3"), {x, codes, scale}, isa);
    CHECK_OK(r.status);
    CHECK(r.out.as<const float>()[5] == 32 && r.kernel.find("wlinear_f32e4m3_") == 0);
  }
  refused(attrs(31), {x, w, scale}, "multiples of 32");
  refused(attrs(0), {x, w, scale}, "multiples of 32");
  refused(attrs(64), {x, w, scale}, "scale is f32 [3, 2]");
  refused(attrs(32, "int", "s4"), {x, w, scale}, "compute is 's4'");
  refused(attrs(32, "e9m9"), {x, codes, scale}, "format is 'e9m9'");
  refused(attrs(32, "e4m3"), {x, w, scale}, "w");
  refused(attrs(32), {x, codes, scale}, "w");
  refused(attrs(32, "e4m3"), {x, codes, scale, zero}, "no zero point");
  refused(attrs(32, "e4m3", "s8"), {x, codes, scale}, "compute in f32 or bf16");
  refused(attrs(32), {x, w, none}, "scale is missing");
  refused(attrs(32), {x, w, scale, scale}, "zero is f32");
  v.codes[7] = 0xff;
  refused(attrs(32, "e4m3"), {x, codes, scale}, "weight 7 has code 255");
  v.scale[1] = INFINITY;
  refused(attrs(32), {x, w, scale}, "scale 1 is not finite");
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) {
    compare_wlinear(wlinear_kernels(isa, WlinearCompute::kF32), 600, {WlinearCompute::kS8, WlinearCompute::kF32});
    compare_wlinear(wlinear_kernels(isa, WlinearCompute::kBf16), 600, {WlinearCompute::kBf16});
  }
  test_operator();
  return check_result();
}
