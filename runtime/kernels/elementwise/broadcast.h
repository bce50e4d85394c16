// Walks broadcast operands as rows: runs of the output in which every operand either advances by one element or stands still.
#ifndef NETSUKE_KERNELS_ELEMENTWISE_BROADCAST_H_
#define NETSUKE_KERNELS_ELEMENTWISE_BROADCAST_H_

#include "base/threads.h"
#include "kernels/op.h"

namespace netsuke {

constexpr int kMaxOperands = 3;

struct BroadcastRows {
  int operands = 0, outer = 0;            // outer dimensions, the row not counted
  int64_t size[kMaxRank] = {};            // of the outer dimensions
  int64_t stride[kMaxOperands][kMaxRank] = {};
  int64_t row = 1;                        // elements of a row
  int step[kMaxOperands] = {};            // 0 or 1: what an operand advances by in a row
  int64_t rows = 1;

  // Shapes must broadcast to `out`.
  BroadcastRows(const Shape* shapes, int count, const Shape& out);
  void offsets(int64_t index, int64_t* out) const;  // of row `index` in every operand

  // body(offsets of the operands, offset in the output, elements); every element exactly once, split over threads.
  template <typename Body>
  void run(ThreadPool& pool, const Body& body) const {
    constexpr int64_t kChunk = 8192;  // elements of one task, about
    if (rows * row == 0) return;
    const int64_t pieces = (row + kChunk - 1) / kChunk, grouped = row >= kChunk ? 1 : kChunk / row;
    const int64_t groups = (rows + grouped - 1) / grouped;
    pool.parallel_for(groups * pieces, [&](int64_t task, int) {
      const int64_t piece = task % pieces, begin = piece * kChunk, first = task / pieces * grouped;
      const int64_t count = row - begin < kChunk ? row - begin : kChunk;
      for (int64_t r = first; r < rows && r < first + grouped; ++r) {
        int64_t at[kMaxOperands];
        offsets(r, at);
        for (int i = 0; i < operands; ++i) at[i] += step[i] * begin;
        body(at, r * row + begin, count);
      }
    });
  }
};

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_ELEMENTWISE_BROADCAST_H_
