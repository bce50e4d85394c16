// Bit-serial products: activations of 1 to 4 bits against weights of one magnitude, +m and -m or +m, 0 and -m, on the one-bit tiles.
//
// With x = sum_p 2^p x_p, x_p in {0, 1}, and a sign plane s in {-1, +1} whose positive bits are u:
//   sum_k x_p[k] s[k] = popcount(x_p and u) - popcount(x_p and not u) = popcount(u) - popcount(x_p xor u)
// Weights +-m are one plane, ternary ones half the sum of two (+1 +1 is 1, +1 -1 is 0, -1 -1 is -1). So every pair of planes is one pass
// of the XOR tiles, whatever the instruction set, and padding is the code x_zero like any other.
#include <algorithm>
#include <cstring>

#include "kernels/bgemm/bgemm.h"
#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int64_t kBlockRows = 256;
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kDeep = 65536;  // products that 16-bit counters cannot hold
constexpr int kMostPlanes = 4;    // pairs of planes: with more the integer tiles win everywhere

int bits_of(int32_t v) {
  int bits = 0;
  for (; v > 0; v >>= 1) ++bits;
  return bits;
}

// Bit `plane` of 8 codes, code i to bit i.
uint8_t plane_bits(const uint8_t* codes, int plane) {
  uint64_t v;
  std::memcpy(&v, codes, 8);
  return static_cast<uint8_t>(((v >> plane & 0x0101010101010101ull) * 0x0102040810204080ull) >> 56);
}

class BitSerial final : public Algorithm {
 public:
  explicit BitSerial(Isa isa) : isa_(isa) {}
  Status build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels&, int threads) override;
  size_t scratch_bytes(const Extent& e, int threads) const override;
  void run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const override;
  std::string name() const override { return std::string(kernels_->name) + "_bits" + std::to_string(x_planes_) + "x" + std::to_string(w_planes_); }
  size_t packed_bytes() const override { return packed_.bytes() + (init_.size() + base_.size()) * 4; }

 private:
  struct Image {
    int64_t hp, wp, pixel_bytes, plane_bytes, m;
  };
  Image image(const Extent& e) const;
  void pack(const Weights& weights);
  void prepare_row(const Image& im, const Extent& e, int64_t row, const uint8_t* x, uint8_t* dst) const;
  void run_rows(const Image& im, const Extent& e, int64_t m0, int64_t rows, const uint8_t* a, const int64_t* run_offset, const void* residual,
                void* out) const;

  Isa isa_;
  Geometry g_;
  bgemm::Finish f_;
  const bgemm::Kernels* kernels_ = nullptr;
  int x_planes_ = 0, w_planes_ = 0;
  int32_t magnitude_ = 0;
  int64_t tap_steps_ = 0, tap_bytes_ = 0, runs_ = 0, steps_ = 0, blocks_ = 0, block_bytes_ = 0;
  Buffer packed_;                      // [blocks][w planes] blocks of the one-bit kernels
  std::vector<int32_t> init_, base_;   // [blocks * 64]
};

Status BitSerial::build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels&, int) {
  g_ = g;
  f_.out_f32 = q.out_f32;
  f_.residual = q.residual == Residual::kNone ? 0 : 1;
  f_.zero = q.zero;
  f_.lo = q.lo;
  f_.hi = q.hi;
  f_.r_zero = q.r_zero;
  f_.r_mult = q.r_mult;
  f_.mult = q.mult;
  f_.bias = q.bias;
  x_planes_ = std::max(bits_of(g.x_hi), 1);
  w_planes_ = 1;
  for (int64_t i = 0; i < g.out_channels * g.kh * g.kw * g.in_channels; ++i) {
    magnitude_ = std::max(magnitude_, std::abs(static_cast<int32_t>(weights.w[i])));
    if (weights.w[i] == 0) w_planes_ = 2;
  }
  kernels_ = &bgemm::kernels_of(isa_, false);
  const bool words = kernels_->layout == bgemm::Layout::kWords;
  tap_steps_ = words ? ceil_div(g.in_channels, 64) : ceil_div(g.in_channels, 8);
  tap_bytes_ = words ? tap_steps_ * 8 : tap_steps_ * 2;
  const bool row_runs = g.dil_w == 1;
  runs_ = row_runs ? g.kh : g.kh * g.kw;
  steps_ = row_runs ? g.kw * tap_steps_ : tap_steps_;
  blocks_ = ceil_div(g.out_channels, bgemm::kBlock);
  block_bytes_ = g.kh * g.kw * tap_steps_ * bgemm::kBlock * (words ? 8 : 2);
  NETSUKE_TRY(packed_.allocate(static_cast<size_t>(blocks_ * w_planes_ * block_bytes_)));
  pack(weights);
  return Status();
}

void BitSerial::pack(const Weights& weights) {
  const int64_t taps = g_.kh * g_.kw, c = g_.in_channels, width = kernels_->width;
  const bool words = kernels_->layout == bgemm::Layout::kWords;
  std::memset(packed_.data(), 0, packed_.bytes());
  init_.assign(static_cast<size_t>(blocks_ * bgemm::kBlock), 0);
  base_.assign(init_.size(), 0);
  for (int64_t o = 0; o < g_.out_channels; ++o) {
    const int64_t column = o % bgemm::kBlock;
    int32_t sum = 0;
    for (int64_t k = 0; k < taps * c; ++k) sum += weights.w[o * taps * c + k];
    init_[static_cast<size_t>(o)] = (weights.acc_bias == nullptr ? 0 : weights.acc_bias[o]) - g_.x_zero * sum;
    for (int j = 0; j < w_planes_; ++j) {
      uint8_t* block = packed_.data() + (o / bgemm::kBlock * w_planes_ + j) * block_bytes_;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int8_t* w = weights.w + (o * taps + tap) * c;
        for (int64_t i = 0; i < c; ++i) {
          if (w[i] < 0 || (w[i] == 0 && j == 1)) continue;  // +1 in both planes, 0 in the first, -1 in none
          base_[static_cast<size_t>(o)] += (1 << x_planes_) - 1;
          if (words) {
            uint8_t* panel = block + column / width * (block_bytes_ / bgemm::kBlock * width);
            panel[((tap * tap_steps_ + i / 64) * width + column % width) * 8 + i % 64 / 8] |= static_cast<uint8_t>(1 << (i % 8));
          } else {
            block[(2 * (tap * tap_steps_ + i / 8) + i % 8 / 4) * bgemm::kBlock + column] |= static_cast<uint8_t>(1 << (i % 4));
          }
        }
      }
    }
  }
}

BitSerial::Image BitSerial::image(const Extent& e) const {
  Image im;
  im.hp = (e.oh - 1) * g_.stride_h + (g_.kh - 1) * g_.dil_h + 1;
  im.wp = (e.ow - 1) * g_.stride_w + (g_.kw - 1) * g_.dil_w + 1;
  im.pixel_bytes = tap_bytes_;
  im.m = e.n * e.oh * e.ow;
  im.plane_bytes = static_cast<int64_t>(align_up(static_cast<size_t>(e.n * im.hp * im.wp * im.pixel_bytes + bgemm::kSlack)));
  return im;
}

size_t BitSerial::scratch_bytes(const Extent& e, int) const {
  return static_cast<size_t>(image(e).plane_bytes) * static_cast<size_t>(x_planes_) + align_up(static_cast<size_t>(runs_) * sizeof(int64_t));
}

// One row of the padded image in every plane.
void BitSerial::prepare_row(const Image& im, const Extent& e, int64_t row, const uint8_t* x, uint8_t* dst) const {
  const int64_t c = g_.in_channels, y = row % im.hp - g_.pad_top;
  const bool inside = y >= 0 && y < e.h, words = kernels_->layout == bgemm::Layout::kWords;
  alignas(8) uint8_t codes[8], bytes[8];
  for (int64_t px = 0; px < im.wp; ++px) {
    const int64_t col = px - g_.pad_left;
    const uint8_t* from = inside && col >= 0 && col < e.w ? x + ((row / im.hp * e.h + y) * e.w + col) * c : nullptr;
    for (int64_t i = 0; i < c; i += 8) {
      const int64_t n = std::min<int64_t>(8, c - i);
      std::memset(codes, 0, 8);
      from != nullptr ? std::memcpy(codes, from + i, static_cast<size_t>(n)) : std::memset(codes, g_.x_zero, static_cast<size_t>(n));
      for (int p = 0; p < x_planes_; ++p) bytes[p] = plane_bits(codes, p);
      for (int p = 0; p < x_planes_; ++p) {
        uint8_t* to = dst + p * im.plane_bytes + (row * im.wp + px) * im.pixel_bytes;
        if (words) {
          if (i % 64 == 0) std::memset(to + i / 8, 0, 8);
          to[i / 8] = bytes[p];
        } else {
          to[i / 4] = static_cast<uint8_t>((bytes[p] & 15) * 8);
          to[i / 4 + 1] = static_cast<uint8_t>((bytes[p] >> 4) * 8);
        }
      }
    }
  }
}

void BitSerial::run_rows(const Image& im, const Extent& e, int64_t m0, int64_t rows, const uint8_t* a, const int64_t* run_offset,
                         const void* residual, void* out) const {
  int64_t base[kBlockRows];
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t m = m0 + i, ox = m % e.ow, oy = m / e.ow % e.oh, n = m / (e.ow * e.oh);
    base[i] = ((n * im.hp + oy * g_.stride_h) * im.wp + ox * g_.stride_w) * im.pixel_bytes;
  }
  // Tiles write the columns there are; sums of the others are computed too, from zeros, and left out.
  alignas(64) int32_t count[bgemm::kMaxRows * bgemm::kBlock] = {}, total[bgemm::kMaxRows * bgemm::kBlock];
  const uint8_t* pointers[bgemm::kMaxRows];
  const int64_t element = f_.out_f32 ? 4 : 1;
  bgemm::Tile tile = {};
  tile.run_offset = run_offset;
  tile.runs = runs_;
  tile.steps = steps_;
  tile.a = pointers;
  tile.count = count;
  bgemm::Result result = {};
  result.count = total;
  result.sums = true;
  result.out_stride = g_.out_channels;
  for (int64_t block = 0; block < blocks_; ++block) {
    const int64_t channel = block * bgemm::kBlock;
    tile.columns = result.columns = static_cast<int>(std::min<int64_t>(bgemm::kBlock, g_.out_channels - channel));
    result.channel = channel;
    const int32_t *init = init_.data() + channel, *ones = base_.data() + channel;
    for (int64_t r = 0; r < rows; r += kernels_->rows) {
      tile.rows = result.rows = static_cast<int>(std::min<int64_t>(kernels_->rows, rows - r));
      const int size = tile.rows * bgemm::kBlock;
      for (int p = 0; p < x_planes_; ++p) {
        for (int i = 0; i < tile.rows; ++i) pointers[i] = a + p * im.plane_bytes + base[r + i];
        for (int j = 0; j < w_planes_; ++j) {
          tile.b = packed_.data() + (block * w_planes_ + j) * block_bytes_;
          kernels_->tile(tile);
          if (p == 0 && j == 0) {
            for (int i = 0; i < size; ++i) total[i] = count[i];
          } else {
            for (int i = 0; i < size; ++i) total[i] += count[i] << p;
          }
        }
      }
      for (int i = 0; i < tile.rows; ++i) {
        int32_t* t = total + i * bgemm::kBlock;
        for (int o = 0; o < bgemm::kBlock; ++o) t[o] = init[o] + magnitude_ * ((ones[o] - t[o]) >> (w_planes_ - 1));
      }
      const int64_t at = ((m0 + r) * g_.out_channels + channel) * element;
      result.out = static_cast<uint8_t*>(out) + at;
      result.residual = residual == nullptr ? nullptr : static_cast<const uint8_t*>(residual) + at;
      kernels_->finish(f_, result);
    }
  }
}

void BitSerial::run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const {
  const Image im = image(e);
  if (im.m == 0) return;
  uint8_t* a = static_cast<uint8_t*>(scratch);
  int64_t* run_offset = reinterpret_cast<int64_t*>(a + im.plane_bytes * x_planes_);
  for (int64_t r = 0; r < runs_; ++r) {
    const int64_t ky = runs_ == g_.kh && g_.dil_w == 1 ? r : r / g_.kw, kx = runs_ == g_.kh && g_.dil_w == 1 ? 0 : r % g_.kw;
    run_offset[r] = (ky * g_.dil_h * im.wp + kx * g_.dil_w) * im.pixel_bytes;
  }
  const int64_t image_rows = e.n * im.hp, chunk = std::max<int64_t>((16 << 10) / std::max<int64_t>(im.wp * g_.in_channels, 1), 1);
  pool.parallel_for(ceil_div(image_rows, chunk), [&](int64_t task, int) {
    for (int64_t r = task * chunk; r < std::min(image_rows, (task + 1) * chunk); ++r) prepare_row(im, e, r, x, a);
  });
  const int64_t wanted = pool.threads() > 1 ? pool.threads() * kTasksPerThread : 1, tile = kernels_->rows;
  const int64_t block_rows = std::min(kBlockRows, std::max(ceil_div(ceil_div(im.m, wanted), tile) * tile, tile));
  pool.parallel_for(ceil_div(im.m, block_rows), [&](int64_t task, int) {
    const int64_t m0 = task * block_rows;
    run_rows(im, e, m0, std::min(block_rows, im.m - m0), a, run_offset, residual, out);
  });
}

}  // namespace

bool bitserial_applies(const Geometry& g, const Weights& weights, const Requant& q) {
  const int64_t each = g.kh * g.kw * g.in_channels;
  if (g.groups != 1 || q.dyadic || (q.out_f32 && (q.has_flo || q.has_fhi)) || g.x_hi > 15 || each >= kDeep) return false;
  int32_t magnitude = 0;
  bool zero = false;
  for (int64_t i = 0; i < g.out_channels * each; ++i) {
    const int32_t w = std::abs(static_cast<int32_t>(weights.w[i]));
    if (w == 0) {
      zero = true;
    } else if (magnitude == 0) {
      magnitude = w;
    } else if (w != magnitude) {
      return false;
    }
  }
  return std::max(bits_of(g.x_hi), 1) * (zero ? 2 : 1) <= kMostPlanes;
}

std::unique_ptr<Algorithm> make_bitserial(Isa isa) { return std::make_unique<BitSerial>(isa); }

}  // namespace qgemm
}  // namespace netsuke
