// One-bit training on the XNOR kernels of kernels/bgemm: the layer's three products are one-bit convolutions of packed signs.
//
//   forward          signs of x with signs of w, zero padding
//   input gradient   a plane of dY's code bits with the weights flipped and their channels exchanged; planes add with 2^b
//   weight gradient  images are the channels of x, the window is as large as dY, the batch takes the place of the channels
#include <algorithm>
#include <cstring>

#include "kernels/bgemm/layer.h"
#include "kernels/signpack/signpack.h"
#include "train/products.h"

namespace netsuke {
namespace train {
namespace {

constexpr int64_t kExact = int64_t{1} << 24;  // integers that f32 holds
constexpr int64_t kRows = 256;                // of one task

// 64 x 64 bits in place: bit j of row i goes to bit i of row j (Warren, Hacker's Delight, section 7-3, for 64 bits).
void transpose64(uint64_t* a) {
  uint64_t mask = 0x00000000FFFFFFFFull;
  for (int j = 32; j != 0; j >>= 1, mask ^= mask << j) {
    for (int k = 0; k < 64; k = ((k | j) + 1) & ~j) {
      const uint64_t t = ((a[k] >> j) ^ a[k | j]) & mask;
      a[k] ^= t << j;
      a[k | j] ^= t;
    }
  }
}

// Bit `plane` of eight bytes, the first byte lowest.
uint64_t bits_of(uint64_t eight, int plane) {
  return (((eight >> plane) & 0x0101010101010101ull) * 0x0102040810204080ull) >> 56;
}

}  // namespace

Status Trainer::bit_conv(const Conv& c, const uint64_t* x, const uint64_t* w, const float* mult, bool accumulate, float* y) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Stopwatch watch(&whole_ns_);
  const Codes one = {nullptr, 0, -1, 1, false};
  NETSUKE_TRY(check(c, one, one, c.kh * c.kw * c.c, 0));
  if (c.groups != 1) return error(Code::kUnsupported, "one-bit training has no grouped convolutions");
  if (c.kh * c.kw * c.c >= kExact) return error(Code::kUnsupported, "a sum of %lld signs is not exact in f32", static_cast<long long>(c.kh * c.kw * c.c));
  bgemm::Geometry g;
  g.in_channels = c.c, g.out_channels = c.o, g.kh = c.kh, g.kw = c.kw;
  g.stride_h = c.stride_h, g.stride_w = c.stride_w, g.dil_h = c.dilation_h, g.dil_w = c.dilation_w;
  g.pad_top = c.top, g.pad_left = c.left, g.pad_bottom = c.bottom, g.pad_right = c.right;
  // Finish reads 64 numbers past the last channel.
  std::vector<float> scale(static_cast<size_t>(c.o + 2 * bgemm::kBlock), 0.0f);
  std::copy(mult, mult + c.o, scale.begin());
  bgemm::Finish f;
  f.out_f32 = true;
  f.mult = scale.data();
  f.residual = accumulate ? 1 : 0;
  bgemm::Layer layer;
  NETSUKE_TRY(layer.build(g, 0, w, nullptr, f, isa_, false));
  const bgemm::Extent e = {c.n, c.h, c.w, c.oh(), c.ow()};
  NETSUKE_TRY(reserve(&a_, static_cast<int64_t>(layer.scratch_bytes(e, pool_.threads()))));
  const Stopwatch tiles(&tiles_ns_);
  layer.run(e, x, accumulate ? y : nullptr, y, nullptr, a_.data(), pool_);
  return Status();
}

Status Trainer::pack_signs(const float* x, int64_t rows, int64_t channels, uint64_t* y) {
  if (rows < 0 || channels < 1) return error(Code::kInvalidArgument, "a size is negative");
  const int64_t words = bgemm::words_of(channels);
  const std::vector<float> threshold(static_cast<size_t>(words * 64), 0.0f);
  const std::vector<uint64_t> flip(static_cast<size_t>(words), 0);
  const auto& kernels = sign_pack_kernels(isa_);
  pool_.parallel_for((rows + kRows - 1) / kRows, [&](int64_t task, int) {
    const int64_t begin = task * kRows, count = std::min(kRows, rows - begin);
    kernels.f32(x + begin * channels, count, channels, threshold.data(), flip.data(), y + begin * words);
  });
  return Status();
}

Status Trainer::pack_planes(const uint8_t* codes, int64_t rows, int64_t channels, int64_t planes, uint64_t* y) {
  if (rows < 0 || channels < 1 || planes < 1 || planes > 8) return error(Code::kInvalidArgument, "sizes do not make sense");
  const int64_t words = bgemm::words_of(channels);
  pool_.parallel_for((rows + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t row = task * kRows; row < std::min(rows, (task + 1) * kRows); ++row) {
      const uint8_t* from = codes + row * channels;
      for (int64_t i = 0; i < words; ++i) {
        uint64_t word[8] = {};
        for (int64_t k = 0; k < 8 && 64 * i + 8 * k < channels; ++k) {
          uint64_t eight = 0;
          memcpy(&eight, from + 64 * i + 8 * k, static_cast<size_t>(std::min<int64_t>(8, channels - 64 * i - 8 * k)));
          for (int b = 0; b < planes; ++b) word[b] |= bits_of(eight, b) << (8 * k);
        }
        for (int b = 0; b < planes; ++b) y[(b * rows + row) * words + i] = word[b];
      }
    }
  });
  return Status();
}

Status Trainer::transpose_bits(const uint64_t* x, int64_t n, int64_t positions, int64_t channels, uint64_t* y) {
  if (n < 1 || positions < 1 || channels < 1) return error(Code::kInvalidArgument, "a size is not positive");
  const int64_t words = bgemm::words_of(channels), out = bgemm::words_of(n);
  pool_.parallel_for(positions, [&](int64_t p, int) {
    uint64_t block[64];
    for (int64_t i = 0; i < words; ++i) {
      for (int64_t j = 0; j < out; ++j) {
        const int64_t rows = std::min<int64_t>(64, n - 64 * j), columns = std::min<int64_t>(64, channels - 64 * i);
        for (int64_t r = 0; r < 64; ++r) block[r] = r < rows ? x[((64 * j + r) * positions + p) * words + i] : 0;
        transpose64(block);
        for (int64_t c = 0; c < columns; ++c) y[((64 * i + c) * positions + p) * out + j] = block[c];
      }
    }
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
