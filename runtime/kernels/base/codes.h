// What the integer operators share: reading and checking the attributes that describe codes, and cutting flat ranges for threads.
#ifndef NETSUKE_KERNELS_BASE_CODES_H_
#define NETSUKE_KERNELS_BASE_CODES_H_

#include <algorithm>
#include <cstdint>

#include "base/status.h"
#include "base/threads.h"
#include "kernels/base/shapes.h"
#include "kernels/op.h"

namespace netsuke {

// Output codes: q = int(rne(clamp(t, lo - zero, hi - zero))) + zero, 0 <= lo <= hi <= 255, 0 <= zero <= 255.
struct Codes {
  int32_t zero = 0, lo = 0, hi = 255;
};

// A zero point attribute in [0, 255].
Status read_zero(const Attrs& attrs, const char* key, int32_t* out);
Status read_zero_or(const Attrs& attrs, const char* key, int32_t fallback, int32_t* out);
// Attributes zero (required unless zero_optional), lo = 0, hi = 255.
Status read_codes(const Attrs& attrs, bool zero_optional, Codes* out);
// A finite f32 attribute; positive asks for > 0 too.
Status read_finite(const Attrs& attrs, const char* key, bool positive, float* out);
// Attributes of a dyadic multiplier m / 2^e: m is 0 or in [2^30, 2^31), e in [1, 62].
Status read_dyadic(const Attrs& attrs, const char* m_key, const char* e_key, int64_t* m, int64_t* e);
// Operand count and element types, e.g. check_operands("qadd", in, n_in, {DType::kU8, DType::kU8}).
Status check_operands(const char* op, const Tensor* in, int n_in, std::initializer_list<DType> dtypes);

// One operation of the same arithmetic in plain C++, for reference loops; rounds halves to even in the default mode.
uint8_t requantize_one(float t, const Codes& codes);

// p / 2^e rounded to the nearest integer, halves to even; 1 <= e <= 62 (numerics.md section 5).
inline int64_t shift_rne(int64_t p, int32_t e) {
  const int64_t floor = p >> e;
  const uint64_t rem = static_cast<uint64_t>(p) & ((uint64_t{1} << e) - 1);
  const uint64_t half = uint64_t{1} << (e - 1);
  return floor + (rem > half || (rem == half && (floor & 1)) ? 1 : 0);
}

// Elementwise work: at least this many elements a task, so that a task outlasts the counter that hands it out (about 20 ns).
constexpr int64_t kElementsPerTask = 16384;

// Calls body(begin, end) over [0, n) in pieces of at least `grain`; cuts fall on multiples of `unit`.
template <typename Body>
void for_ranges(ThreadPool& pool, int64_t n, int64_t grain, int64_t unit, const Body& body) {
  if (n <= 0) return;
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(grain, 1));
  const int64_t tasks = std::min<int64_t>(most, 4 * static_cast<int64_t>(pool.threads()));
  const int64_t step = ((n + tasks - 1) / tasks + unit - 1) / unit * unit;
  pool.parallel_for((n + step - 1) / step, [&](int64_t task, int) { body(task * step, std::min(n, (task + 1) * step)); });
}

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_CODES_H_
