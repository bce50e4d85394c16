#include "kernels/qgemm/gemm.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace qgemm {
namespace {

constexpr int64_t kBlockRows = 512;         // most rows of A a task takes: its base pointers live on the stack
constexpr int64_t kBlockBytes = 192 << 10;  // of fresh A per task: with one panel it stays in a 512 KiB L2
constexpr int64_t kOnePiece = 256;          // input channels, see local_stride
constexpr int64_t kInL1 = 20 << 10;         // of panels that stay in a 32 KiB L1 beside a tile's rows
constexpr int64_t kNear = 64 << 10;         // of panels that are not fetched ahead: they stay in L2 at least
constexpr int64_t kTilesFirst = 8;          // of one panel, then as many of the next one, where all panels are in L1
constexpr int64_t kTasksPerThread = 4;      // enough to even out a slow thread
constexpr int64_t kMostTasksPerThread = 8, kFinerWeights = 256 << 10;  // more where there are many panels to split
constexpr int64_t kManyWeights = 512 << 10;  // bytes of panels; at least kFewRows or kLeastRows to a thread before panels are split
constexpr int64_t kFewRows = 96, kLeastRows = 20, kGoodRows = 48;  // of the last, panels cost next to nothing

void convert(Layout layout, const Kernels& kernels, int32_t zero, const uint8_t* src, int64_t count, uint8_t* dst) {
  if (layout == Layout::kS16x2) {
    kernels.widen(src, count, zero, reinterpret_cast<int16_t*>(dst));
  } else {
    std::memcpy(dst, src, static_cast<size_t>(count));
  }
}

}  // namespace

// What all tiles of a task share.
struct Gemm::Output {
  const uint8_t* const* base;  // of its rows of A
  uint8_t* out;                // first row, channel 0
  const uint8_t* residual;
  int64_t element;
};

// How one set of shapes is cut into tasks.
struct Gemm::Blocks {
  Source source;
  int64_t hp, wp;                       // the prepared image
  int64_t m;                            // output pixels
  int64_t block_rows, row_blocks;       // tasks along M
  int64_t block_units, unit_blocks;     // tasks along groups x panels
  int64_t whole_bytes, offset_bytes;    // shared
  int64_t local_bytes, local_stride;    // of a thread: converted rows
  bool rows_first;                      // panels change faster than rows
  int64_t expand_bytes;                 // of a thread: one panel as s16, all of a task with rows_first
};

Gemm::Blocks Gemm::blocks(const Extent& e, int threads) const {
  Blocks b;
  const int64_t element = element_of(set_->layout);
  const bool padded = g_.pad_top || g_.pad_left || g_.pad_bottom || g_.pad_right;
  const bool pointwise = g_.kh == 1 && g_.kw == 1 && !padded;
  // Windows of kPicked never leave the run, groups of 4 may.
  const bool whole_groups = set_->layout == Layout::kPicked || run_length_ % group_of(set_->layout) == 0;
  const bool as_is = set_->layout != Layout::kS16x2 && !padded && whole_groups;
  b.source = as_is ? Source::kDirect : pointwise ? Source::kLocal : Source::kWhole;
  b.hp = b.source == Source::kWhole ? (e.oh - 1) * g_.stride_h + (g_.kh - 1) * g_.dil_h + 1 : e.h;
  b.wp = b.source == Source::kWhole ? (e.ow - 1) * g_.stride_w + (g_.kw - 1) * g_.dil_w + 1 : e.w;
  b.m = e.n * e.oh * e.ow;
  // Rows of the input in one piece where they are short: converted in one call. Long ones at odd multiples of 32 bytes, so that the rows
  // of a tile fall into different L1 sets.
  b.local_stride = g_.in_channels <= kOnePiece ? g_.in_channels * element : round_up(g_.in_channels * element, 32) + 32;
  const int64_t fresh = b.source == Source::kLocal ? b.local_stride : g_.in_channels * element * g_.stride_h * g_.stride_w;
  // As many rows as L2 holds: every task expands and streams its panels once.
  const int64_t rows = std::max<int64_t>(b.m, 1), units = super_groups_ * panels_;
  const int64_t most = std::max<int64_t>(std::min(kBlockBytes / std::max<int64_t>(fresh, 1), kBlockRows) / set_->rows * set_->rows, set_->rows);
  b.row_blocks = ceil_div(rows, most);
  b.block_units = units;
  if (threads > 1) {
    // Threads split rows before panels, an equal number of blocks each: two threads that write the same lines of the output, or read what
    // the other wrote a layer before, lose a third (14x14, 64 -> 384: 1.1 times the speed of one thread, by rows 1.8 times).
    // Where weights outweigh the few rows of a thread they are split instead, so that each is read by one thread.
    const int64_t bytes = set_->layout == Layout::kPicked ? static_cast<int64_t>(picked_bytes_) : units * panel_bytes_;
    const int64_t least = bytes > kManyWeights ? kFewRows : kLeastRows;
    b.row_blocks = std::max(b.row_blocks, std::min<int64_t>(rows / least, threads));
    if (b.row_blocks > threads) b.row_blocks = std::min(round_up(b.row_blocks, threads), rows);
    const bool finer = bytes > kFinerWeights;
    const int64_t splits = std::min(ceil_div(threads * (finer ? kMostTasksPerThread : kTasksPerThread), b.row_blocks), units);
    const int64_t line = std::max<int64_t>(64 / (set_->width * (q_.out_f32 ? 4 : 1)), 1);  // panels of a cache line
    // Tasks end with a line. Where shares of threads do anyway, finer ones need not: lines inside of a share are written by one thread.
    const bool shares_end = finer && (b.row_blocks % threads == 0 || units % (threads * line) == 0);
    b.block_units = std::min(round_up(ceil_div(units, splits), shares_end ? 1 : line), units);
    const int64_t more = std::min(ceil_div(threads * kTasksPerThread, ceil_div(units, b.block_units)), rows / kGoodRows);
    if (more > b.row_blocks) b.row_blocks = std::max(more / threads * threads, b.row_blocks);
  }
  b.block_rows = ceil_div(rows, b.row_blocks);
  if (threads == 1) b.block_rows = round_up(b.block_rows, set_->rows);  // else equal blocks are worth more than whole tiles
  b.row_blocks = ceil_div(b.m, b.block_rows);
  b.unit_blocks = ceil_div(units, b.block_units);
  b.whole_bytes = b.source == Source::kWhole
                      ? static_cast<int64_t>(align_up(e.n * b.hp * b.wp * g_.in_channels * element + kSlack)) : 0;
  b.local_bytes = b.source == Source::kLocal ? static_cast<int64_t>(align_up(b.block_rows * b.local_stride + kSlack)) : 0;
  const int64_t expanded = set_->layout == Layout::kS16x2 ? panel_bytes_ * 2 : 0;
  const int64_t all = set_->layout == Layout::kPicked ? static_cast<int64_t>(picked_bytes_) : units * std::max(expanded, panel_bytes_);
  b.rows_first = super_groups_ == 1 && units > 1 && all <= kInL1;
  b.expand_bytes = static_cast<int64_t>(align_up(static_cast<size_t>(expanded * (b.rows_first ? b.block_units : 1))));
  b.offset_bytes = static_cast<int64_t>(align_up(runs_ * sizeof(int64_t)));
  return b;
}

size_t Gemm::scratch_bytes(const Extent& extent, int threads) const {
  const Blocks b = blocks(extent, threads);
  return static_cast<size_t>(b.whole_bytes + b.offset_bytes + (b.local_bytes + b.expand_bytes) * std::max(threads, 1));
}

namespace {

// The input with its padding written out in the element type of a layout, [n][hp][wp][channels]: x - x_zero as s16 or the codes.
struct Prepared {
  int64_t n, h, w, channels;    // of x
  int64_t hp, wp;               // of the copy
  int64_t pad_top, pad_left;
  int32_t x_zero;
  Layout layout;
};

// Costs one pass over the input, at 3x3 under 2 % of the products behind it, and frees the inner loop of bounds and of the zero point.
void prepare(const Prepared& p, const Kernels& kernels, const uint8_t* x, uint8_t* dst, ThreadPool& pool) {
  const int64_t element = element_of(p.layout), c = p.channels;
  const int64_t rows = p.n * p.hp, row_bytes = p.wp * c * element;
  const int64_t left = std::min(p.pad_left, p.wp), copied = std::max<int64_t>(std::min(p.w, p.wp - left), 0);
  const int64_t chunk = std::max<int64_t>((32 << 10) / std::max<int64_t>(row_bytes, 1), 1);
  const int fill = p.layout == Layout::kS16x2 ? 0 : p.x_zero;
  pool.parallel_for(ceil_div(rows, chunk), [&](int64_t task, int) {
    for (int64_t r = task * chunk; r < std::min(rows, (task + 1) * chunk); ++r) {
      uint8_t* to = dst + r * row_bytes;
      const int64_t y = r % p.hp - p.pad_top;
      if (y < 0 || y >= p.h) {
        std::memset(to, fill, static_cast<size_t>(row_bytes));
        continue;
      }
      std::memset(to, fill, static_cast<size_t>(left * c * element));
      convert(p.layout, kernels, p.x_zero, x + ((r / p.hp) * p.h + y) * p.w * c, copied * c, to + left * c * element);
      std::memset(to + (left + copied) * c * element, fill, static_cast<size_t>((p.wp - left - copied) * c * element));
    }
  });
}

}  // namespace

// Base pointers of the rows m0 .. m0 + rows, converted into `local` where the layer is pointwise and its codes cannot be read in place.
void Gemm::find_rows(const Blocks& b, const Extent& e, int64_t m0, int64_t rows, const uint8_t* x, const uint8_t* a, uint8_t* local,
                     const uint8_t** base) const {
  const int64_t element = element_of(set_->layout), c = g_.in_channels;
  // A pointwise layer of stride 1 reads consecutive pixels.
  const bool consecutive = g_.kh == 1 && g_.kw == 1 && g_.stride_h == 1 && g_.stride_w == 1;
  const bool one_piece = consecutive && b.source == Source::kLocal && b.local_stride == c * element;
  if (one_piece) convert(set_->layout, *kernels_, g_.x_zero, x + m0 * c, rows * c, local);
  if (one_piece || (consecutive && b.source == Source::kDirect)) {
    const uint8_t* first = one_piece ? local : a + m0 * c * element;
    for (int64_t i = 0; i < rows; ++i) base[i] = first + i * c * element;
    return;
  }
  int64_t ox = m0 % e.ow, oy = m0 / e.ow % e.oh, image = m0 / (e.ow * e.oh);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t pixel = (image * b.hp + oy * g_.stride_h) * b.wp + ox * g_.stride_w;
    if (b.source == Source::kLocal) {
      uint8_t* dst = local + i * b.local_stride;
      convert(set_->layout, *kernels_, g_.x_zero, x + pixel * c, c, dst);
      base[i] = dst;
    } else {
      base[i] = a + pixel * c * element;
    }
    if (++ox == e.ow) {
      ox = 0;
      if (++oy == e.oh) {
        oy = 0;
        ++image;
      }
    }
  }
}

// Makes the tile one of this panel. as_bytes: kS16x2 reads B as it is stored, else from `expanded`.
void Gemm::choose_panel(int64_t unit, bool as_bytes, uint8_t* expanded, Tile* tile) const {
  const int64_t panel = unit % panels_;
  tile->b = packed_.data() + (set_->layout == Layout::kPicked ? picked_at_[static_cast<size_t>(unit)] : unit * panel_bytes_);
  if (set_->layout == Layout::kS16x2 && !as_bytes) tile->b = expanded;
  tile->init = init_.data() + unit * set_->width;
  tile->columns = static_cast<int>(std::min<int64_t>(set_->width, o_ - panel * set_->width));
  tile->channel = unit / panels_ * o_ + panel * set_->width;
}

void Gemm::expand_panel(int64_t unit, uint8_t* expanded) const {
  const int8_t* from = reinterpret_cast<const int8_t*>(packed_.data() + unit * panel_bytes_);
  kernels_->expand(from, panel_bytes_, reinterpret_cast<int16_t*>(expanded));
}

// Lets the tiles of a panel prefetch the panel that its task takes next, a part each; without a next one they point at their own. Returns
// the bytes of a part. The first tile of a panel would else wait for memory: weights of a network do not stay in a cache from run to run.
int64_t Gemm::fetch_ahead(int64_t unit, int64_t next, int64_t tiles, Tile* tile) const {
  const bool picked = set_->layout == Layout::kPicked;
  const auto start = [&](int64_t u) { return packed_.data() + (picked ? picked_at_[static_cast<size_t>(u)] : u * panel_bytes_); };
  tile->ahead = reinterpret_cast<uintptr_t>(start(next < 0 ? unit : next));
  tile->ahead_step = 0;
  if (next < 0 || tiles == 1) return 0;
  const auto size = [&](int64_t u) { return picked_sizes_[static_cast<size_t>(u)]; };
  const int64_t steps = std::max<int64_t>(picked ? size(unit).plain + size(unit).offset : runs_ * run_groups_, 1);
  tile->ahead_step = ceil_div(picked ? size(next).bytes : panel_bytes_, tiles * steps);
  return steps * tile->ahead_step;
}

// Rows r0 to r1 of a task times the tile's panel, in `tiles` tiles whose heights differ by one at most: 49 rows are 4 x 6 + 5 x 5, not
// 8 x 6 + 1. Tiles of one height take one call where the set repeats; a call costs as much as the products of 4 channels.
// fetched: bytes that a tile prefetches.
void Gemm::run_tiles(const TileFn* functions, int64_t r0, int64_t r1, int64_t tiles, const Output& to, int64_t fetched, Tile* tile) const {
  const int64_t least = (r1 - r0) / tiles, tall = r1 - r0 - tiles * least;
  for (int64_t t = 0; t < tiles;) {
    tile->rows = static_cast<int>(t < tall ? least + 1 : least);
    const int64_t count = !set_->repeats ? 1 : t < tall ? tall : tiles - t, at = (r0 * g_.out_channels + tile->channel) * to.element;
    tile->a = reinterpret_cast<const void* const*>(to.base + r0);
    tile->more = count - 1;
    tile->out = to.out + at;
    tile->residual = to.residual == nullptr ? nullptr : to.residual + at;
    functions[tile->rows - 1](*tile);
    tile->ahead += static_cast<uintptr_t>(count * fetched);
    r0 += count * tile->rows;
    t += count;
  }
}

void Gemm::run_task(const Blocks& b, const Extent& e, int64_t task, const uint8_t* x, const uint8_t* a, const int64_t* run_offset,
                    uint8_t* local, const uint8_t* residual, uint8_t* out) const {
  const int64_t m0 = (task / b.unit_blocks) * b.block_rows, rows = std::min(b.block_rows, b.m - m0);
  const int64_t unit0 = (task % b.unit_blocks) * b.block_units, unit1 = std::min(unit0 + b.block_units, super_groups_ * panels_);
  const uint8_t* base[kBlockRows];
  find_rows(b, e, m0, rows, x, a, local, base);
  const int64_t element = q_.out_f32 ? 4 : 1, at = m0 * g_.out_channels * element;
  const Output to = {base, out + at, residual == nullptr ? nullptr : residual + at, element};
  Tile tile = {};
  tile.run_offset = run_offset;
  tile.runs = runs_;
  tile.groups = run_groups_;
  tile.chain = chain_;
  tile.requant = &q_;
  tile.out_stride = g_.out_channels;
  const int64_t tiles = ceil_div(rows, set_->rows);
  const bool as_bytes = set_->bytes != nullptr && tiles == 1, expands = set_->layout == Layout::kS16x2 && !as_bytes;
  const TileFn* functions = as_bytes ? set_->bytes : set_->fn;
  uint8_t* expanded = local + b.local_bytes;
  if (b.rows_first) {  // all panels stay in L1: a few rows of the output are written from left to right and stay there, too
    for (int64_t unit = unit0; expands && unit < unit1; ++unit) expand_panel(unit, expanded + (unit - unit0) * panel_bytes_ * 2);
    for (int64_t t = 0; t < tiles; t += kTilesFirst) {
      const int64_t end = std::min(t + kTilesFirst, tiles);
      for (int64_t unit = unit0; unit < unit1; ++unit) {
        choose_panel(unit, as_bytes, expanded + (unit - unit0) * panel_bytes_ * 2, &tile);
        fetch_ahead(unit, -1, tiles, &tile);
        run_tiles(functions, rows * t / tiles, rows * end / tiles, end - t, to, 0, &tile);
      }
    }
    return;
  }
  const bool far = static_cast<int64_t>(packed_bytes()) > kNear;
  int64_t group = 0;
  for (int64_t unit = unit0; unit < unit1; ++unit) {
    for (; group < unit / panels_; ++group) {
      for (int64_t i = 0; i < rows; ++i) base[i] += c_ * element_of(set_->layout);
    }
    if (expands) expand_panel(unit, expanded);
    choose_panel(unit, as_bytes, expanded, &tile);
    const int64_t fetched = fetch_ahead(unit, far && unit + 1 < super_groups_ * panels_ ? unit + 1 : -1, tiles, &tile);
    run_tiles(functions, 0, rows, tiles, to, fetched, &tile);
  }
}

void Gemm::run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const {
  const Blocks b = blocks(e, pool.threads());
  if (b.m == 0) return;
  uint8_t* whole = static_cast<uint8_t*>(scratch);
  int64_t* run_offset = reinterpret_cast<int64_t*>(whole + b.whole_bytes);
  uint8_t* local = whole + b.whole_bytes + b.offset_bytes;
  for (int64_t r = 0; r < runs_; ++r) {
    const int64_t ky = row_runs_ ? r : r / g_.kw, kx = row_runs_ ? 0 : r % g_.kw;
    run_offset[r] = b.source == Source::kLocal ? 0 : (ky * g_.dil_h * b.wp + kx * g_.dil_w) * g_.in_channels;
  }
  if (b.source == Source::kWhole) {
    const Prepared p = {e.n, e.h, e.w, g_.in_channels, b.hp, b.wp, g_.pad_top, g_.pad_left, g_.x_zero, set_->layout};
    prepare(p, *kernels_, x, whole, pool);
  }
  const uint8_t* a = b.source == Source::kWhole ? whole : x;
  pool.parallel_for(b.row_blocks * b.unit_blocks, [&](int64_t task, int thread) {
    run_task(b, e, task, x, a, run_offset, local + thread * (b.local_bytes + b.expand_bytes), static_cast<const uint8_t*>(residual),
             static_cast<uint8_t*>(out));
  });
}

std::unique_ptr<Algorithm> make_gemm() { return std::make_unique<Gemm>(); }

}  // namespace qgemm
}  // namespace netsuke
