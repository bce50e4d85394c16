#include "kernels/bgemm/layer.h"

#include "base/choices.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace bgemm {
namespace {

using qgemm::ceil_div;

constexpr int64_t kBlockRows = 256;     // most rows of A a task takes: their base pointers live on the stack
constexpr int64_t kTreeRows = 32;       // rows whose counts a thread holds on the way through a tree
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kDeep = 65536;        // products that 16-bit counters cannot hold

int32_t popcount(uint64_t v) { return static_cast<int32_t>(__builtin_popcountll(v)); }

// Word i of the `count` bits that start at bit `begin`.
uint64_t word_at(const uint64_t* words, int64_t begin, int64_t count, int64_t i) {
  const int64_t first = begin + 64 * i, bits = std::min<int64_t>(64, count - 64 * i), shift = first % 64;
  uint64_t v = words[first / 64] >> shift;
  if (shift != 0 && shift + bits > 64) v |= words[first / 64 + 1] << (64 - shift);
  return bits == 64 ? v : v & ((uint64_t{1} << bits) - 1);
}

}  // namespace

struct Layer::Blocks {
  bool direct;                       // A is x itself
  int64_t hp, wp, pixel_bytes, m;
  int64_t block_rows, row_blocks, block_units, unit_blocks, units;
  int64_t whole_bytes, tree_bytes;  // tree_bytes: of a thread
};

struct Layer::Task {
  int64_t m0, rows, unit0, unit1;
  const uint8_t* a;
  const int64_t* run_offset;
  const void* residual;
  void* out;
  uint64_t* bits;
  int32_t* tree;                     // counts of all channels of the rows, or null: the tiles count
};

Status Layer::build(const Geometry& g, int pad_value, const uint64_t* w, const uint8_t* flip, const Finish& finish, Isa isa, bool image) {
  g_ = g;
  f_ = finish;
  pad_value_ = finish.zero_one ? -1 : pad_value;  // a padded 0 is a bit of 0
  const int64_t products = g.kh * g.kw * g.in_per_group();
  kernels_ = &kernels_of(isa, products >= kDeep);
  if (kernels_->layout == Layout::kNibbles && products >= kDeep) return error(Code::kInternal, "one-bit kernels are too narrow for this layer");
  choose(w, isa);
  tap_steps_ = kernels_->layout == Layout::kWords ? words_of(g.in_per_group()) : ceil_div(g.in_per_group(), 8);
  tap_bytes_ = kernels_->layout == Layout::kWords ? tap_steps_ * 8 : tap_steps_ * 2;
  const bool row_runs = g.dil_w == 1 && g.groups == 1;
  runs_ = row_runs ? g.kh : g.kh * g.kw;
  steps_ = row_runs ? g.kw * tap_steps_ : tap_steps_;
  group_blocks_ = ceil_div(g.out_per_group(), kBlock);
  block_bytes_ = g.kh * g.kw * tap_steps_ * kBlock * (kernels_->layout == Layout::kWords ? 8 : 2);
  if (image) choose_forms(isa);
  NETSUKE_TRY(packed_.allocate(static_cast<size_t>(g.groups * group_blocks_ * block_bytes_)));
  flip_.assign(static_cast<size_t>(g.groups * group_blocks_), 0);
  if (flip != nullptr) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      const int64_t in_group = o % g.out_per_group(), unit = o / g.out_per_group() * group_blocks_ + in_group / kBlock;
      flip_[static_cast<size_t>(unit)] |= static_cast<uint64_t>(flip[o] != 0) << (in_group % kBlock);
    }
  }
  pack(w);
  if (!tree_.nodes.empty()) packed_ = Buffer();
  set_padding();
  return Status();
}

// The spanning tree instead of the tiles, where it was measured faster: a layer of one group, rows of words.
void Layer::choose(const uint64_t* w, Isa isa) {
  const int64_t facts[] = {g_.in_channels, g_.out_channels, g_.groups, g_.kh, g_.kw, g_.stride_h, g_.stride_w, g_.dil_h, g_.dil_w, pad_value_};
  key_ = "b";
  for (int64_t fact : facts) key_ += "_" + std::to_string(fact);
  ways_ = {"tiles"};
  if (g_.groups != 1) return;
  ways_.push_back("tree");
  const int64_t words = words_of(g_.in_channels), taps = g_.kh * g_.kw;
  uint64_t hash = 1469598103934665603ull;  // a tree's time depends on the weights, so the key tells them apart
  for (int64_t i = 0; i < g_.out_channels * taps * words; ++i) hash = (hash ^ w[i]) * 1099511628211ull;
  key_ += "_" + std::to_string(hash);
  if (chosen(key_, ways_) != "tree") return;
  build_tree(w, g_.out_channels, taps * words, g_.dil_w == 1 ? g_.kw * words : words, &tree_);
  own_ = kernels_of(isa, false);
  own_.layout = Layout::kWords;
  own_.rows = 1;
  own_.width = kBlock;
  kernels_ = &own_;
}

// One block of 64 outputs: absent outputs are zeros.
void Layer::write_taps(const uint64_t* w, int64_t unit) {
  const int64_t taps = g_.kh * g_.kw, words = words_of(g_.in_per_group()), first = unit % group_blocks_ * kBlock;
  const int64_t columns = std::min<int64_t>(kBlock, g_.out_per_group() - first), width = kernels_->width;
  uint8_t* block = packed_.data() + unit * block_bytes_;
  for (int64_t o = 0; o < columns; ++o) {
    const int64_t channel = unit / group_blocks_ * g_.out_per_group() + first + o;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const uint64_t* from = w + (channel * taps + tap) * words;
      if (forms_ != nullptr) {
        for (int64_t i = 0; i < words; ++i) channel_forms(from[i], block + (i * taps + tap) * kChannelForms * kBlock + form_channel(static_cast<int>(o)));
      } else if (kernels_->layout == Layout::kWords) {
        uint8_t* panel = block + o / width * (block_bytes_ / kBlock * width);
        for (int64_t i = 0; i < words; ++i) std::memcpy(panel + ((tap * words + i) * width + o % width) * 8, &from[i], 8);
      } else {
        for (int64_t i = 0; i < tap_steps_; ++i) {
          const uint8_t byte = static_cast<uint8_t>(from[i / 8] >> (i % 8 * 8));
          uint8_t* to = block + 2 * (tap * tap_steps_ + i) * kBlock + o;
          to[0] = byte & 15;
          to[kBlock] = byte >> 4;
        }
      }
      if (f_.zero_one) {
        int32_t& ones = ones_[static_cast<size_t>(unit * kBlock + o)];
        for (int64_t i = 0; i < words; ++i) ones += popcount(from[i]);
      }
      if (tap_bits_.empty()) continue;
      int32_t& bits = tap_bits_[static_cast<size_t>((unit * taps + tap) * kBlock + o)];
      for (int64_t i = 0; i < words; ++i) bits += popcount(from[i]);
    }
  }
}

void Layer::pack(const uint64_t* w) {
  const int64_t units = g_.groups * group_blocks_;
  std::memset(packed_.data(), 0, packed_.bytes());
  if (kernels_->layout == Layout::kWords && forms_ == nullptr && zero_padded()) tap_bits_.assign(static_cast<size_t>(units * g_.kh * g_.kw * kBlock), 0);
  if (f_.zero_one) ones_.assign(static_cast<size_t>(units * kBlock), 0);
  for (int64_t unit = 0; unit < units; ++unit) write_taps(w, unit);
}

void Layer::set_padding() {
  pad_pixel_.assign(static_cast<size_t>(g_.groups * tap_bytes_), pad_value_ == 0 && kernels_->layout == Layout::kNibbles ? kZeroNibble : 0);
  if (pad_value_ != 1) return;
  std::vector<uint64_t> ones(static_cast<size_t>(words_of(g_.in_channels)), ~uint64_t{0});
  if (g_.in_channels % 64 != 0) ones.back() = (uint64_t{1} << (g_.in_channels % 64)) - 1;
  convert(ones.data(), 1, pad_pixel_.data());
}

// Pixels of x to pixels of A: every group starts at an element of its own.
void Layer::convert(const uint64_t* x, int64_t pixels, uint8_t* dst) const {
  const int64_t channels = g_.in_channels, each = g_.in_per_group(), words = words_of(channels);
  const bool whole = each % 64 == 0 || g_.groups == 1;
  if (kernels_->layout == Layout::kWords) {
    if (whole) {
      std::memcpy(dst, x, static_cast<size_t>(pixels * words * 8));
      return;
    }
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t g = 0; g < g_.groups; ++g) {
        for (int64_t i = 0; i < tap_steps_; ++i, dst += 8) {
          const uint64_t v = word_at(x + p * words, g * each, each, i);
          std::memcpy(dst, &v, 8);
        }
      }
    }
    return;
  }
  if (whole && each % 64 == 0) return kernels_->expand(reinterpret_cast<const uint8_t*>(x), pixels * words * 8, dst);
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t g = 0; g < g_.groups; ++g, dst += tap_bytes_) {
      for (int64_t i = 0; i < words_of(each); ++i) {
        const uint64_t v = word_at(x + p * words, g * each, each, i);
        kernels_->expand(reinterpret_cast<const uint8_t*>(&v), std::min<int64_t>(8, tap_steps_ - 8 * i), dst + 16 * i);
      }
    }
  }
}

Layer::Blocks Layer::blocks(const Extent& e, int threads) const {
  Blocks b;
  const bool padded = (g_.pad_top | g_.pad_left | g_.pad_bottom | g_.pad_right) != 0;
  b.direct = kernels_->layout == Layout::kWords && !padded && (g_.groups == 1 || g_.in_per_group() % 64 == 0);
  b.hp = b.direct ? e.h : (e.oh - 1) * g_.stride_h + (g_.kh - 1) * g_.dil_h + 1;
  b.wp = b.direct ? e.w : (e.ow - 1) * g_.stride_w + (g_.kw - 1) * g_.dil_w + 1;
  b.pixel_bytes = g_.groups * tap_bytes_;
  b.m = e.n * e.oh * e.ow;
  b.units = g_.groups * group_blocks_;
  const int64_t wanted = threads > 1 ? threads * kTasksPerThread : 1, tile = kernels_->rows;
  const int64_t tiles = std::max<int64_t>(ceil_div(b.m, tile), 1), splits = aligned() ? b.units : 1;
  int64_t block_tiles = kBlockRows / tile;
  if (ceil_div(tiles, block_tiles) * splits < wanted) block_tiles = std::max<int64_t>(tiles * splits / wanted, 1);
  block_tiles = ceil_div(tiles, ceil_div(tiles, block_tiles));
  b.block_rows = block_tiles * tile;
  b.row_blocks = ceil_div(b.m, b.block_rows);
  b.block_units = ceil_div(b.units, std::min(ceil_div(wanted, std::max<int64_t>(b.row_blocks, 1)), splits));
  b.unit_blocks = ceil_div(b.units, b.block_units);
  if (!tree_.nodes.empty()) {  // every task has all channels: the tree leads through all of them
    b.block_units = std::max<int64_t>(b.units, 1);
    b.unit_blocks = 1;
    b.block_rows = std::max<int64_t>(std::min(ceil_div(b.m, wanted), kTreeRows), 1);
    b.row_blocks = ceil_div(b.m, b.block_rows);
  }
  b.tree_bytes = tree_.nodes.empty() ? 0 : static_cast<int64_t>(align_up(static_cast<size_t>(b.block_rows * g_.out_channels * 4)));
  b.whole_bytes = b.direct ? 0 : static_cast<int64_t>(align_up(static_cast<size_t>(e.n * b.hp * b.wp * b.pixel_bytes + kSlack)));
  return b;
}

size_t Layer::scratch_bytes(const Extent& e, int threads) const {
  if (forms_ != nullptr) return form_scratch_bytes(e);
  const Blocks b = blocks(e, threads);
  return static_cast<size_t>(b.whole_bytes + b.tree_bytes * std::max(threads, 1)) + align_up(static_cast<size_t>(runs_) * sizeof(int64_t));
}

void Layer::prepare(const Blocks& b, const Extent& e, const uint64_t* x, uint8_t* dst, ThreadPool& pool) const {
  const int64_t words = words_of(g_.in_channels), rows = e.n * b.hp, row_bytes = b.wp * b.pixel_bytes;
  const int64_t left = std::min(g_.pad_left, b.wp), copied = std::max<int64_t>(std::min(e.w, b.wp - left), 0);
  const int64_t chunk = std::max<int64_t>((16 << 10) / std::max<int64_t>(row_bytes, 1), 1);
  const auto fill = [&](uint8_t* to, int64_t pixels) {
    for (int64_t p = 0; p < pixels; ++p) std::memcpy(to + p * b.pixel_bytes, pad_pixel_.data(), pad_pixel_.size());
  };
  pool.parallel_for(ceil_div(rows, chunk), [&](int64_t task, int) {
    for (int64_t r = task * chunk; r < std::min(rows, (task + 1) * chunk); ++r) {
      uint8_t* to = dst + r * row_bytes;
      const int64_t y = r % b.hp - g_.pad_top;
      if (y < 0 || y >= e.h) {
        fill(to, b.wp);
        continue;
      }
      fill(to, left);
      convert(x + ((r / b.hp) * e.h + y) * e.w * words, copied, to + left * b.pixel_bytes);
      fill(to + (left + copied) * b.pixel_bytes, b.wp - left - copied);
    }
  });
}

// Taps of output pixel m inside the image: range = first and last + 1 of rows, then of columns.
int32_t Layer::valid_taps(const Extent& e, int64_t m, int64_t range[4]) const {
  const auto span = [](int64_t start, int64_t size, int64_t dilation, int64_t taps, int64_t* out) {
    out[0] = start >= 0 ? 0 : std::min(taps, ceil_div(-start, dilation));
    out[1] = start >= size ? out[0] : std::max(out[0], std::min(taps, (size - 1 - start) / dilation + 1));
  };
  span(m / e.ow % e.oh * g_.stride_h - g_.pad_top, e.h, g_.dil_h, g_.kh, range);
  span(m % e.ow * g_.stride_w - g_.pad_left, e.w, g_.dil_w, g_.kw, range + 2);
  return static_cast<int32_t>((range[1] - range[0]) * (range[3] - range[2]));
}

// sum x w over x in {0, 1}, w in {-1, +1}: the ones that meet +1 less those that meet -1. Of popcount(x xor w) the ones of w that x misses
// count too: acc = popcount(w) - popcount(x xor w).
void Layer::sum_ones(int64_t unit, int rows, int columns, int32_t* count) const {
  const int32_t* ones = ones_.data() + unit * kBlock;
  for (int i = 0; i < rows; ++i) {
    for (int c = 0; c < columns; ++c) count[i * kBlock + c] = ones[c] - count[i * kBlock + c];
  }
}

// kWords: a padded tap met words of 0, so that the weights' own bits were counted: those of all taps outside the image.
void Layer::bits_outside(int64_t unit, const int64_t range[4], int32_t* sums) const {
  const int32_t* bits = tap_bits_.data() + unit * g_.kh * g_.kw * kBlock;
  std::fill(sums, sums + kBlock, 0);
  for (int64_t y = 0; y < g_.kh; ++y) {
    for (int64_t x = 0; x < g_.kw; ++x, bits += kBlock) {
      if (y >= range[0] && y < range[1] && x >= range[2] && x < range[3]) continue;
      for (int o = 0; o < kBlock; ++o) sums[o] += bits[o];
    }
  }
}

// The last few such sums of a unit: along an edge they repeat, and on the way down the left edge and the right one take turns. Added up anew for
// every pixel they were 2 to 3% of a 3x3 layer.
struct Layer::Dropped {
  static constexpr int kSlots = 4;
  int64_t range[kSlots][4];
  alignas(64) int32_t bits[kSlots][kBlock];
  int made = 0;

  const int32_t* of(const Layer& layer, int64_t unit, const int64_t wanted[4]) {
    for (int i = 0; i < std::min(made, kSlots); ++i) {
      if (std::equal(wanted, wanted + 4, range[i])) return bits[i];
    }
    const int slot = made++ % kSlots;
    std::copy(wanted, wanted + 4, range[slot]);
    layer.bits_outside(unit, wanted, bits[slot]);
    return bits[slot];
  }
};

void Layer::run_task(const Blocks& b, const Extent& e, const Task& task) const {
  const uint8_t* base[kBlockRows];
  int32_t inside[kBlockRows];  // taps inside the image
  const int64_t taps = g_.kh * g_.kw, reach_h = (g_.kh - 1) * g_.dil_h, reach_w = (g_.kw - 1) * g_.dil_w;
  int64_t ranges[kBlockRows][4];  // where some are outside
  int64_t ox = task.m0 % e.ow, oy = task.m0 / e.ow % e.oh, image = task.m0 / (e.ow * e.oh);
  for (int64_t i = 0; i < task.rows; ++i) {
    base[i] = task.a + ((image * b.hp + oy * g_.stride_h) * b.wp + ox * g_.stride_w) * b.pixel_bytes;
    const int64_t top = oy * g_.stride_h - g_.pad_top, left = ox * g_.stride_w - g_.pad_left;
    const bool whole = !zero_padded() || (top >= 0 && left >= 0 && top + reach_h < e.h && left + reach_w < e.w);
    inside[i] = static_cast<int32_t>(whole ? taps : valid_taps(e, task.m0 + i, ranges[i]));
    if (++ox == e.ow) {
      ox = 0;
      if (++oy == e.oh) {
        oy = 0;
        ++image;
      }
    }
  }
  for (int64_t i = 0; task.tree != nullptr && i < task.rows; ++i) kernels_->tree(tree_.view(), base[i], task.run_offset, task.tree + i * g_.out_channels);
  const int64_t out_words = words_of(g_.out_channels), element = f_.out_f32 ? 4 : 1;
  if (task.bits != nullptr && !aligned()) std::memset(task.bits + task.m0 * out_words, 0, static_cast<size_t>(task.rows * out_words * 8));
  alignas(64) int32_t count[kMaxRows * kBlock];
  int32_t bases[kMaxRows];
  uint64_t words[kMaxRows];
  Tile tile = {};
  tile.run_offset = task.run_offset;
  tile.runs = runs_;
  tile.steps = steps_;
  tile.count = count;
  Result result = {};
  result.count = count;
  result.base = bases;
  result.sums = f_.zero_one;
  result.out_stride = g_.out_channels;
  result.bits = task.bits == nullptr ? nullptr : words;
  const uint8_t* rows[kMaxRows];
  Dropped dropped;
  for (int64_t unit = task.unit0; unit < task.unit1; ++unit) {
    dropped.made = 0;
    const int64_t group = unit / group_blocks_, first = unit % group_blocks_ * kBlock, channel = group * g_.out_per_group() + first;
    tile.b = task.tree != nullptr ? nullptr : packed_.data() + unit * block_bytes_;
    tile.columns = result.columns = static_cast<int>(std::min<int64_t>(kBlock, g_.out_per_group() - first));
    result.channel = channel;
    result.flip = flip_[static_cast<size_t>(unit)];
    for (int64_t r = 0; r < task.rows; r += kernels_->rows) {
      tile.rows = result.rows = static_cast<int>(std::min<int64_t>(kernels_->rows, task.rows - r));
      for (int i = 0; i < tile.rows; ++i) rows[i] = base[r + i] + group * tap_bytes_;
      tile.a = rows;
      if (task.tree == nullptr) {
        kernels_->tile(tile);
      } else {
        std::memcpy(count, task.tree + (r * g_.out_channels + channel), static_cast<size_t>(tile.columns) * 4);
      }
      for (int i = 0; i < tile.rows; ++i) {
        const int32_t valid = inside[r + i];
        bases[i] = static_cast<int32_t>(g_.in_per_group()) * valid;
        if (valid == taps) continue;
        if (kernels_->layout == Layout::kWords) {
          const int32_t* bits = dropped.of(*this, unit, ranges[r + i]);
          for (int o = 0; o < kBlock; ++o) count[i * kBlock + o] -= bits[o];
        } else {
          bases[i] += static_cast<int32_t>(8 * tap_steps_ * (taps - valid));
        }
      }
      if (f_.zero_one) sum_ones(unit, tile.rows, tile.columns, count);
      const int64_t at = ((task.m0 + r) * g_.out_channels + channel) * element;
      result.out = f_.out_bits ? nullptr : static_cast<uint8_t*>(task.out) + at;
      result.residual = task.residual == nullptr ? nullptr : static_cast<const uint8_t*>(task.residual) + at;
      kernels_->finish(f_, result);
      if (task.bits == nullptr) continue;
      for (int i = 0; i < tile.rows; ++i) {
        uint64_t* to = task.bits + (task.m0 + r + i) * out_words + channel / 64;
        if (aligned()) {
          *to = words[i];
          continue;
        }
        const int64_t shift = channel % 64;
        *to |= words[i] << shift;
        if (shift + tile.columns > 64) to[1] |= words[i] >> (64 - shift);
      }
    }
  }
}

void Layer::run(const Extent& e, const uint64_t* x, const void* residual, void* out, uint64_t* bits, void* scratch, ThreadPool& pool) const {
  const Blocks b = blocks(e, pool.threads());
  if (b.m == 0) return;
  if (forms_ != nullptr) return run_forms(e, x, {residual, out, f_.out_bits ? static_cast<uint64_t*>(out) : bits}, static_cast<uint8_t*>(scratch), pool);
  uint8_t* whole = static_cast<uint8_t*>(scratch);
  int64_t* run_offset = reinterpret_cast<int64_t*>(whole + b.whole_bytes);
  for (int64_t r = 0; r < runs_; ++r) {
    const bool rows = runs_ == g_.kh && g_.dil_w == 1 && g_.groups == 1;
    const int64_t ky = rows ? r : r / g_.kw, kx = rows ? 0 : r % g_.kw;
    run_offset[r] = (ky * g_.dil_h * b.wp + kx * g_.dil_w) * b.pixel_bytes;
  }
  if (!b.direct) prepare(b, e, x, whole, pool);
  uint8_t* trees = whole + b.whole_bytes + align_up(static_cast<size_t>(runs_) * sizeof(int64_t));
  pool.parallel_for(b.row_blocks * b.unit_blocks, [&](int64_t index, int thread) {
    Task task;
    task.tree = b.tree_bytes == 0 ? nullptr : reinterpret_cast<int32_t*>(trees + thread * b.tree_bytes);
    task.m0 = index % b.row_blocks * b.block_rows;
    task.rows = std::min(b.block_rows, b.m - task.m0);
    task.unit0 = index / b.row_blocks * b.block_units;
    task.unit1 = std::min(task.unit0 + b.block_units, b.units);
    task.a = b.direct ? reinterpret_cast<const uint8_t*>(x) : whole;
    task.run_offset = run_offset;
    task.residual = residual;
    task.out = out;
    task.bits = f_.out_bits ? static_cast<uint64_t*>(out) : bits;
    run_task(b, e, task);
  });
}

}  // namespace bgemm
}  // namespace netsuke
