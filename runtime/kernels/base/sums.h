// Sums in the order of numerics.md section 8: element i goes to partial sum i mod 16, the 16 are combined as a binary tree
// (8, 4, 2, 1). Same bits for every vector width.
#ifndef NETSUKE_KERNELS_BASE_SUMS_H_
#define NETSUKE_KERNELS_BASE_SUMS_H_

#include "kernels/base/vec.h"

namespace netsuke {
namespace {

constexpr int kSums = 16, kSumVectors = 16 / kLanes;

// The accumulators of one row: vector v holds partial sums v * kLanes ... + kLanes - 1.
struct Sums {
  vf v[kSumVectors];
};
NK_INLINE Sums sums_of(float start) {
  Sums s;
  for (int i = 0; i < kSumVectors; ++i) s.v[i] = splat(start);
  return s;
}

// Lane i of the result is lane i + half of v, where there is one.
template <int kHalf>
NK_INLINE vf upper(vf v) {
  vi order;
  for (int i = 0; i < kLanes; ++i) order[i] = (i + kHalf) % kLanes;
  return __builtin_shuffle(v, order);
}

// Only the lower lanes of each step mean something.
template <vf (*Combine)(vf, vf)>
NK_INLINE float tree(const Sums& s) {
  Sums p = s;
  for (int half = kSumVectors / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) p.v[i] = Combine(p.v[i], p.v[i + half]);
  }
  vf v = p.v[0];
  if constexpr (kLanes > 8) v = Combine(v, upper<8>(v));
  if constexpr (kLanes > 4) v = Combine(v, upper<4>(v));
  v = Combine(v, upper<2>(v));
  return Combine(v, upper<1>(v))[0];
}

// out[r] = Combine(partial sum, F(element)) over row r of n elements, rows `stride` apart; elements beyond the end leave their partial sum alone.
// Rows are taken together so that one's chain of additions is not waited for.
template <int kRows, vf (*Combine)(vf, vf), typename F>
NK_INLINE void reduce_rows(const float* x, int64_t stride, int64_t n, float start, const F& f, float* out) {
  Sums s[kRows];
  for (int r = 0; r < kRows; ++r) s[r] = sums_of(start);
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int v = 0; v < kSumVectors; ++v) {
      const int64_t at = i + v * kLanes;
      for (int r = 0; r < kRows; ++r) s[r].v[v] = Combine(s[r].v[v], f(load(x + r * stride + at), r, at, int64_t{kLanes}));
    }
  }
  for (int v = 0; i < n; ++v, i += kLanes) {
    const int64_t left = n - i < kLanes ? n - i : kLanes;
    vi lane;
    for (int l = 0; l < kLanes; ++l) lane[l] = l;
    for (int r = 0; r < kRows; ++r) {
      const vf y = Combine(s[r].v[v], f(load_part(x + r * stride + i, left), r, i, left));
      s[r].v[v] = select(lane < splat_int(static_cast<int32_t>(left)), y, s[r].v[v]);
    }
  }
  for (int r = 0; r < kRows; ++r) out[r] = tree<Combine>(s[r]);
}
template <vf (*Combine)(vf, vf), typename F>
NK_INLINE float reduce_row(const float* x, int64_t n, float start, const F& f) {
  float out;
  reduce_rows<1, Combine>(x, 0, n, start, [&](vf v, int, int64_t at, int64_t count) __attribute__((always_inline)) { return f(v, at, count); }, &out);
  return out;
}

NK_INLINE vf plus(vf a, vf b) { return a + b; }
NK_INLINE vf times(vf a, vf b) { return a * b; }
NK_INLINE vf lesser(vf a, vf b) { return select((a < b) | (a != a), a, b); }  // a NaN on either side is the result
NK_INLINE vf greater(vf a, vf b) { return select((a > b) | (a != a), a, b); }

}  // namespace
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BASE_SUMS_H_
