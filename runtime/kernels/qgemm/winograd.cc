// The driver of the exact integer Winograd convolution (winograd_exact.cc has the mathematics): packs U once, then cuts the tiles of an image
// into blocks whose V stays in L2 and multiplies a block panel by panel.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/qgemm/winograd.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int64_t kBlockBytes = 288 << 10;  // of transformed input a task holds, in L2; 160 KiB: 25 % slower at 7x7, 512 channels
constexpr int64_t kMaxTiles = 48;           // per block
constexpr int64_t kTilesAlone = 24;         // the same for one thread, 1 to 3 % faster
constexpr int64_t kTilesAtOnce = 4;         // transformed by a task where blocks are shared
constexpr int64_t kRegisterBytes = 64;      // channels of V are padded to the widest register
constexpr size_t kNear = 128 << 10;         // of U that is not fetched ahead: it stays in L2
constexpr int64_t kVPad = 64;               // bytes between positions of V: at multiples of 4 KiB all of a tile's would share a few sets of L1

// Neighbouring tiles from left to right, then down, then of the next image.
struct Place {
  int64_t tx, ty, image;
};

// Past `run` tiles of a row.
void next(int64_t tiles_x, int64_t tiles_y, int64_t run, Place* p) {
  p->tx += run;
  if (p->tx < tiles_x) return;
  p->tx = 0;
  if (++p->ty < tiles_y) return;
  p->ty = 0;
  ++p->image;
}

class Winograd final : public Algorithm {
 public:
  Winograd(int out, bool narrow) : out_(out), in_(out + 2), narrow_(narrow), element_(narrow ? 1 : 2) {}
  Status build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int threads) override;
  size_t scratch_bytes(const Extent& e, int threads) const override {
    const Blocks b = blocks(e, threads);
    return static_cast<size_t>((b.shared ? b.tile_blocks : std::max(threads, 1)) * b.v_bytes + std::max(threads, 1) * b.thread_bytes);
  }
  void run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const override;
  std::string name() const override {
    return std::string(set_->isa) + "_winograd" + std::to_string(out_) + (narrow_ ? "_narrow_" : "_") + std::to_string(set_->rows) + "x" +
           std::to_string(set_->width);
  }
  size_t packed_bytes() const override { return packed_.bytes() + (init_.size() + start_.size()) * sizeof(int32_t); }

 private:
  struct Blocks {
    int64_t tiles_y, tiles_x, tiles;      // of all images
    int64_t block, tile_blocks;           // tiles of a block
    int64_t at_once;                      // tiles of a block that M holds
    int64_t v_stride;                     // elements between positions
    bool shared;                          // all threads transform, then share the panels of all blocks; else a block is a task
    int64_t v_bytes, m_bytes;             // of a block
    int64_t thread_bytes;                 // M and a patch
  };
  Blocks blocks(const Extent& e, int threads) const;
  Place place(const Blocks& b, int64_t tile) const { return {tile % b.tiles_x, tile / b.tiles_x % b.tiles_y, tile / (b.tiles_x * b.tiles_y)}; }
  void pack(const Weights& weights);
  void transform(const Blocks& b, const Extent& e, int64_t first, int64_t end, const uint8_t* x, uint8_t* patch, uint8_t* v) const;
  void multiply(const Blocks& b, const Extent& e, int64_t block, int64_t panel0, int64_t panel1, const uint8_t* v, int32_t* m,
                const void* residual, void* out) const;
  void products(const WinogradProduct& p) const;
  void store(const Blocks& b, const Extent& e, int64_t tile0, int64_t tiles, int64_t panel, const int32_t* m, const void* residual,
             void* out) const;

  int out_, in_;
  bool narrow_;
  int64_t element_;  // bytes of V and U
  Geometry g_;
  Requant q_;
  const Kernels* kernels_ = nullptr;
  const TileSet* set_ = nullptr;
  int64_t groups_ = 0, channels_ = 0, panels_ = 0, position_bytes_ = 0;
  void (*input_)(const WinogradInput&) = nullptr;
  void (*output_)(const WinogradOutput&) = nullptr;
  void (*product_)(const WinogradProduct&) = nullptr;  // null: the set's tiles, position by position
  Buffer packed_;               // [panel][position][group][width][2] s16, [4] s8
  std::vector<int32_t> init_;   // [panels * width], added to sums
  std::vector<int32_t> start_;  // [panels][position][width], of accumulators; one row of zeros where V is exact
};

Status Winograd::build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int) {
  g_ = g;
  q_ = q;
  kernels_ = &kernels;
  set_ = narrow_ ? kernels.winograd_narrow_set : kernels.winograd_set;
  product_ = narrow_ ? kernels.winograd_product_narrow : kernels.winograd_product;
  input_ = out_ == 4 ? kernels.winograd_input4 : kernels.winograd_input2;
  if (narrow_) input_ = out_ == 3 ? kernels.winograd_input3_narrow : kernels.winograd_input_narrow;
  output_ = out_ == 3 ? kernels.winograd_output3 : out_ == 4 ? kernels.winograd_output4 : kernels.winograd_output2;
  groups_ = ceil_div(g.in_channels, group_of(set_->layout));
  channels_ = round_up(g.in_channels, kRegisterBytes / element_);
  panels_ = ceil_div(g.out_channels, set_->width);
  position_bytes_ = groups_ * set_->width * 4;
  NETSUKE_TRY(packed_.allocate_shared(static_cast<size_t>(panels_ * in_ * in_ * position_bytes_)));
  std::memset(packed_.data(), 0, packed_.bytes());
  init_.assign(static_cast<size_t>(panels_ * set_->width), 0);
  for (int64_t o = 0; weights.acc_bias != nullptr && o < g.out_channels; ++o) init_[static_cast<size_t>(o)] = weights.acc_bias[o];
  start_.assign(static_cast<size_t>(narrow_ ? panels_ * in_ * in_ * set_->width : set_->width), 0);
  pack(weights);
  return Status();
}

void Winograd::pack(const Weights& weights) {
  const int64_t c = g_.in_channels, width = set_->width;
  const int group = group_of(set_->layout);
  alignas(64) int16_t g[9 * kWinogradLanes], u[kWinogradPositions * kWinogradLanes];
  for (int64_t o = 0; o < g_.out_channels; ++o) {
    const int64_t panel = o / width;
    uint8_t* base = packed_.data() + panel * in_ * in_ * position_bytes_ + o % width * 4;
    for (int64_t first = 0; first < c; first += kWinogradLanes) {
      gather_weights(g_, weights, o, first, g);
      transform_weights(out_, g, u);
      for (int64_t position = 0; position < in_ * in_; ++position) {
        const int16_t* from = u + position * kWinogradLanes;
        uint8_t* dst = base + position * position_bytes_ + first / group * width * 4;
        int32_t sum = 0;
        for (int64_t i = 0; i < std::min<int64_t>(kWinogradLanes, c - first); ++i) {
          uint8_t* to = dst + i / group * width * 4 + i % group * element_;
          if (narrow_) {
            *to = static_cast<uint8_t>(from[i]);
          } else {
            std::memcpy(to, from + i, 2);
          }
          sum += from[i];
        }
        // What V holds at a position beyond its value: the set's zero of it (winograd_exact.cc).
        const int32_t zero = position == in_ + 1 ? 4 * g_.x_zero : 0, offset = out_ == 2 && position == in_ + 1 ? 0 : 128;
        const int32_t extra = zero_shift(set_->layout, zero + offset);
        if (narrow_) start_[static_cast<size_t>((panel * in_ * in_ + position) * width + o % width)] -= extra * sum;
      }
    }
  }
}

Winograd::Blocks Winograd::blocks(const Extent& e, int threads) const {
  Blocks b;
  b.tiles_y = ceil_div(e.oh, out_);
  b.tiles_x = ceil_div(e.ow, out_);
  b.tiles = e.n * b.tiles_y * b.tiles_x;
  const int64_t positions = in_ * in_, tiles = std::max<int64_t>(b.tiles, 1);
  // With products of their own M holds few tiles whatever the block, and a block may be as large as L2 allows.
  const int64_t most = product_ != nullptr ? tiles : threads > 1 ? kMaxTiles : kTilesAlone;
  const int64_t block = std::min(std::max<int64_t>(kBlockBytes / (positions * channels_ * element_), set_->rows), most);
  b.tile_blocks = ceil_div(tiles, block);
  b.shared = threads > 1 && b.tile_blocks <= threads;
  if (b.shared) {
    b.tile_blocks = std::max(b.tile_blocks, std::min<int64_t>(threads, tiles / set_->rows));
  } else if (threads > 1) {
    // An equal number for each thread; with five of 40 tiles the second of two threads waited for a fifth of the layer. More and smaller ones
    // even out a slow core better but read U more often: 0.97x.
    b.tile_blocks = std::max(b.tile_blocks, std::min(round_up(b.tile_blocks, threads), tiles / set_->rows));
  }
  b.block = ceil_div(tiles, b.tile_blocks);
  b.tile_blocks = ceil_div(tiles, b.block);
  b.at_once = product_ != nullptr ? std::min<int64_t>(set_->rows, b.block) : b.block;
  b.v_stride = b.block * channels_ + kVPad / element_;
  b.v_bytes = static_cast<int64_t>(align_up(static_cast<size_t>(positions * b.v_stride * element_ + kSlack)));
  b.m_bytes = positions * b.at_once * set_->width * 4;
  b.thread_bytes = b.m_bytes + static_cast<int64_t>(align_up(static_cast<size_t>(positions * g_.in_channels + kSlack)));
  return b;
}

// The input of tiles `first` to `end` of a block, v being the block's. Tiles at the border, and those whose vectors would read past the end of
// x, are transformed from a copy with the padding written out.
void Winograd::transform(const Blocks& b, const Extent& e, int64_t first, int64_t end, const uint8_t* x, uint8_t* patch, uint8_t* v) const {
  const int64_t c = g_.in_channels, size = e.n * e.h * e.w * c;
  Place p = place(b, first);
  WinogradInput in;
  in.zero = g_.x_zero;
  in.pixel_stride = c;
  in.channels = channels_;
  in.v_stride = b.v_stride;
  uint8_t* to = v + first % b.block * channels_ * element_;
  for (int64_t tile = first; tile < end; ++tile, to += channels_ * element_) {
    const int64_t y = p.ty * out_ - g_.pad_top, left = p.tx * out_ - g_.pad_left;
    const int64_t at = ((p.image * e.h + y) * e.w + left) * c;
    const bool inside = y >= 0 && left >= 0 && y + in_ <= e.h && left + in_ <= e.w;
    in.v = to;
    if (inside && at + ((in_ - 1) * e.w + in_ - 1) * c + channels_ <= size) {
      in.x = x + at;
      in.row_stride = e.w * c;
    } else {
      const int64_t from = std::min<int64_t>(std::max<int64_t>(-left, 0), in_);
      const int64_t until = std::max(std::min<int64_t>(e.w - left, in_), from);
      std::memset(patch, g_.x_zero, static_cast<size_t>(in_ * in_ * c));
      for (int64_t i = 0; i < in_; ++i) {
        if (y + i < 0 || y + i >= e.h || until == from) continue;
        std::memcpy(patch + (i * in_ + from) * c, x + (at + (i * e.w + from) * c), static_cast<size_t>((until - from) * c));
      }
      in.x = patch;
      in.row_stride = in_ * c;
    }
    input_(in);
    next(b.tiles_x, b.tiles_y, 1, &p);
  }
}

void Winograd::store(const Blocks& b, const Extent& e, int64_t tile0, int64_t tiles, int64_t panel, const int32_t* m, const void* residual,
                     void* out) const {
  const int64_t element = q_.out_f32 ? 4 : 1, channel = panel * set_->width;
  Place p = place(b, tile0);
  WinogradOutput o = {};
  o.m_stride = tiles * set_->width;
  o.init = init_.data() + channel;
  o.image_width = e.ow;
  o.tile.rows = 1;
  o.tile.columns = static_cast<int>(std::min<int64_t>(set_->width, g_.out_channels - channel));
  o.tile.requant = &q_;
  o.tile.channel = channel;
  o.tile.out_stride = g_.out_channels;
  for (int64_t t = 0; t < tiles;) {
    const int64_t run = std::min(tiles - t, b.tiles_x - p.tx);
    const int64_t at = (((p.image * e.oh + p.ty * out_) * e.ow + p.tx * out_) * g_.out_channels + channel) * element;
    o.m = m + t * set_->width;
    o.tiles = static_cast<int>(run);
    o.rows = static_cast<int>(std::min<int64_t>(out_, e.oh - p.ty * out_));
    o.columns = static_cast<int>(std::min(run * out_, e.ow - p.tx * out_));
    o.tile.out = static_cast<uint8_t*>(out) + at;
    o.tile.residual = residual == nullptr ? nullptr : static_cast<const uint8_t*>(residual) + at;
    output_(o);
    t += run;
    next(b.tiles_x, b.tiles_y, run, &p);
  }
}

// The products of one call by tiles of the set.
void Winograd::products(const WinogradProduct& p) const {
  const int64_t zero_offset = 0, width = set_->width, calls = ceil_div(p.tiles, set_->rows);
  const void* rows[kMaxRows];
  Tile tile = {};
  tile.a = rows;
  tile.run_offset = &zero_offset;
  tile.runs = 1;
  tile.groups = p.groups;
  tile.columns = static_cast<int>(width);
  tile.out_stride = width;
  tile.ahead_step = ceil_div(p.b_stride, calls * p.groups);
  for (int64_t position = 0; position < p.positions; ++position) {
    tile.b = p.b + position * p.b_stride;
    tile.init = p.init + position * p.init_stride;
    tile.ahead = reinterpret_cast<uintptr_t>(tile.b) + static_cast<uintptr_t>(p.b_stride);  // what the next position reads
    for (int64_t call = 0; call < calls; ++call) {
      const int64_t t0 = p.tiles * call / calls, t1 = p.tiles * (call + 1) / calls;
      tile.rows = static_cast<int>(t1 - t0);
      const uint8_t* v = static_cast<const uint8_t*>(p.v) + (position * p.v_stride + t0 * p.channels) * element_;
      for (int64_t r = 0; r < tile.rows; ++r) rows[r] = v + r * p.channels * element_;
      tile.out = p.m + (position * p.tiles + t0) * width;
      set_->fn[tile.rows - 1](tile);
      tile.ahead += static_cast<uintptr_t>(p.groups * tile.ahead_step);
    }
  }
}

// The panels panel0 to panel1 of a block.
void Winograd::multiply(const Blocks& b, const Extent& e, int64_t block, int64_t panel0, int64_t panel1, const uint8_t* v, int32_t* m,
                        const void* residual, void* out) const {
  const int64_t tile0 = block * b.block, tiles = std::min(b.block, b.tiles - tile0), calls = ceil_div(tiles, b.at_once);
  WinogradProduct p = {};
  p.v_stride = b.v_stride;
  p.channels = channels_;
  p.groups = groups_;
  p.b_stride = position_bytes_;
  p.init_stride = narrow_ ? set_->width : 0;
  p.m = m;
  p.positions = in_ * in_;
  const int64_t panel_bytes = p.positions * position_bytes_;
  p.ahead_step = packed_.bytes() > kNear ? ceil_div(position_bytes_, calls * groups_) : 0;
  for (int64_t panel = panel0; panel < panel1; ++panel) {
    p.b = packed_.data() + panel * panel_bytes;
    p.init = start_.data() + (narrow_ ? panel * p.positions * set_->width : 0);
    p.ahead = reinterpret_cast<uintptr_t>(p.b) + static_cast<uintptr_t>(panel_bytes);  // what the next panel reads
    for (int64_t call = 0; call < calls; ++call) {
      const int64_t t0 = tiles * call / calls, t1 = tiles * (call + 1) / calls;
      p.tiles = static_cast<int>(t1 - t0);
      p.v = v + t0 * channels_ * element_;
      if (product_ != nullptr) {
        product_(p);
      } else {
        products(p);
      }
      p.ahead += static_cast<uintptr_t>(p.positions * groups_ * p.ahead_step);
      store(b, e, tile0 + t0, p.tiles, panel, m, residual, out);
    }
  }
}

void Winograd::run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const {
  if (e.n == 0) return;
  const Blocks b = blocks(e, pool.threads());
  uint8_t* blocks_of_v = static_cast<uint8_t*>(scratch);
  uint8_t* threads = blocks_of_v + (b.shared ? b.tile_blocks : pool.threads()) * b.v_bytes;
  const auto v_at = [&](int64_t i) { return blocks_of_v + i * b.v_bytes; };
  const auto m_of = [&](int thread) { return reinterpret_cast<int32_t*>(threads + thread * b.thread_bytes); };
  const auto patch_of = [&](int thread) { return threads + thread * b.thread_bytes + b.m_bytes; };
  if (b.shared) {
    const int64_t parts = ceil_div(b.block, kTilesAtOnce);  // of a block
    pool.parallel_for(b.tile_blocks * parts, [&](int64_t task, int thread) {
      const int64_t block = task / parts, end = std::min((block + 1) * b.block, b.tiles);
      const int64_t first = block * b.block + task % parts * kTilesAtOnce;
      transform(b, e, first, std::min(first + kTilesAtOnce, end), x, patch_of(thread), v_at(block));
    });
    pool.parallel_for(b.tile_blocks * panels_, [&](int64_t task, int thread) {
      const int64_t block = task / panels_, panel = task % panels_;
      multiply(b, e, block, panel, panel + 1, v_at(block), m_of(thread), residual, out);
    });
    return;
  }
  pool.parallel_for(b.tile_blocks, [&](int64_t block, int thread) {
    transform(b, e, block * b.block, std::min((block + 1) * b.block, b.tiles), x, patch_of(thread), v_at(thread));
    multiply(b, e, block, 0, panels_, v_at(thread), m_of(thread), residual, out);
  });
}

}  // namespace

std::unique_ptr<Algorithm> make_winograd(const std::string& way) {
  return std::make_unique<Winograd>(way[8] - '0', way.size() > 9);  // winograd<out> or winograd<out>_narrow
}

}  // namespace qgemm
}  // namespace netsuke
