// lut: every instruction set against the plain loop, the four forms of the operator, refusals.
#include "kernels/base/test_op.h"
#include "kernels/lut/test_cases.h"

namespace netsuke {
namespace {

void operators() {
  TestRandom random(8);
  const int64_t channels = 5;
  std::vector<uint8_t> x(9 * 1111 * 5), tables(256 * 5);
  std::vector<float> f32_tables(256 * 5);
  for (uint8_t& v : x) v = random.code();
  for (uint8_t& v : tables) v = random.code();
  for (float& v : f32_tables) v = random.uniform(-9.0f, 9.0f);
  const Tensor tx = make_tensor(DType::kU8, {9, 1111, channels}, x);
  for (Isa isa : test_isas()) {
    for (int threads = 1; threads <= 3; ++threads) {
      for (int form = 0; form < 4; ++form) {
        const bool f32 = form & 1, many = form & 2;
        const std::vector<int64_t> dims = many ? std::vector<int64_t>{channels, 256} : std::vector<int64_t>{256};
        const Tensor table = f32 ? make_tensor(DType::kF32, dims, f32_tables) : make_tensor(DType::kU8, dims, tables);
        const TestResult r = run_op("lut", TestAttrs(), {tx, table}, isa, threads, 1);
        CHECK_OK(r.status);
        CHECK(r.out.dtype == table.dtype && r.out.shape == tx.shape);
        int64_t wrong = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const size_t at = (many ? 256 * (i % channels) : 0) + x[i];
          wrong += f32 ? std::memcmp(&f32_tables[at], r.bytes.data() + 4 * i, 4) != 0 : r.bytes[i] != tables[at];
        }
        CHECK(wrong == 0 && r.bytes.size() == x.size() * (f32 ? 4 : 1));
      }
    }
  }
}

void refusals() {
  std::vector<uint8_t> x(10), table(512);
  std::vector<int64_t> wide(256);
  const Tensor tx = make_tensor(DType::kU8, {5, 2}, x);
  const auto ok = [&](Tensor t, int constants) { return run_op("lut", TestAttrs(), {tx, t}, Isa::kPortable, 1, constants).status.ok(); };
  CHECK(ok(make_tensor(DType::kU8, {2, 256}, table), 1));
  CHECK(!ok(make_tensor(DType::kU8, {2, 256}, table), 0));
  CHECK(!ok(make_tensor(DType::kU8, {1, 256}, table), 1));
  CHECK(!ok(make_tensor(DType::kU8, {255}, table), 1));
  CHECK(!ok(make_tensor(DType::kU8, {256, 1}, table), 1));
  CHECK(!ok(make_tensor(DType::kI64, {256}, wide), 1));
  CHECK(run_op("lut", TestAttrs(), {make_tensor(DType::kU8, {0, 2}, x), make_tensor(DType::kU8, {2, 256}, table)}, Isa::kPortable, 1, 1).status.ok());
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  for (Isa isa : test_isas()) compare_lut(lut_kernels(isa, cpu_features()));
  compare_lut(lut_kernels(best_isa(), CpuFeatures()));
  operators();
  refusals();
  return check_result();
}
