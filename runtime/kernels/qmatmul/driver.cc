// How a product is cut. Matrices of the batch are taken in waves whose packed b fits in kWaveBytes; in each wave, first all
// panels of b are packed by all threads, then tasks of kChunkRows rows pack their rows of a into the thread's own scratch and
// run over the panels. Attention has many small matrices (b of 197 x 64 packs to 26 KB at 16 bits), so a wave is tens of
// matrices and the two barriers it costs (a few us) are small beside it; scratch does not grow with the batch.
#include "base/arena.h"
#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {
namespace {

constexpr int64_t kWaveBytes = 1 << 19;  // half of the L2 cache of one core: packing and multiplying threads meet there or in L3
constexpr int64_t kChunkRows = 48;       // about; 48 x 197 values of 16 bits take 19 KB of the L1 cache

struct Plan {
  int64_t k_padded, row_bytes, panels, panel_bytes, terms_bytes, wave, chunk, chunks, thread_bytes;
};

int64_t aligned(int64_t bytes) { return static_cast<int64_t>(align_up(static_cast<size_t>(bytes))); }

Plan make_plan(const QMatmulKernels& kernels, const QMatmulShape& shape, int threads) {
  Plan plan;
  plan.k_padded = (shape.k + kernels.k_unit - 1) / kernels.k_unit * kernels.k_unit;
  // An odd number of cache lines, so that rows do not fall on the same cache sets when K is a power of two.
  plan.row_bytes = aligned(std::max<int64_t>(plan.k_padded * kernels.element, 1));
  if ((plan.row_bytes / 64) % 2 == 0) plan.row_bytes += 64;
  plan.panels = (shape.n + kernels.cols - 1) / kernels.cols;
  plan.panel_bytes = aligned(plan.k_padded * kernels.cols * kernels.element);
  plan.terms_bytes = aligned(kernels.cols * 4);
  const int64_t matrix_bytes = std::max<int64_t>(plan.panels * (plan.panel_bytes + plan.terms_bytes), 1);
  plan.wave = std::max<int64_t>(1, std::min(shape.batch, kWaveBytes * threads / matrix_bytes));
  // Chunks of about equal size, whole tiles but for the last; smaller ones where there are few rows for many threads.
  const int64_t chunks = std::max<int64_t>(1, (shape.m + kChunkRows / 2) / kChunkRows);
  const int64_t equal = (shape.m + chunks - 1) / chunks, shared = (shape.m * plan.wave + 4 * threads - 1) / (4 * threads);
  const int64_t rows = std::max<int64_t>(1, threads == 1 ? equal : std::min(equal, shared));
  plan.chunk = (rows + kernels.rows - 1) / kernels.rows * kernels.rows;
  plan.chunks = (shape.m + plan.chunk - 1) / plan.chunk;
  plan.thread_bytes = plan.chunk * plan.row_bytes + aligned(plan.chunk * 4);
  return plan;
}

struct Job {
  const QMatmulKernels& kernels;
  const QMatmulShape& shape;
  const QMatmulParams& params;
  const Plan& plan;
  const uint8_t* a;
  const uint8_t* b;
  uint8_t* c;
  uint8_t* panels;
  uint8_t* threads;
};

uint8_t* panel_at(const Job& job, int64_t matrix, int64_t panel) {
  return job.panels + (matrix * job.plan.panels + panel) * (job.plan.panel_bytes + job.plan.terms_bytes);
}

void pack_panel(const Job& job, int64_t first, int64_t index) {
  const QMatmulShape& shape = job.shape;
  const int64_t matrix = index / job.plan.panels, panel = index % job.plan.panels, n = panel * job.kernels.cols;
  int64_t a_matrix = 0, b_matrix = 0;
  qmatmul_batch(shape, first + matrix, &a_matrix, &b_matrix);
  const int64_t stride = shape.transposed ? shape.k : shape.n;
  const uint8_t* b = job.b + b_matrix * shape.k * shape.n + (shape.transposed ? n * stride : n);
  uint8_t* packed = panel_at(job, matrix, panel);
  job.kernels.pack_b(b, stride, shape.transposed, std::min<int64_t>(job.kernels.cols, shape.n - n), shape.k, job.plan.k_padded,
                     job.params, packed, reinterpret_cast<int32_t*>(packed + job.plan.panel_bytes));
}

void multiply_chunk(const Job& job, int64_t first, int64_t index, int thread) {
  const QMatmulShape& shape = job.shape;
  const Plan& plan = job.plan;
  const int64_t matrix = index / plan.chunks, m = index % plan.chunks * plan.chunk;
  const int64_t rows = std::min(plan.chunk, shape.m - m);
  int64_t a_matrix = 0, b_matrix = 0;
  qmatmul_batch(shape, first + matrix, &a_matrix, &b_matrix);
  uint8_t* packed = job.threads + thread * plan.thread_bytes;
  int32_t* row_terms = reinterpret_cast<int32_t*>(packed + plan.chunk * plan.row_bytes);
  for (int64_t row = 0; row < rows; ++row) {
    job.kernels.pack_a(job.a + (a_matrix * shape.m + m + row) * shape.k, shape.k, plan.k_padded, job.params,
                       packed + row * plan.row_bytes, row_terms + row);
  }
  const int64_t size = job.params.f32_out ? 4 : 1;
  for (int64_t panel = 0; panel < plan.panels; ++panel) {
    const int64_t n = panel * job.kernels.cols;
    const uint8_t* b = panel_at(job, matrix, panel);
    QMatmulTile tile{};
    tile.a_stride = plan.row_bytes;
    tile.b = b;
    tile.col_terms = reinterpret_cast<const int32_t*>(b + plan.panel_bytes);
    tile.units = plan.k_padded / job.kernels.k_unit;
    tile.cols = static_cast<int>(std::min<int64_t>(job.kernels.cols, shape.n - n));
    tile.c_stride = shape.n;
    for (int64_t row = 0; row < rows; row += job.kernels.rows) {
      tile.a = packed + row * plan.row_bytes;
      tile.row_terms = row_terms + row;
      tile.rows = static_cast<int>(std::min<int64_t>(job.kernels.rows, rows - row));
      tile.c = job.c + (((first + matrix) * shape.m + m + row) * shape.n + n) * size;
      job.kernels.tile(tile, job.params);
    }
  }
}

}  // namespace

size_t qmatmul_scratch_bytes(const QMatmulKernels& kernels, const QMatmulShape& shape, int threads) {
  const Plan plan = make_plan(kernels, shape, threads);
  return static_cast<size_t>(plan.wave * plan.panels * (plan.panel_bytes + plan.terms_bytes) + threads * plan.thread_bytes);
}

void qmatmul_run(const QMatmulKernels& kernels, const QMatmulShape& shape, const QMatmulParams& params, const uint8_t* a,
                 const uint8_t* b, void* c, void* scratch, ThreadPool& pool) {
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) return;
  const Plan plan = make_plan(kernels, shape, pool.threads());
  uint8_t* panels = static_cast<uint8_t*>(scratch);
  const Job job{kernels, shape, params, plan, a, b, static_cast<uint8_t*>(c), panels,
                panels + plan.wave * plan.panels * (plan.panel_bytes + plan.terms_bytes)};
  for (int64_t first = 0; first < shape.batch; first += plan.wave) {
    const int64_t wave = std::min(plan.wave, shape.batch - first);
    for_ranges(pool, wave * plan.panels, 4, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pack_panel(job, first, i);
    });
    pool.parallel_for(wave * plan.chunks, [&](int64_t task, int thread) { multiply_chunk(job, first, task, thread); });
  }
}

}  // namespace netsuke
