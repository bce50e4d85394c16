// Broadcasting as runs of equal-length operands.
#include <cstring>

#include "kernels/qelementwise/qelementwise.h"

namespace netsuke {
namespace {

constexpr int64_t kRepeatBytes = 4096;  // buffer on the stack; long enough that the end of a run does not show

// Output dimensions, neighbours merged where both operands allow it. A step is 0 where the operand is broadcast.
struct Loops {
  int rank = 0;
  int64_t dim[kMaxRank + 1] = {}, a_step[kMaxRank + 1] = {}, b_step[kMaxRank + 1] = {};
};

Loops make_loops(const Shape& a, const Shape& b, const Shape& out) {
  Loops loops;  // built innermost first
  int64_t a_size = 1, b_size = 1;
  for (int i = out.rank - 1; i >= 0; --i) {
    const int ia = i - out.rank + a.rank, ib = i - out.rank + b.rank;
    const int64_t da = ia >= 0 ? a.dim[ia] : 1, db = ib >= 0 ? b.dim[ib] : 1;
    if (out.dim[i] != 1) {
      const int64_t a_step = da == 1 ? 0 : a_size, b_step = db == 1 ? 0 : b_size;
      const int last = loops.rank - 1;
      const bool merges = last >= 0 && (a_step == 0) == (loops.a_step[last] == 0) && (b_step == 0) == (loops.b_step[last] == 0);
      if (merges) {
        loops.dim[last] *= out.dim[i];
      } else {
        loops.dim[loops.rank] = out.dim[i];
        loops.a_step[loops.rank] = a_step;
        loops.b_step[loops.rank++] = b_step;
      }
    }
    a_size *= da;
    b_size *= db;
  }
  if (loops.rank == 0) {
    loops.rank = 1;
    loops.dim[0] = 1;
    loops.a_step[0] = loops.b_step[0] = 1;
  }
  return loops;
}

// The innermost one or two loops as one run: an operand walks through it, or repeats its first `period` bytes.
struct Run {
  int64_t length = 1, a_period = 0, b_period = 0;  // period 0: walks
  int loops = 1;
};

Run make_run(const Loops& loops) {
  Run run;
  run.length = loops.dim[0];
  run.a_period = loops.a_step[0] == 0 ? 1 : 0;
  run.b_period = loops.b_step[0] == 0 ? 1 : 0;
  // Both walk the inner loop and one of them repeats it in the next: [N,H,W,C] with [N,1,1,C].
  if (loops.rank > 1 && run.a_period == 0 && run.b_period == 0) {
    if (loops.a_step[1] == 0) run.a_period = loops.dim[0];
    if (loops.b_step[1] == 0) run.b_period = loops.dim[0];
    run.length *= loops.dim[1];
    run.loops = 2;
  }
  return run;
}

// The bytes [begin, begin + n) of an operand in a run. A repeating one with a short period is copied into the buffer.
struct Operand {
  const uint8_t* first;
  int64_t period;
  int64_t held;  // bytes that lie one behind the other from `first` on, whole periods
};

// length: of the run, so that a short run fills no more than it needs.
Operand make_operand(const uint8_t* first, int64_t period, int64_t length, uint8_t* buffer) {
  if (period == 0 || 2 * period > kRepeatBytes) return {first, period, period};
  const int64_t repeats = std::min((length + period - 1) / period, kRepeatBytes / period);
  if (period == 1) std::memset(buffer, first[0], static_cast<size_t>(repeats));
  for (int64_t i = 0; period > 1 && i < repeats; ++i) std::memcpy(buffer + i * period, first, static_cast<size_t>(period));
  return {buffer, period, repeats * period};
}

// How many bytes from `begin` on lie contiguously, and where.
int64_t contiguous(const Operand& operand, int64_t begin, int64_t n, const uint8_t** at) {
  if (operand.period == 0) {
    *at = operand.first + begin;
    return n;
  }
  const int64_t phase = begin % operand.period;
  *at = operand.first + phase;
  return std::min(n, operand.held - phase);
}

void run_piece(QBinaryRow row, const Operand& a, const Operand& b, uint8_t* y, int64_t begin, int64_t end, const QBinaryParams& params) {
  while (begin < end) {
    const uint8_t *at_a = nullptr, *at_b = nullptr;
    int64_t n = contiguous(a, begin, end - begin, &at_a);
    n = contiguous(b, begin, n, &at_b);
    row(at_a, at_b, y + begin, n, params);
    begin += n;
  }
}

}  // namespace

void qbinary_run(QBinaryRow row, const Shape& a_shape, const uint8_t* a, const Shape& b_shape, const uint8_t* b, const Shape& out,
                 uint8_t* y, const QBinaryParams& params, ThreadPool& pool) {
  const int64_t total = out.elements();
  if (total == 0) return;
  const Loops loops = make_loops(a_shape, b_shape, out);
  const Run run = make_run(loops);
  // The flat output is cut anywhere; a range touches whole or partial runs.
  for_ranges(pool, total, kElementsPerTask, 64, [&](int64_t begin, int64_t end) {
    uint8_t a_buffer[kRepeatBytes], b_buffer[kRepeatBytes];
    for (int64_t at = begin; at < end;) {
      int64_t index = at / run.length, a_first = 0, b_first = 0;
      for (int i = run.loops; i < loops.rank; ++i) {
        a_first += index % loops.dim[i] * loops.a_step[i];
        b_first += index % loops.dim[i] * loops.b_step[i];
        index /= loops.dim[i];
      }
      const int64_t start = at / run.length * run.length, stop = std::min(end, start + run.length);
      const Operand left = make_operand(a + a_first, run.a_period, run.length, a_buffer);
      const Operand right = make_operand(b + b_first, run.b_period, run.length, b_buffer);
      run_piece(row, left, right, y + start, at - start, stop - start, params);
      at = stop;
    }
  });
}

}  // namespace netsuke
