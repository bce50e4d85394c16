#include "kernels/movement/strided.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace {

// One thread copies about 10 GB/s, so 64 kB is some 6 us: a task below that is not worth handing out.
constexpr int64_t kBytesPerTask = 64 << 10;
// Transposes go by squares of 64 x 64 elements: rows of a square fill whole cache lines on both sides, and a square of f32 (16 kB
// read, 16 kB written) stays in L1.
constexpr int64_t kSquare = 64;

// Vectors of 16 bytes exist on every CPU this is compiled for (SSE2, NEON), so these loops need no per-ISA files.
template <typename T> struct Lanes;
template <> struct Lanes<uint8_t> {
  typedef uint8_t V __attribute__((vector_size(16)));
  static V low(V a, V b) { return shuffle(a, b, V{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}); }
  static V high(V a, V b) { return shuffle(a, b, V{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}); }
#if defined(__clang__)
  static V shuffle(V a, V b, V mask) {
    return mask[0] == 0 ? __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
                        : __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
#else
  static V shuffle(V a, V b, V mask) { return __builtin_shuffle(a, b, mask); }
#endif
};
template <> struct Lanes<uint16_t> {
  typedef uint16_t V __attribute__((vector_size(16)));
#if defined(__clang__)
  static V low(V a, V b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
  static V high(V a, V b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
  static V low(V a, V b) { return __builtin_shuffle(a, b, V{0, 8, 1, 9, 2, 10, 3, 11}); }
  static V high(V a, V b) { return __builtin_shuffle(a, b, V{4, 12, 5, 13, 6, 14, 7, 15}); }
#endif
};
template <> struct Lanes<uint32_t> {
  typedef uint32_t V __attribute__((vector_size(16)));
#if defined(__clang__)
  static V low(V a, V b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  static V high(V a, V b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#else
  static V low(V a, V b) { return __builtin_shuffle(a, b, V{0, 4, 1, 5}); }
  static V high(V a, V b) { return __builtin_shuffle(a, b, V{2, 6, 3, 7}); }
#endif
};
template <> struct Lanes<uint64_t> {
  typedef uint64_t V __attribute__((vector_size(16)));
#if defined(__clang__)
  static V low(V a, V b) { return __builtin_shufflevector(a, b, 0, 2); }
  static V high(V a, V b) { return __builtin_shufflevector(a, b, 1, 3); }
#else
  static V low(V a, V b) { return __builtin_shuffle(a, b, V{0, 2}); }
  static V high(V a, V b) { return __builtin_shuffle(a, b, V{1, 3}); }
#endif
};

// dst[t * dst_step + l] = src[l * src_step + t] for a square as wide as a vector: log2(width) rounds of interleaving rows i and
// i + width / 2.
template <typename T>
void transpose_tile(const T* src, int64_t src_step, T* dst, int64_t dst_step) {
  using L = Lanes<T>;
  constexpr int kWidth = 16 / sizeof(T);
  typename L::V rows[kWidth], next[kWidth];
  for (int i = 0; i < kWidth; ++i) std::memcpy(&rows[i], src + i * src_step, 16);
  for (int round = 1; round < kWidth; round *= 2) {
    for (int i = 0; i < kWidth / 2; ++i) {
      next[2 * i] = L::low(rows[i], rows[i + kWidth / 2]);
      next[2 * i + 1] = L::high(rows[i], rows[i + kWidth / 2]);
    }
    for (int i = 0; i < kWidth; ++i) rows[i] = next[i];
  }
  for (int i = 0; i < kWidth; ++i) std::memcpy(dst + i * dst_step, &rows[i], 16);
}

template <typename T>
void transpose_rest(const T* src, int64_t src_step, T* dst, int64_t dst_step, int64_t ts, int64_t ls) {
  for (int64_t t = 0; t < ts; ++t) {
    for (int64_t l = 0; l < ls; ++l) dst[t * dst_step + l] = src[l * src_step + t];
  }
}

// ls constant: the compiler unrolls the interleaving of an image's 2, 3 or 4 channels.
template <typename T, int kLs>
void interleave(const T* src, int64_t src_step, T* dst, int64_t ts) {
  for (int64_t t = 0; t < ts; ++t) {
    for (int l = 0; l < kLs; ++l) dst[t * kLs + l] = src[l * src_step + t];
  }
}

// The three planes of an image's bytes: pixels of 4 bytes from two rounds of interleaving with 0, then pairs of pixels shifted together and stored
// 6 bytes apart, each over the 2 spare bytes of the one before. 6 times the speed of bytes one by one.
inline int64_t interleave_bytes3(const uint8_t* src, int64_t src_step, uint8_t* dst, int64_t ts) {
  using B = Lanes<uint8_t>;
  using H = Lanes<uint16_t>;
  typedef uint64_t Q __attribute__((vector_size(16)));
  int64_t t = 0;
  for (; t + 16 < ts; t += 16) {  // not the last pixels: nothing may be written behind them
    B::V a, b, c;
    std::memcpy(&a, src + t, 16);
    std::memcpy(&b, src + src_step + t, 16);
    std::memcpy(&c, src + 2 * src_step + t, 16);
    const H::V ab[2] = {(H::V)B::low(a, b), (H::V)B::high(a, b)}, cz[2] = {(H::V)B::low(c, B::V{}), (H::V)B::high(c, B::V{})};
    for (int i = 0; i < 4; ++i) {
      const Q pixels = (Q)(i % 2 == 0 ? H::low(ab[i / 2], cz[i / 2]) : H::high(ab[i / 2], cz[i / 2]));
      const Q joined = (pixels & 0xffffff) | (pixels >> 8 & 0xffffff000000);
      for (int lane = 0; lane < 2; ++lane) {
        const uint64_t six = joined[lane];
        std::memcpy(dst + (t + 4 * i + 2 * lane) * 3, &six, 8);
      }
    }
  }
  return t;
}

template <typename T>
void transpose_block(const T* src, int64_t src_step, T* dst, int64_t dst_step, int64_t ts, int64_t ls) {
  constexpr int64_t kWidth = 16 / sizeof(T);
  if (ls == dst_step && ls <= 4) {
    if (ls == 2) return interleave<T, 2>(src, src_step, dst, ts);
    if (ls == 3) {
      int64_t done = 0;
      if constexpr (sizeof(T) == 1) done = interleave_bytes3(src, src_step, dst, ts);
      return interleave<T, 3>(src + done, src_step, dst + done * 3, ts - done);
    }
    if (ls == 4) return interleave<T, 4>(src, src_step, dst, ts);
  }
  int64_t t = 0;
  for (; t + kWidth <= ts; t += kWidth) {
    int64_t l = 0;
    for (; l + kWidth <= ls; l += kWidth) transpose_tile(src + l * src_step + t, src_step, dst + t * dst_step + l, dst_step);
    transpose_rest(src + l * src_step + t, src_step, dst + t * dst_step + l, dst_step, kWidth, ls - l);
  }
  transpose_rest(src + t, src_step, dst + t * dst_step, dst_step, ts - t, ls);
}

// Drops dimensions of 1 and joins neighbours that are one run in the source.
Strided simplified(const Strided& layout) {
  Strided out;
  for (int d = 0; d < layout.rank; ++d) {
    if (layout.dim[d] == 1) continue;
    const int last = out.rank - 1;
    if (last >= 0 && out.stride[last] == layout.stride[d] * layout.dim[d]) {
      out.dim[last] *= layout.dim[d];
      out.stride[last] = layout.stride[d];
    } else {
      out.add(layout.dim[d], layout.stride[d]);
    }
  }
  return out;
}

// The dimensions left after some are handled by an inner loop, with the step of the destination beside that of the source.
struct Outer {
  int rank = 0;
  int64_t dim[kMaxStridedRank], src[kMaxStridedRank], dst[kMaxStridedRank];
  int64_t count() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= dim[d];
    return n;
  }
  void offsets(int64_t index, int64_t* from, int64_t* to) const {
    *from = *to = 0;
    for (int d = rank - 1; d >= 0; --d) {
      *from += index % dim[d] * src[d];
      *to += index % dim[d] * dst[d];
      index /= dim[d];
    }
  }
};

Outer outer_of(const Strided& layout, int skip_a, int skip_b) {
  int64_t dense[kMaxStridedRank];
  int64_t step = 1;
  for (int d = layout.rank - 1; d >= 0; --d) {
    dense[d] = step;
    step *= layout.dim[d];
  }
  Outer outer;
  for (int d = 0; d < layout.rank; ++d) {
    if (d == skip_a || d == skip_b) continue;
    outer.dim[outer.rank] = layout.dim[d];
    outer.src[outer.rank] = layout.stride[d];
    outer.dst[outer.rank++] = dense[d];
  }
  return outer;
}

// Calls body(from, to) for every index of `outer`, in tasks of about kBytesPerTask.
template <typename Body>
void for_outer(const Outer& outer, int64_t bytes_each, ThreadPool& pool, const Body& body) {
  const int64_t count = outer.count();
  const int64_t per_task = std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, bytes_each));
  const int last = outer.rank - 1;
  pool.parallel_for((count + per_task - 1) / per_task, [&](int64_t task, int) {
    int64_t index = task * per_task;
    const int64_t end = std::min(count, index + per_task);
    while (index < end) {  // along the last dimension the offsets only grow by a step
      int64_t from, to;
      outer.offsets(index, &from, &to);
      const int64_t run = last < 0 ? 1 : std::min(end - index, outer.dim[last] - index % outer.dim[last]);
      for (int64_t i = 0; i < run; ++i) {
        body(from, to);
        if (last >= 0) {
          from += outer.src[last];
          to += outer.dst[last];
        }
      }
      index += run;
    }
  });
}

void copy_rows(const uint8_t* src, uint8_t* dst, const Strided& layout, size_t element, ThreadPool& pool) {
  const int last = layout.rank - 1;
  const size_t bytes = static_cast<size_t>(layout.dim[last]) * element;
  const auto step = static_cast<int64_t>(element);
  for_outer(outer_of(layout, last, -1), static_cast<int64_t>(bytes), pool,
            [&](int64_t from, int64_t to) { std::memcpy(dst + to * step, src + from * step, bytes); });
}

template <typename T>
void copy_transposed(const T* src, T* dst, const Strided& layout, int along, ThreadPool& pool) {
  const int last = layout.rank - 1;
  Outer outer = outer_of(layout, along, last);
  int64_t dst_step = 1;
  for (int d = along + 1; d < layout.rank; ++d) dst_step *= layout.dim[d];
  const int64_t ts = layout.dim[along], ls = layout.dim[last];
  // Squares of the source run become one more outer dimension, so that a single large plane is shared by all threads.
  const int64_t high = ls <= 4 ? 16 * kSquare : kSquare, squares = (ts + high - 1) / high;
  outer.dim[outer.rank] = squares;
  outer.src[outer.rank] = high;
  outer.dst[outer.rank++] = high * dst_step;
  const int64_t planes = outer.count();
  const int64_t per_task = std::max<int64_t>(1, kBytesPerTask / (high * ls * static_cast<int64_t>(sizeof(T))));
  pool.parallel_for((planes + per_task - 1) / per_task, [&](int64_t task, int) {
    const int64_t end = std::min(planes, (task + 1) * per_task);
    for (int64_t index = task * per_task; index < end; ++index) {
      int64_t from, to;
      outer.offsets(index, &from, &to);
      const int64_t rows = std::min(high, ts - index % squares * high);
      for (int64_t l = 0; l < ls; l += kSquare) {
        const int64_t columns = ls <= 4 ? ls : std::min(kSquare, ls - l);
        transpose_block(src + from + l * layout.stride[last], layout.stride[last], dst + to + l, dst_step, rows, columns);
      }
    }
  });
}

template <typename T>
void copy_elements(const T* src, T* dst, const Strided& layout, ThreadPool& pool) {
  const int last = layout.rank - 1;
  const int64_t count = layout.dim[last], step = layout.stride[last];
  for_outer(outer_of(layout, last, -1), count * static_cast<int64_t>(sizeof(T)), pool, [&](int64_t from, int64_t to) {
    for (int64_t i = 0; i < count; ++i) dst[to + i] = src[from + i * step];
  });
}

template <typename T>
void copy_strided(const void* src, void* dst, const Strided& layout, ThreadPool& pool) {
  const int last = layout.rank - 1;
  for (int d = 0; d < last; ++d) {
    if (layout.stride[d] == 1 && layout.stride[last] > 0) {
      return copy_transposed(static_cast<const T*>(src), static_cast<T*>(dst), layout, d, pool);
    }
  }
  copy_elements(static_cast<const T*>(src), static_cast<T*>(dst), layout, pool);
}

}  // namespace

void parallel_copy(const void* src, void* dst, int64_t bytes, ThreadPool& pool) {
  const auto* from = static_cast<const uint8_t*>(src);
  auto* to = static_cast<uint8_t*>(dst);
  pool.parallel_for((bytes + kBytesPerTask - 1) / kBytesPerTask, [&](int64_t task, int) {
    const int64_t begin = task * kBytesPerTask;
    std::memcpy(to + begin, from + begin, static_cast<size_t>(std::min(kBytesPerTask, bytes - begin)));
  });
}

void strided_copy(const void* src, void* dst, Strided layout, size_t element, ThreadPool& pool) {
  for (int d = 0; d < layout.rank; ++d) {
    if (layout.dim[d] == 0) return;
  }
  layout = simplified(layout);
  const int last = layout.rank - 1;
  if (layout.rank == 0 || (layout.rank == 1 && layout.stride[0] == 1)) {
    const int64_t count = layout.rank == 0 ? 1 : layout.dim[0];
    return parallel_copy(src, dst, count * static_cast<int64_t>(element), pool);
  }
  if (layout.stride[last] == 1) {
    return copy_rows(static_cast<const uint8_t*>(src), static_cast<uint8_t*>(dst), layout, element, pool);
  }
  switch (element) {
    case 1: return copy_strided<uint8_t>(src, dst, layout, pool);
    case 2: return copy_strided<uint16_t>(src, dst, layout, pool);
    case 4: return copy_strided<uint32_t>(src, dst, layout, pool);
    default: return copy_strided<uint64_t>(src, dst, layout, pool);
  }
}

}  // namespace netsuke
