#include <algorithm>
#include <cstring>

#include "formats/packing.h"
#include "kernels/wlinear/wlinear.h"

namespace netsuke {
namespace {

// Quad q of a block's channel c, element i: where its bits go. `code` has `bits` bits.
void put(uint8_t* block, int bits, int q, int at, unsigned code) {
  const auto add = [&](int byte, unsigned value) { block[byte] = static_cast<uint8_t>(block[byte] | value); };
  switch (bits) {
    case 4: return add(kQuadBytes * (q / 2) + at, code << (4 * (q % 2)));
    case 3:
      if (q < 6) return add(kQuadBytes * (q / 2) + at, code << (3 * (q % 2)));
      add(kQuadBytes * (q - 6) + at, (code & 3) << 6);
      return add(2 * kQuadBytes + at, (code >> 2) << q);
    case 2: return add(kQuadBytes * (q / 4) + at, (code & 3) << (2 * (q % 4)));
    default: return add(kQuadBytes * q + at, code);
  }
}

// Element i of a block's channel c, for the kernels that decode to floats.
void put_word(uint8_t* block, int bits, int i, int channel, unsigned code) {
  const auto add = [&](int word, unsigned value) {
    uint8_t* at = block + kWordBytes * word + 4 * channel;
    uint32_t all;
    std::memcpy(&all, at, sizeof(all));
    all |= value;
    std::memcpy(at, &all, sizeof(all));
  };
  const int per = 32 / bits, word = i / per;
  if (bits == 3 && word == 3) {
    for (int b = 0; b < 3; ++b) {  // six bits of the last two codes, two in each word
      const int first = 2 * b - 3 * (i - 30);
      for (int h = 0; h < 2; ++h) {
        if (first + h >= 0 && first + h < 3) add(b, (code >> (first + h) & 1) << (30 + h));
      }
    }
    return;
  }
  add(word, code << (bits * (i % per)));
}

}  // namespace

Status WlinearWeights::pack(const WlinearShape& shape, WlinearCompute compute, const void* w, const WlinearFloat& form, const float* scale,
                            const int8_t* zero, const float* bias, int32_t byte_offset) {
  shape_ = shape;
  form_ = form;
  const int64_t n = shape.n, k = shape.k, groups = shape.groups(), panels = shape.panels();
  const auto* codes = static_cast<const uint8_t*>(w);
  if (form.bits != 0) {
    bits_ = form.bits == 4 ? 4 : 8;
  } else {
    const int fewest = fewest_bits_s8(static_cast<const int8_t*>(w), n * k);
    bits_ = fewest <= 2 ? 2 : fewest <= 4 ? fewest : 8;
  }
  const bool plain = form.bits != 0;
  // Float codes are packed as they are; integers as u = w + half.
  const unsigned half = plain ? 0u : 1u << (bits_ - 1);
  same_offset_ = plain ? 0 : bits_ == 8 ? byte_offset : static_cast<int32_t>(half);
  const int64_t block = wlinear_block_bytes(bits_), panel_bytes = shape.blocks() * block;
  NETSUKE_TRY(codes_.allocate(static_cast<size_t>(panels * panel_bytes)));
  std::memset(codes_.data(), 0, codes_.bytes());
  const unsigned mask = (1u << bits_) - 1;
  for (int64_t o = 0; o < panels * kPanel; ++o) {
    uint8_t* panel = codes_.data() + o / kPanel * panel_bytes;
    const int channel = static_cast<int>(o % kPanel);
    for (int64_t i = 0; i < shape.blocks() * kWBlock; ++i) {
      // Channels and k beyond the matrix: x or the store leaves them out; a code of zero keeps 16-bit sums small.
      const unsigned code = o < n && i < k ? codes[o * k + i] : 0u;
      const int inside = static_cast<int>(i % kWBlock);
      const unsigned u = (code + half) & mask;
      uint8_t* at = panel + i / kWBlock * block;
      if (compute == WlinearCompute::kS8) put(at, bits_, inside / 4, 4 * channel + inside % 4, u);
      else put_word(at, bits_, compute == WlinearCompute::kBf16 ? inside ^ 1 : inside, channel, u);
    }
  }
  scale_.assign(static_cast<size_t>(panels * groups * kPanel), 0.0f);
  if (zero != nullptr) offset_.assign(scale_.size(), same_offset_);
  for (int64_t o = 0; o < n; ++o) {
    for (int64_t g = 0; g < groups; ++g) {
      const auto at = static_cast<size_t>((o / kPanel * groups + g) * kPanel + o % kPanel);
      scale_[at] = scale[o * groups + g];
      if (zero != nullptr) offset_[at] += zero[o * groups + g];
    }
  }
  if (bias != nullptr) {
    bias_.assign(static_cast<size_t>(panels * kPanel), 0.0f);
    std::memcpy(bias_.data(), bias, static_cast<size_t>(n) * sizeof(float));
  }
  far_ = bytes() >= kWFar;
  return Status();
}

WlinearPanel WlinearWeights::panel(int64_t index, int count) const {
  WlinearPanel panel = {};
  const int64_t groups = shape_.groups();
  panel.bits = bits_;
  panel.blocks = shape_.blocks();
  panel.group_blocks = shape_.group_blocks();
  panel.groups = groups;
  panel.w = codes_.data() + index * panel.blocks * wlinear_block_bytes(bits_);
  panel.scale = scale_.data() + index * groups * kPanel;
  panel.offset = offset_.empty() ? nullptr : offset_.data() + index * groups * kPanel;
  panel.same_offset = same_offset_;
  panel.bias = bias_.empty() ? nullptr : bias_.data() + index * kPanel;
  panel.columns = static_cast<int>(std::min<int64_t>(int64_t{kPanel} * count, shape_.n - index * kPanel));
  panel.count = count;
  panel.far = far_;
  return panel;
}

}  // namespace netsuke
