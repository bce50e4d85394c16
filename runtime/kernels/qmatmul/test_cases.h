// One kernel table against the plain loops, shared by test.cc and test_simde.cc.
#ifndef NETSUKE_KERNELS_QMATMUL_TEST_CASES_H_
#define NETSUKE_KERNELS_QMATMUL_TEST_CASES_H_

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {

struct QMatmulCase {
  std::vector<int64_t> a, b;
  bool transposed;
};

// extreme: operands made of the codes 0 and 255 only, where 16-bit pair sums and saturation would show.
inline bool compare_qmatmul_case(const QMatmulKernels& kernels, const QMatmulCase& test, TestRandom& random, int threads, bool extreme) {
  QMatmulShape shape;
  Shape out;
  CHECK_OK(qmatmul_shape(test_shape(test.a), test_shape(test.b), test.transposed, &shape, &out));
  // Exactly as large as the operands, so that a sanitizer sees any read behind them.
  std::vector<uint8_t> a(static_cast<size_t>(test_shape(test.a).elements())), b(static_cast<size_t>(test_shape(test.b).elements()));
  for (uint8_t& v : a) v = extreme ? (random.next() & 1 ? 255 : 0) : random.code();
  for (uint8_t& v : b) v = extreme ? (random.next() & 7 ? 0 : 255) : random.code();
  QMatmulParams params;
  params.a_zero = static_cast<int32_t>(extreme ? 255 * random.range(0, 1) : random.range(0, 255));
  params.b_zero = static_cast<int32_t>(extreme ? 255 * random.range(0, 1) : random.range(0, 255));
  params.mult = random.uniform(1e-5f, 2e-2f);
  params.codes.zero = static_cast<int32_t>(random.range(0, 255));
  params.codes.lo = static_cast<int32_t>(random.range(0, 40));
  params.f32_out = random.range(0, 2) == 0;
  const size_t size = static_cast<size_t>(out.elements()) * (params.f32_out ? 4 : 1);
  std::vector<uint8_t> c(size + 8, 0x5a), expected(size + 8, 0x5a);
  qmatmul_reference(shape, params, a.data(), b.data(), expected.data());
  const size_t bytes = qmatmul_scratch_bytes(kernels, shape, threads);
  void* scratch = nullptr;
  if (!CHECK(posix_memalign(&scratch, 64, bytes + 1) == 0)) return false;
  ThreadPool pool(threads);
  qmatmul_run(kernels, shape, params, a.data(), b.data(), c.data(), scratch, pool);
  std::free(scratch);
  return CHECK(c == expected);
}

inline std::vector<QMatmulCase> qmatmul_cases(TestRandom& random, int count) {
  std::vector<QMatmulCase> cases = {
      {{3, 197, 64}, {3, 197, 64}, true}, {{3, 197, 197}, {3, 197, 64}, false}, {{6, 49, 32}, {6, 49, 32}, true},
      {{1, 1}, {1, 1}, false},            {{5, 0}, {0, 7}, false},              {{0, 3, 4}, {4, 5}, false},
      {{2, 3, 4}, {2, 4, 0}, false},      {{2, 1, 5, 9}, {3, 9, 17}, false},    {{4, 9}, {2, 3, 33, 9}, true},
      {{2, 2, 50, 300}, {300, 40}, false}};
  for (int i = 0; i < count; ++i) {
    const int64_t m = random.range(1, 60), n = random.range(1, 70), k = random.range(1, 75), batch = random.range(1, 3);
    const bool transposed = random.range(0, 1) == 1, shared = random.range(0, 3) == 0;
    const std::vector<int64_t> b = transposed ? std::vector<int64_t>{shared ? 1 : batch, n, k} : std::vector<int64_t>{shared ? 1 : batch, k, n};
    cases.push_back({{batch, m, k}, b, transposed});
  }
  return cases;
}

inline void compare_qmatmul(const QMatmulKernels& kernels, int count) {
  TestRandom random(11);
  int index = 0;
  for (const QMatmulCase& test : qmatmul_cases(random, count)) {
    ++index;
    if (compare_qmatmul_case(kernels, test, random, 1 + index % 3, index % 4 == 0)) continue;
    std::fprintf(stderr, "%s differs: a %s, b %s, trans_b %d\n", kernels.name, shape_text(test_shape(test.a)).c_str(),
                 shape_text(test_shape(test.b)).c_str(), test.transposed);
  }
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QMATMUL_TEST_CASES_H_
