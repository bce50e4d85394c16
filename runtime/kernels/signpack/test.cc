// sign_pack: every instruction set against the plain loops, and the operator's refusals.
#include "kernels/signpack/test_cases.h"

namespace netsuke {
namespace {

void operators() {
  std::vector<float> x(3 * 70, -1.0f), t(70, 0.0f), bad(70, std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < x.size(); i += 2) x[i] = 1.0f;
  const Tensor in = make_tensor(DType::kF32, {3, 70}, x), threshold = make_tensor(DType::kF32, {70}, t);
  Tensor absent;
  absent.present = false;
  for (Isa isa : test_isas()) {
    const TestResult r = run_op("sign_pack", TestAttrs(), {in, threshold, absent}, isa, 2, 2);
    CHECK_OK(r.status);
    CHECK(r.out.dtype == DType::kI64 && r.out.shape.dim[1] == 2 && r.bytes.size() == 48);
    uint64_t words[6];
    std::memcpy(words, r.bytes.data(), sizeof(words));
    CHECK(words[0] == 0x5555555555555555ull && words[1] == 0x15 && words[5] == 0x15);
    CHECK(!run_op("sign_pack", TestAttrs(), {in, make_tensor(DType::kF32, {70}, bad), absent}, isa, 1, 2).status.ok());
    CHECK(!run_op("sign_pack", TestAttrs(), {make_tensor(DType::kF32, {3, 69}, x), threshold, absent}, isa, 1, 2).status.ok());
  }
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_sign_pack(sign_pack_kernels(isa));
  operators();
  return check_result();
}
