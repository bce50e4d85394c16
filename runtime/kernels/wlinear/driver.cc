// Quantizes, rounds or pads the rows of x, then runs panels of channels as tasks.
#include <algorithm>
#include <cstring>

#include "kernels/wlinear/wlinear.h"

namespace netsuke {
namespace {

constexpr int64_t kSliceK = kWSlice * kWBlock;

struct Layout {
  size_t x, scale, sum, total;  // bytes from the start of the scratch memory
};

// One row of whole blocks lies as the float kernels read it.
bool in_place(const WlinearShape& shape, int64_t rows) { return rows == 1 && shape.k % kWBlock == 0; }

Layout layout(const WlinearShape& shape, int64_t rows, WlinearCompute compute) {
  const auto padded = static_cast<size_t>(rows * shape.blocks() * kWBlock), groups = static_cast<size_t>(rows * shape.groups());
  Layout at = {};
  if (compute == WlinearCompute::kS8) {
    at.scale = align_up(padded);
    at.sum = at.scale + align_up(groups * sizeof(float));
    at.total = at.sum + align_up(groups * sizeof(int32_t));
  } else if (compute == WlinearCompute::kBf16 || !in_place(shape, rows)) {
    at.total = align_up(static_cast<size_t>(rows * shape.slices() * kSliceK) * sizeof(float));
  }
  return at;
}

// k numbers, zeros behind them up to a whole block.
void copy_part(const float* x, int64_t k, float* out) {
  std::copy(x, x + k, out);
  std::fill(out + k, out + (k + kWBlock - 1) / kWBlock * kWBlock, 0.0f);
}

// One row is multiplied with up to four panels at a time where that leaves all threads busy.
int64_t panels_a_task(int64_t rows, int64_t panels, int threads) {
  if (rows != 1) return 1;
  return panels >= 16 * threads ? 4 : panels >= 8 * threads ? 2 : 1;
}

// Rows of one task: enough panels keep all threads busy with all rows; else rows are cut too.
int64_t rows_a_task(int64_t rows, int64_t panels, int threads) {
  const int64_t wanted = 4 * threads;
  if (threads == 1 || panels >= wanted) return rows;
  const int64_t pieces = (wanted + panels - 1) / panels;
  return std::max<int64_t>(8, (rows + pieces - 1) / pieces);
}

}  // namespace

size_t wlinear_scratch_bytes(const WlinearShape& shape, int64_t rows, WlinearCompute compute) { return layout(shape, rows, compute).total; }

void wlinear_run(const WlinearKernels& kernels, const WlinearWeights& weights, WlinearCompute compute, const float* x, int64_t rows, float* y,
                 void* scratch, ThreadPool& pool) {
  const WlinearShape& shape = weights.shape();
  const Layout at = layout(shape, rows, compute);
  auto* memory = static_cast<uint8_t*>(scratch);
  const int64_t padded = shape.blocks() * kWBlock;
  auto* q = reinterpret_cast<int8_t*>(memory + at.x);
  auto* x_scale = reinterpret_cast<float*>(memory + at.scale);
  auto* x_sum = reinterpret_cast<int32_t*>(memory + at.sum);
  auto* copy = reinterpret_cast<float*>(memory);
  const float* plain = copy;
  // Floats go by slices of k: [slice][row][words of a slice].
  const int64_t words = compute == WlinearCompute::kBf16 && kernels.bf16_pairs ? kSliceK / 2 : kSliceK, stride = rows * words;
  const auto by_slices = [&](auto part) {
    pool.parallel_for(rows, [&](int64_t r, int) {
      for (int64_t k = 0; k < shape.k; k += kSliceK) part(x + r * shape.k + k, std::min(kSliceK, shape.k - k), copy + k / kSliceK * stride + r * words);
    });
  };
  if (compute == WlinearCompute::kS8) {
    pool.parallel_for(rows, [&](int64_t r, int) {
      kernels.quantize(x + r * shape.k, shape.k, shape.group_blocks(), q + r * padded, x_scale + r, x_sum + r, rows);
    });
  } else if (compute == WlinearCompute::kBf16) {
    by_slices(kernels.round);
  } else if (in_place(shape, rows)) {
    plain = x;
  } else {
    by_slices(copy_part);
  }
  const int64_t panels = shape.panels(), count = panels_a_task(rows, panels, pool.threads()), parts = (panels + count - 1) / count;
  const int64_t step = rows_a_task(rows, parts, pool.threads()), pieces = (rows + step - 1) / step;
  pool.parallel_for(parts * pieces, [&](int64_t task, int) {
    const int64_t index = task / pieces * count, first = task % pieces * step;
    WlinearPanel panel = weights.panel(index, static_cast<int>(std::min(count, panels - index)));
    panel.rows = std::min(step, rows - first);
    panel.y = y + first * shape.n + index * kPanel;
    panel.y_stride = shape.n;
    if (compute == WlinearCompute::kS8) {
      kernels.s8({panel, q + first * padded, x_scale + first, x_sum + first, rows});
    } else {
      const auto run = compute == WlinearCompute::kBf16 ? kernels.bf16 : kernels.f32;
      run({panel, weights.form(), plain + first * words, stride});
    }
  });
}

}  // namespace netsuke
