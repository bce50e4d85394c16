// A convolution counted by forms (forms.h): planes of pixels instead of rows of words.
//
// Output pixels count along rows of `pitch` columns of the padded image, so that all of a block's pixels lie at the same distance from a tap's, also
// where a row ends; what falls between two rows is counted for nothing. Rows share the columns of their padding: 57 for an image of 56.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/bgemm/layer.h"

namespace netsuke {
namespace bgemm {
namespace {

using qgemm::ceil_div;

constexpr int64_t kTaskBlocks = 16;      // blocks of pixels a task takes: 16 KiB of counters
constexpr int64_t kChunkSteps = 12;      // words of taps whose forms stay in the first cache for all blocks of a task: 16 KiB
constexpr int64_t kMostProducts = 65535; // 16 levels

// How many of `taps` from `start` on lie in an image of `size` rows or columns.
inline int64_t taps_inside(int64_t start, int64_t size, int64_t dilation, int64_t taps) {
  if (start >= 0 && start + (taps - 1) * dilation < size) return taps;
  const int64_t first = start >= 0 ? 0 : std::min(taps, ceil_div(-start, dilation));
  return start >= size ? 0 : std::max<int64_t>(std::min(taps, (size - 1 - start) / dilation + 1) - first, 0);
}

}  // namespace

struct Layer::FormPlan {
  int64_t pitch, positions;                   // of one image of one phase
  int64_t plane, image_bytes, phase_bytes;    // planes: [phase][image][word][kPixelForms][plane]
  int64_t plane_bytes;                        // all of them
  int64_t words, steps, blocks;               // blocks of an image
  int levels;
  bool blank;                                 // padding counts nothing
};

struct Layer::FormTask {
  int64_t image, block, blocks, unit0, unit1;
  const uint8_t* planes;
  const int64_t* offset;
  Outputs out;
};

// One group, rows of words on this instruction set and a product that 16 levels hold.
void Layer::choose_forms(Isa isa) {
  const bool fits = g_.groups == 1 && tree_.nodes.empty() && g_.kh * g_.kw * g_.in_channels <= kMostProducts;
  forms_ = fits && isa == Isa::kAvx512Vnni && kernels_->layout == Layout::kWords ? form_kernels() : nullptr;
  if (forms_ == nullptr) return;
  f_.small = small_results();
  block_bytes_ = g_.kh * g_.kw * words_of(g_.in_channels) * kChannelForms * kBlock;
  form_taps_.clear();
  form_phases_.clear();
  for (int64_t tap = 0; tap < g_.kh * g_.kw; ++tap) {
    const int64_t y = tap / g_.kw * g_.dil_h, x = tap % g_.kw * g_.dil_w;
    const FormPhase phase = {y % g_.stride_h, x % g_.stride_w};
    size_t i = 0;
    while (i < form_phases_.size() && (form_phases_[i].row != phase.row || form_phases_[i].column != phase.column)) ++i;
    if (i == form_phases_.size()) form_phases_.push_back(phase);
    form_taps_.push_back({static_cast<int64_t>(i), y / g_.stride_h, x / g_.stride_w});
  }
}

// No result before rounding reaches 2^30.
bool Layer::small_results() const {
  if (f_.mult == nullptr) return false;
  const double most = static_cast<double>(g_.kh * g_.kw * g_.in_channels);
  double largest = 0;
  for (int64_t c = 0; c < g_.out_channels; ++c) largest = std::max(largest, std::abs(f_.mult[c]) * most + (f_.bias == nullptr ? 0.0 : std::abs(f_.bias[c])));
  return largest + 255.0 * std::abs(f_.r_mult) < 1 << 30;
}

Layer::FormPlan Layer::form_plan(const Extent& e) const {
  FormPlan p;
  const int64_t below = (g_.kh - 1) * g_.dil_h / g_.stride_h, right = (g_.kw - 1) * g_.dil_w / g_.stride_w;
  const int64_t shared = g_.stride_w == 1 ? std::min(std::min(g_.pad_left, g_.pad_right), right) : 0;
  p.pitch = e.ow + right - shared;
  p.positions = (e.oh + below) * p.pitch + shared;
  p.plane = (ceil_div(p.positions, kFormWords) * kFormWords + 2 * kFormWords) | 64;  // an odd number of lines: planes take turns in the cache's sets
  p.words = words_of(g_.in_channels);
  p.steps = g_.kh * g_.kw * p.words;
  p.image_bytes = p.words * kPixelForms * p.plane;
  p.phase_bytes = e.n * p.image_bytes;
  p.plane_bytes = static_cast<int64_t>(align_up(static_cast<size_t>(static_cast<int64_t>(form_phases_.size()) * p.phase_bytes)));
  p.blocks = ceil_div((e.oh - 1) * p.pitch + e.ow, kFormPixels);
  p.levels = 1;
  while (g_.kh * g_.kw * g_.in_channels >> p.levels != 0) ++p.levels;
  p.blank = zero_padded();
  return p;
}

size_t Layer::form_scratch_bytes(const Extent& e) const {
  const FormPlan p = form_plan(e);
  return static_cast<size_t>(p.plane_bytes) + align_up(static_cast<size_t>(p.steps) * sizeof(int64_t));
}

// kFormWords words of x from a position on, padding with them; returns which of them are inside the image.
uint64_t Layer::form_words(const FormPlan& p, const Extent& e, const uint64_t* x, const FormPhase& phase, int64_t position, int64_t word, uint64_t* to) const {
  uint64_t pad, found = 0;
  std::memcpy(&pad, pad_pixel_.data() + word * 8, 8);
  int64_t row = position / p.pitch, column = position % p.pitch;
  for (int64_t at = 0; at < kFormWords; ++row, column = 0) {
    const int64_t n = std::min(kFormWords - at, p.pitch - column), y = row * g_.stride_h + phase.row - g_.pad_top;
    const int64_t first = column * g_.stride_w + phase.column - g_.pad_left;
    int64_t before = n, inside = 0;
    if (y >= 0 && y < e.h) {
      before = std::min(n, first < 0 ? ceil_div(-first, g_.stride_w) : int64_t{0});
      const int64_t start = first + before * g_.stride_w;
      inside = start < e.w ? std::min(n - before, ceil_div(e.w - start, g_.stride_w)) : 0;
      const uint64_t* from = x + (y * e.w + start) * p.words + word;
      for (int64_t i = 0, step = g_.stride_w * p.words; i < inside; ++i) to[at + before + i] = from[i * step];
      if (inside > 0) found |= (~uint64_t{0} >> (kFormWords - inside)) << (at + before);
    }
    std::fill(to + at, to + at + before, pad);
    std::fill(to + at + before + inside, to + at + n, pad);
    at += n;
  }
  return found;
}

void Layer::form_planes(const FormPlan& p, const Extent& e, const uint64_t* x, uint8_t* planes, ThreadPool& pool) const {
  const int64_t chunks = ceil_div(p.positions, kFormWords), phases = static_cast<int64_t>(form_phases_.size());
  pool.parallel_for(phases * e.n * chunks, [&](int64_t task, int) {
    const int64_t chunk = task % chunks, image = task / chunks % e.n, phase = task / chunks / e.n;
    uint64_t words[kFormWords];
    for (int64_t word = 0; word < p.words; ++word) {
      const uint64_t inside =
          form_words(p, e, x + image * e.h * e.w * p.words, form_phases_[static_cast<size_t>(phase)], chunk * kFormWords, word, words);
      uint8_t* to = planes + phase * p.phase_bytes + image * p.image_bytes + word * kPixelForms * p.plane + chunk * kFormWords;
      forms_->pixels(words, p.blank ? inside : ~uint64_t{0}, to, p.plane);
    }
  });
}

// The outputs among the task's pixels, in runs that end where a block or a row does, and the base of each.
int64_t Layer::form_runs(const FormPlan& p, const Extent& e, const FormTask& task, FormRun* runs, int32_t* base) const {
  const int64_t most = task.blocks * kFormPixels;
  const int64_t left = ceil_div(g_.pad_left, g_.stride_w), reach = (g_.kw - 1) * g_.dil_w - g_.pad_left;  // columns with all taps inside
  const int64_t right = e.w > reach ? ceil_div(e.w - reach, g_.stride_w) : 0;
  int64_t n = 0, oy = task.block * kFormPixels / p.pitch, ox = task.block * kFormPixels % p.pitch;
  for (int64_t i = 0; i < most && oy < e.oh;) {
    if (ox >= e.ow) {
      i += p.pitch - ox;
      ox = 0;
      ++oy;
      continue;
    }
    const int64_t count = std::min(std::min(kFormPixels - i % kFormPixels, e.ow - ox), most - i);
    runs[n++] = {static_cast<int>(i), static_cast<int>(count), (task.image * e.oh + oy) * e.ow + ox};
    const int64_t rows = p.blank ? taps_inside(oy * g_.stride_h - g_.pad_top, e.h, g_.dil_h, g_.kh) : g_.kh;
    std::fill(base + i, base + i + count, static_cast<int32_t>(g_.in_channels * rows * g_.kw));
    const bool edge = p.blank && (ox < left || ox + count > right);
    for (int64_t j = 0; edge && j < count; ++j) {
      if (ox + j >= left && ox + j < right) continue;
      base[i + j] = static_cast<int32_t>(g_.in_channels * rows * taps_inside((ox + j) * g_.stride_w - g_.pad_left, e.w, g_.dil_w, g_.kw));
    }
    i += count;
    ox += count;
  }
  return n;
}

void Layer::form_task(const FormPlan& p, const Extent& e, const FormTask& task) const {
  constexpr int64_t kPixels = kTaskBlocks * kFormPixels;
  alignas(64) uint64_t counters[kTaskBlocks][kLevels * 8];
  int32_t base[kPixels];
  FormRun runs[kPixels];
  FormTile tile = {};
  tile.plane = p.plane;
  tile.levels = p.levels;
  FormResult result = {};
  result.counters = counters[0];
  result.levels = p.levels;
  result.runs = runs;
  result.n_runs = form_runs(p, e, task, runs, base);
  result.base = base;
  result.even = g_.in_channels % 2 == 0;
  result.out_stride = g_.out_channels;
  result.bit_stride = words_of(g_.out_channels);
  for (int64_t unit = task.unit0; unit < task.unit1; ++unit) {
    for (int64_t step = 0; step < p.steps; step += tile.steps) {
      tile.fresh = step == 0;
      tile.steps = std::min(kChunkSteps, p.steps - step);
      tile.offset = task.offset + step;
      tile.w = packed_.data() + unit * block_bytes_ + step * kChannelForms * kBlock;
      // The next chunk, of this unit or the next, is asked for a piece before every tile: forms of 512 channels are 0.8 MB, which come from the
      // third cache or from memory.
      const uint8_t *ahead = tile.w + tile.steps * kChannelForms * kBlock, *last = packed_.data() + task.unit1 * block_bytes_;
      const int64_t piece = ceil_div(tile.steps * kChannelForms, ceil_div(task.blocks, 2)) * 64;
      for (int64_t b = 0; b < task.blocks; b += tile.blocks) {
        for (const uint8_t* end = std::min(last, ahead + piece); ahead < end; ahead += 64) __builtin_prefetch(ahead, 0, 2);
        tile.blocks = static_cast<int>(std::min<int64_t>(2, task.blocks - b));
        tile.x = task.planes + (task.block + b) * kFormPixels;
        tile.counters = counters[b];
        forms_->add(tile);
      }
    }
    result.channel = unit * kBlock;
    result.columns = static_cast<int>(std::min<int64_t>(kBlock, g_.out_channels - result.channel));
    result.flip = flip_[static_cast<size_t>(unit)];
    result.ones = f_.zero_one ? ones_.data() + unit * kBlock : nullptr;
    const int64_t bytes = result.channel * (f_.out_f32 ? 4 : 1);
    result.out = f_.out_bits ? nullptr : static_cast<uint8_t*>(task.out.out) + bytes;
    result.residual = task.out.residual == nullptr ? nullptr : static_cast<const uint8_t*>(task.out.residual) + bytes;
    result.bits = task.out.bits == nullptr ? nullptr : task.out.bits + unit;
    forms_->finish(f_, result);
  }
}

void Layer::run_forms(const Extent& e, const uint64_t* x, const Outputs& out, uint8_t* scratch, ThreadPool& pool) const {
  const FormPlan p = form_plan(e);
  int64_t* offset = reinterpret_cast<int64_t*>(scratch + p.plane_bytes);
  const int64_t taps = g_.kh * g_.kw;
  for (int64_t step = 0; step < p.steps; ++step) {
    const FormTap& tap = form_taps_[static_cast<size_t>(step % taps)];
    offset[step] = tap.phase * p.phase_bytes + step / taps * kPixelForms * p.plane + tap.row * p.pitch + tap.column;
  }
  form_planes(p, e, x, scratch, pool);
  const int64_t parts = ceil_div(p.blocks, kTaskBlocks), each = ceil_div(p.blocks, parts), units = group_blocks_;
  const int64_t wanted = pool.threads() > 1 ? pool.threads() * 4 : 1;
  const int64_t unit_parts = std::min(units, ceil_div(wanted, e.n * parts)), unit_blocks = ceil_div(units, unit_parts);
  pool.parallel_for(e.n * parts * unit_parts, [&](int64_t index, int) {
    FormTask task;
    task.image = index / parts % e.n;
    task.block = index % parts * each;
    task.blocks = std::min(each, p.blocks - task.block);
    task.unit0 = index / (parts * e.n) * unit_blocks;
    task.unit1 = std::min(units, task.unit0 + unit_blocks);
    task.planes = scratch + task.image * p.image_bytes;
    task.offset = offset;
    task.out = out;
    form_task(p, e, task);
  });
}

}  // namespace bgemm
}  // namespace netsuke
