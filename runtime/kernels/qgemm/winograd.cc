// Exact integer Winograd convolution for 3x3, stride 1: F(4x4, 3x3) needs 36 products for 16 outputs where the definition needs 144,
// F(2x2, 3x3) 16 instead of 36, and every step is an integer operation, so the result is the same int32 sum bit for bit.
//
//   V = B^T d B           d: 6x6 inputs x - x_zero (9 bits). Rows of B^T have absolute sum <= 10, of mixed sign: |V| <= 68 * 255 =
//                         17340, an int16.
//   U = U' g U'^T         the usual G of F(4, 3) has denominators; U' holds its rows times (4, -6, -6, 24, 24, 6), integers:
//                         (6 0 0) (-1 -1 -1) (-1 1 -1) (1 2 4) (1 -2 4) (0 0 6). Absolute sums <= 7: |U| <= 49 * 128 = 6272, an int16.
//   M = sum_c U * V       36 independent matrix products of int16 into int32, modulo 2^32 (kS16x2 tiles).
//   Z = A'^T M A'         A'^T = A^T diag(1, 4, 4, 1, 1, 4) with rows divided by (1, 2, 4, 4): small integers, modulo 2^32.
//   sum = Z / (9 * 2^s)   Z[i][j] = 576 / (f_i f_j) * sum exactly, so multiply by the inverse of 9 modulo 2^32 and shift right
//                         arithmetically by s = 6 - log2(f_i f_j). That recovers the sum whenever 64 * |sum| < 2^31.
//
// The last condition is what build() proves from the weights: no input can give a channel a sum of 2^25 or more (2^29 for F(2x2)).
// Trained layers stay far below (512 channels of weights with mean magnitude 20 reach 0.5 * 2^25); a layer that does not is
// computed by the direct product.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/qgemm/gemm.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int64_t kBlockBytes = 288 << 10;  // of transformed input a task holds, in L2; 160 KiB: 25 % slower at 7x7, 512 channels
constexpr int64_t kMaxTiles = 48;           // per block
constexpr int64_t kTilesAlone = 24;         // the same for one thread, 1 to 3 % faster
constexpr int64_t kTilesAtOnce = 4;         // transformed by a task where blocks are shared
constexpr int64_t kChannelRound = 32;       // channels of V are padded to the widest register

// Rows of U' for F(4, 3) and F(2, 3).
constexpr int kU4[6][3] = {{6, 0, 0}, {-1, -1, -1}, {-1, 1, -1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 6}};
constexpr int kU2[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};

// U of 16 channels at a time: g is [9][16], u is [in * in][16].
template <int kIn>
void transform_weights(const int (&rows)[kIn][3], const int16_t* g, int16_t* u) {
  int16_t half[kIn][3][16];
  for (int i = 0; i < kIn; ++i) {
    for (int x = 0; x < 3; ++x) {
      for (int c = 0; c < 16; ++c) {
        const int sum = rows[i][0] * g[x * 16 + c] + rows[i][1] * g[(3 + x) * 16 + c] + rows[i][2] * g[(6 + x) * 16 + c];
        half[i][x][c] = static_cast<int16_t>(sum);
      }
    }
  }
  for (int i = 0; i < kIn; ++i) {
    for (int j = 0; j < kIn; ++j) {
      for (int c = 0; c < 16; ++c) {
        const int sum = rows[j][0] * half[i][0][c] + rows[j][1] * half[i][1][c] + rows[j][2] * half[i][2][c];
        u[(i * kIn + j) * 16 + c] = static_cast<int16_t>(sum);
      }
    }
  }
}

class Winograd final : public Algorithm {
 public:
  explicit Winograd(int out) : out_(out), in_(out + 2) {}
  Status build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int threads) override;
  size_t scratch_bytes(const Extent& e, int threads) const override {
    const Blocks b = blocks(e, threads);
    return static_cast<size_t>((b.shared ? b.tile_blocks : std::max(threads, 1)) * b.v_bytes + std::max(threads, 1) * b.thread_bytes);
  }
  void run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const override;
  std::string name() const override {
    return std::string(set_->isa) + "_winograd" + std::to_string(out_) + "_" + std::to_string(set_->rows) + "x" +
           std::to_string(set_->width);
  }
  size_t packed_bytes() const override { return packed_.bytes() + init_.size() * sizeof(int32_t); }

 private:
  struct Blocks {
    int64_t tiles_y, tiles_x, tiles;      // of all images
    int64_t block, tile_blocks;           // tiles of a block
    bool shared;                          // all threads transform, then share the panels of all blocks; else a block is a task
    int64_t v_bytes, m_bytes;             // of a block
    int64_t thread_bytes;                 // M and a patch
  };
  Blocks blocks(const Extent& e, int threads) const;
  void pack(const Weights& weights);
  void transform(const Blocks& b, const Extent& e, int64_t first, int64_t end, const uint8_t* x, uint8_t* patch, int16_t* v) const;
  void multiply(const Blocks& b, const Extent& e, int64_t block, int64_t panel0, int64_t panel1, const int16_t* v, int32_t* m,
                const void* residual, void* out) const;
  void store_tile(const Blocks& b, const Extent& e, int64_t tile, int64_t panel, const int32_t* m, int64_t m_stride,
                  const void* residual, void* out) const;

  int out_, in_;
  Geometry g_;
  Requant q_;
  const Kernels* kernels_ = nullptr;
  const TileSet* set_ = nullptr;
  int64_t groups_ = 0, channels_ = 0, panels_ = 0, position_bytes_ = 0;
  Buffer packed_;               // [panel][position][group][width][2] s16
  std::vector<int32_t> init_;   // [panels * width]
};

Status Winograd::build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int) {
  g_ = g;
  q_ = q;
  kernels_ = &kernels;
  set_ = kernels.winograd_set;
  groups_ = ceil_div(g.in_channels, 2);
  channels_ = round_up(g.in_channels, kChannelRound);
  panels_ = ceil_div(g.out_channels, set_->width);
  position_bytes_ = groups_ * set_->width * 4;
  NETSUKE_TRY(packed_.allocate_shared(static_cast<size_t>(panels_ * in_ * in_ * position_bytes_)));
  std::memset(packed_.data(), 0, packed_.bytes());
  init_.assign(static_cast<size_t>(panels_ * set_->width), 0);
  for (int64_t o = 0; weights.acc_bias != nullptr && o < g.out_channels; ++o) init_[static_cast<size_t>(o)] = weights.acc_bias[o];
  pack(weights);
  return Status();
}

void Winograd::pack(const Weights& weights) {
  const int64_t c = g_.in_channels, width = set_->width;
  alignas(64) int16_t g[9 * 16], u[36 * 16];
  for (int64_t o = 0; o < g_.out_channels; ++o) {
    int16_t* panel = reinterpret_cast<int16_t*>(packed_.data() + o / width * in_ * in_ * position_bytes_) + o % width * 2;
    for (int64_t first = 0; first < c; first += 16) {
      const int64_t count = std::min<int64_t>(16, c - first);
      for (int tap = 0; tap < 9; ++tap) {
        const int8_t* src = weights.w + (o * 9 + tap) * c + first;
        for (int i = 0; i < 16; ++i) g[tap * 16 + i] = i < count ? src[i] : static_cast<int16_t>(0);
      }
      if (out_ == 4) {
        transform_weights(kU4, g, u);
      } else {
        transform_weights(kU2, g, u);
      }
      for (int position = 0; position < in_ * in_; ++position) {
        int16_t* dst = panel + position * (position_bytes_ / 2) + first / 2 * width * 2;
        for (int i = 0; i < (count + 1) / 2; ++i) std::memcpy(dst + i * width * 2, u + position * 16 + 2 * i, 4);
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
  const int64_t block = std::min(std::max<int64_t>(kBlockBytes / (positions * channels_ * 2), set_->rows), threads > 1 ? kMaxTiles : kTilesAlone);
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
  b.v_bytes = static_cast<int64_t>(align_up(static_cast<size_t>(positions * b.block * channels_ * 2 + kSlack)));
  b.m_bytes = positions * b.block * set_->width * 4;
  b.thread_bytes = b.m_bytes + static_cast<int64_t>(align_up(static_cast<size_t>(positions * g_.in_channels + kSlack)));
  return b;
}

// The input of tiles `first` to `end` of a block, v being the block's. Tiles at the border, and those whose vectors would read past the end of
// x, are transformed from a copy with the padding written out.
void Winograd::transform(const Blocks& b, const Extent& e, int64_t first, int64_t end, const uint8_t* x, uint8_t* patch, int16_t* v) const {
  const int64_t c = g_.in_channels, size = e.n * e.h * e.w * c;
  for (int64_t tile = first; tile < end; ++tile) {
    const int64_t block = tile / b.block, tiles = std::min(b.block, b.tiles - block * b.block);
    const int64_t tx = tile % b.tiles_x, ty = tile / b.tiles_x % b.tiles_y, image = tile / (b.tiles_x * b.tiles_y);
    const int64_t y = ty * out_ - g_.pad_top, left = tx * out_ - g_.pad_left;
    const int64_t at = ((image * e.h + y) * e.w + left) * c;
    const bool inside = y >= 0 && left >= 0 && y + in_ <= e.h && left + in_ <= e.w;
    WinogradInput in;
    in.zero = g_.x_zero;
    in.pixel_stride = c;
    in.channels = channels_;
    in.v_stride = tiles * channels_;
    in.v = v + (tile - block * b.block) * channels_;
    if (inside && at + ((in_ - 1) * e.w + in_ - 1) * c + channels_ <= size) {
      in.x = x + at;
      in.row_stride = e.w * c;
    } else {
      const int64_t from = std::min<int64_t>(std::max<int64_t>(-left, 0), in_);
      const int64_t to = std::max(std::min<int64_t>(e.w - left, in_), from);
      std::memset(patch, g_.x_zero, static_cast<size_t>(in_ * in_ * c));
      for (int64_t i = 0; i < in_; ++i) {
        if (y + i < 0 || y + i >= e.h || to == from) continue;
        std::memcpy(patch + (i * in_ + from) * c, x + (at + (i * e.w + from) * c), static_cast<size_t>((to - from) * c));
      }
      in.x = patch;
      in.row_stride = in_ * c;
    }
    (out_ == 4 ? kernels_->winograd_input4 : kernels_->winograd_input2)(in);
  }
}

void Winograd::store_tile(const Blocks& b, const Extent& e, int64_t tile, int64_t panel, const int32_t* m, int64_t m_stride,
                          const void* residual, void* out) const {
  const int64_t tx = tile % b.tiles_x, ty = tile / b.tiles_x % b.tiles_y, image = tile / (b.tiles_x * b.tiles_y);
  const int64_t element = q_.out_f32 ? 4 : 1, channel = panel * set_->width;
  const int64_t at = (((image * e.oh + ty * out_) * e.ow + tx * out_) * g_.out_channels + channel) * element;
  WinogradOutput o = {};
  o.m = m;
  o.m_stride = m_stride;
  o.init = init_.data() + channel;
  o.rows = static_cast<int>(std::min<int64_t>(out_, e.oh - ty * out_));
  o.columns = static_cast<int>(std::min<int64_t>(out_, e.ow - tx * out_));
  o.image_width = e.ow;
  o.tile.rows = 1;
  o.tile.columns = static_cast<int>(std::min<int64_t>(set_->width, g_.out_channels - channel));
  o.tile.requant = &q_;
  o.tile.channel = channel;
  o.tile.out = static_cast<uint8_t*>(out) + at;
  o.tile.out_stride = g_.out_channels;
  o.tile.residual = residual == nullptr ? nullptr : static_cast<const uint8_t*>(residual) + at;
  (out_ == 4 ? kernels_->winograd_output4 : kernels_->winograd_output2)(o);
}

// The panels panel0 to panel1 of a block.
void Winograd::multiply(const Blocks& b, const Extent& e, int64_t block, int64_t panel0, int64_t panel1, const int16_t* v, int32_t* m,
                        const void* residual, void* out) const {
  const int64_t tile0 = block * b.block, tiles = std::min(b.block, b.tiles - tile0);
  const int64_t zero_offset = 0, width = set_->width, calls = ceil_div(tiles, set_->rows);
  alignas(64) static const int32_t kZeros[kWinogradMaxWidth] = {};
  const void* rows[kMaxRows];
  Tile tile = {};
  tile.a = rows;
  tile.run_offset = &zero_offset;
  tile.runs = 1;
  tile.groups = groups_;
  tile.init = kZeros;
  tile.columns = static_cast<int>(width);
  tile.out_stride = width;
  tile.ahead_step = ceil_div(position_bytes_, calls * groups_);
  for (int64_t panel = panel0; panel < panel1; ++panel) {
    for (int64_t position = 0; position < in_ * in_; ++position) {
      tile.b = packed_.data() + (panel * in_ * in_ + position) * position_bytes_;
      tile.ahead = reinterpret_cast<uintptr_t>(tile.b) + static_cast<uintptr_t>(position_bytes_);  // what the next position reads
      for (int64_t call = 0; call < calls; ++call) {
        const int64_t t0 = tiles * call / calls, t1 = tiles * (call + 1) / calls;
        tile.rows = static_cast<int>(t1 - t0);
        for (int64_t r = 0; r < tile.rows; ++r) rows[r] = v + (position * tiles + t0 + r) * channels_;
        tile.out = m + (position * tiles + t0) * width;
        set_->fn[tile.rows - 1](tile);
        tile.ahead += static_cast<uintptr_t>(groups_ * tile.ahead_step);
      }
    }
    for (int64_t t = 0; t < tiles; ++t) store_tile(b, e, tile0 + t, panel, m + t * width, tiles * width, residual, out);
  }
}

void Winograd::run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const {
  if (e.n == 0) return;
  const Blocks b = blocks(e, pool.threads());
  uint8_t* blocks_of_v = static_cast<uint8_t*>(scratch);
  uint8_t* threads = blocks_of_v + (b.shared ? b.tile_blocks : pool.threads()) * b.v_bytes;
  const auto v_at = [&](int64_t i) { return reinterpret_cast<int16_t*>(blocks_of_v + i * b.v_bytes); };
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

// The largest |sum| (without acc_bias) that any input can give a channel.
int64_t largest_sum(const Geometry& g, const Weights& weights) {
  const int64_t taps = 9 * g.in_channels;
  int64_t largest = 0;
  for (int64_t o = 0; o < g.out_channels; ++o) {
    int64_t positive = 0, negative = 0;
    for (int64_t k = 0; k < taps; ++k) {
      const int32_t w = weights.w[o * taps + k];
      positive += w > 0 ? w : 0;
      negative += w < 0 ? -w : 0;
    }
    const int64_t up = std::max(g.x_hi - g.x_zero, 0), down = g.x_zero;
    largest = std::max(largest, std::max(positive * up + negative * down, negative * up + positive * down));
  }
  return largest;
}

}  // namespace

// GMAC/s of the definition's products on one Zen 3 core with AVX2 (exact direct limit 84):
//                  direct   F(2x2)   F(4x4)
//   56x56,  64       78      128      202
//   28x28, 128       78      147      241
//   14x14, 256       78      159      156-187   U of F(4x4) is 8 times the weights, of F(2x2) 3.6 times: F(2x2) is taken
//    7x7,  512       77       96       95       direct is taken: 6 MB more for 0.3 ms a layer breaks the memory promise
//   32x32,  16       72       --       68       direct is taken
// With VNNI vpdpwssd multiplies half as many pairs as vpdpbusd, so F(2x2) gains nothing; F(4x4) by the count of instructions 1.5 times.
int winograd_applies(const Geometry& g, const Weights& weights, const Kernels& kernels) {
  const bool shape = g.kh == 3 && g.kw == 3 && g.stride_h == 1 && g.stride_w == 1 && g.dil_h == 1 && g.dil_w == 1 && g.groups == 1;
  const int64_t least = kernels.winograd_least, size = g.in_channels * g.out_channels;
  if (!shape || kernels.winograd_set == nullptr || g.in_channels < least || g.out_channels < least) return 0;
  const int64_t largest = largest_sum(g, weights);
  if (size <= kernels.winograd4_most && largest < (int64_t{1} << 25)) return 4;
  return size <= kernels.winograd2_most && largest < (int64_t{1} << 29) ? 2 : 0;
}

std::unique_ptr<Algorithm> make_winograd(int out) { return std::make_unique<Winograd>(out); }

}  // namespace qgemm
}  // namespace netsuke
