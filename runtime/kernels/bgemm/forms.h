// Counts of x xor w as sums of quadratic forms over GF(2), which one GFNI instruction evaluates for 64 channels and 8 pixels.
//
// The popcount of seven bits x = a xor w is p + 2 q + 4 h. p, their parity, is p(a) xor p(w), a bit of x for a group one level up. With
// c = maj(x0, x1, x2) and d = maj(x3, x4, x5), q = c + d + maj(p(x0 x1 x2), p(x3 x4 x5), x6) mod 2 and h is the majority of those three, a function
// of c, d and q. And c, d and q are forms: sums over GF(2) of products of a bit made of a alone and one made of w alone. Over k bits
// e2(a xor w) = e2(a) + e2(w) + sum of a_i w_j, i != j, of rank k - 1 for odd k, so four products make c or d and eight make q: a byte of a
// pixel and a byte of a channel. gf2p8affineqb multiplies 8 such bytes by 8 in each of its 64-bit lanes.
//
// A word of 64 bits is ten groups of seven (nine of bits, one of the first seven parities), one group of three (what remains of the parities) and two
// single bits. Their 33 forms take 33 bytes of a pixel, but 21 of a channel: bytes that use half of the dimensions share one. Bits of equal
// weight are added by full adders, two vpternlogq each, 64 channels times 8 pixels at a time: about 95 instructions for 512 times 64
// products, where XOR, popcount and addition take 192.
#ifndef NETSUKE_KERNELS_BGEMM_FORMS_H_
#define NETSUKE_KERNELS_BGEMM_FORMS_H_

#include <cstdint>

#include "kernels/bgemm/bgemm.h"

namespace netsuke {
namespace bgemm {

constexpr int kPixelForms = 33;    // bytes of a word of a pixel, in planes: [kPixelForms][pixels]
constexpr int kChannelForms = 21;  // bytes of a word of 64 channels: [kChannelForms][64]
constexpr int kFormPixels = 8;     // pixels of a block
constexpr int kFormWords = 64;     // pixels that `pixels` takes at once
constexpr int kLevels = 16;        // bits of a counter: 65,535 products at most

struct FormTile {
  const uint8_t* x;        // the first pixel in plane 0
  int64_t plane;           // bytes from a plane to the next
  const int64_t* offset;   // one per step (a word of a tap): where its planes are, bytes behind x
  int64_t steps;
  const uint8_t* w;        // [steps][kChannelForms][64]
  int blocks;              // 1 or 2 blocks of pixels
  int levels;              // counts stay below 2^levels
  bool fresh;              // counters hold nothing yet
  uint64_t* counters;      // [blocks][kLevels][8], aligned: bit 7 - p of byte c is pixel p, channel form_channel(c)
};

// Channel of a block whose sums lie in byte `at`: the order in which unpacking to 32 bits puts them right.
constexpr int form_channel(int at) { return at % 16 / 4 * 16 + at / 16 * 4 + at % 4; }

// Pixels of one block behind each other in the output.
struct FormRun {
  int first, count;        // pixels of the task
  int64_t m;               // the output pixel of the first
};
// Results of a task: one unit of channels from counters.
struct FormResult {
  const uint64_t* counters;  // [blocks][kLevels][8]
  int levels;
  const FormRun* runs;
  int64_t n_runs;
  const int32_t* base;       // per pixel of the task
  const int32_t* ones;       // where bits of x stand for 1 and 0: popcounts of w, 64 of them
  int64_t channel;
  int columns;
  bool even;                 // every base is even
  uint64_t flip;
  void* out;                 // of output pixel 0, column 0; null for packed signs
  int64_t out_stride;        // elements
  const void* residual;      // likewise
  uint64_t* bits;            // of output pixel 0, or null
  int64_t bit_stride;        // words
};

struct FormKernels {
  const char* name;
  // The planes of kFormWords pixels; zeros where `inside` has no bit: such a pixel counts nothing.
  void (*pixels)(const uint64_t* words, uint64_t inside, uint8_t* planes, int64_t plane);
  void (*add)(const FormTile& tile);
  void (*finish)(const Finish& f, const FormResult& r);
};

// The kernels of this CPU, null without AVX-512 VBMI and GFNI.
const FormKernels* form_kernels();
void override_form_kernels_for_test(const FormKernels* kernels, bool overridden);

// The bytes of one channel's word: to[i * 64] for i = 0 .. kChannelForms - 1.
void channel_forms(uint64_t word, uint8_t* to);

// Bytes of a pixel's seven bits and of a channel's; bit 7 of the argument is ignored. Lower and upper half: c and d.
constexpr int bit_of(int v, int i) { return v >> i & 1; }
constexpr int ones_of(int v) { return v == 0 ? 0 : (v & 1) + ones_of(v >> 1); }
constexpr int e2_of(int v) { return ones_of(v) >> 1 & 1; }
constexpr uint8_t pixel_halves(int a) {
  const int low = e2_of(a & 7) | 2 | (bit_of(a, 0) ^ bit_of(a, 2)) << 2 | (bit_of(a, 1) ^ bit_of(a, 2)) << 3;
  const int high = e2_of(a >> 3 & 7) | 2 | (bit_of(a, 3) ^ bit_of(a, 5)) << 2 | (bit_of(a, 4) ^ bit_of(a, 5)) << 3;
  return static_cast<uint8_t>(low | high << 4);
}
constexpr uint8_t channel_halves(int w) {
  const int low = 1 | e2_of(w & 7) << 1 | (bit_of(w, 1) ^ bit_of(w, 2)) << 2 | (bit_of(w, 0) ^ bit_of(w, 2)) << 3;
  const int high = 1 | e2_of(w >> 3 & 7) << 1 | (bit_of(w, 4) ^ bit_of(w, 5)) << 2 | (bit_of(w, 3) ^ bit_of(w, 5)) << 3;
  return static_cast<uint8_t>(low | high << 4);
}
constexpr uint8_t pixel_seven(int a) {
  int v = e2_of(a & 127) | 2;
  for (int i = 0; i < 6; ++i) v |= (bit_of(a, i) ^ bit_of(a, 6)) << (2 + i);
  return static_cast<uint8_t>(v);
}
constexpr uint8_t channel_seven(int w) {
  int v = 1 | e2_of(w & 127) << 1;
  for (int i = 0; i < 6; ++i) v |= ((ones_of(w & 127) & 1) ^ bit_of(w, i)) << (2 + i);
  return static_cast<uint8_t>(v);
}

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_FORMS_H_
