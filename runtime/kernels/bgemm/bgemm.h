// The one-bit matrix product behind bconv and blinear (docs/numerics.md section 10): types shared by the driver and the kernels.
//
//   acc[m][o] = base[m] - 2 * count[m][o],   count = popcount(x[m] xor w[o])
//   acc[m][o] = popcount(w[o]) - count[m][o] where bits of x stand for 1 and 0
//
// A row of A is a base pointer (one output pixel) plus offsets shared by all rows, each the start of a contiguous run, as in qgemm. Output
// channels are taken in blocks of 64: one word of packed output.
#ifndef NETSUKE_KERNELS_BGEMM_BGEMM_H_
#define NETSUKE_KERNELS_BGEMM_BGEMM_H_

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"

namespace netsuke {
namespace bgemm {

constexpr int kBlock = 64;     // output channels of a block
constexpr int kMaxRows = 8;    // rows of the tallest tile
constexpr int kSlack = 64;     // bytes readable behind prepared rows

// How the operands lie in memory.
//   kWords    A: 64-bit words; B: [block][width outputs a panel][run][word][width] words.
//   kNibbles  A: a byte for each four channels, 8 * their nibble: half the offset of a 16-byte table that holds popcount(nibble xor n) for
//             n = 0 .. 15, which one byte shuffle looks up for 32 output channels at once. 128 selects a table of twos: a position
//             that contributes 0. B: [block][run][nibble of x][64] bytes, one nibble each: splitting bytes in the loop would cost a
//             sixth of its instructions, and these on the ports of the shuffles.
//             Two shuffles and two byte additions make 256 products: twice what XOR and a nibble-table popcount reach with AVX2.
enum class Layout : uint8_t { kWords, kNibbles };

constexpr uint8_t kZeroNibble = 128;

struct Tile {
  const uint8_t* const* a;      // one base pointer per row
  const int64_t* run_offset;    // bytes
  int64_t runs;
  int64_t steps;                // words, or bytes of x, of each run
  const uint8_t* b;             // the block
  int rows;                     // 1 .. the kernels' rows
  int columns;                  // 1 .. 64
  int32_t* count;               // [rows][64]; columns behind the last one may hold anything
};

// From sums to outputs.
struct Finish {
  bool out_bits = false, out_f32 = false, with_bits = false;  // with_bits: y and the signs of y
  bool small = false;                                         // every y before rounding is below 2^30: Layer::build sees to it
  bool zero_one = false;                                      // bits of x stand for 1 and 0 instead of +1 and -1; padding is 0
  int residual = 0;                                           // 0 none, 1 of y's type
  int32_t zero = 0, lo = 0, hi = 255, r_zero = 0;
  float r_mult = 0;
  // One value a channel, readable 64 past the last; null where absent.
  const float* mult = nullptr;
  const float* bias = nullptr;
  const float* slope = nullptr;
  const float* shift = nullptr;
  const int32_t* threshold = nullptr;      // of sums or codes
  const float* threshold_f32 = nullptr;
};

// A tile's results: rows x columns from `channel` on.
struct Result {
  const int32_t* count;     // [rows][64]
  const int32_t* base;      // one per row
  bool sums;                // count holds the sums themselves, base is not read
  int rows, columns;
  int64_t channel;
  uint64_t flip;            // bit i: that of column i
  void* out;                // row 0, column 0; elements of y (not for bits)
  int64_t out_stride;
  const void* residual;     // likewise
  uint64_t* bits;           // one word per row: the packed signs of the columns, spare bits 0
};

// A spanning tree of the filters, parents before children; the root's words are all of its own.
struct TreeNode {
  int32_t channel, parent;   // parent -1: the root
  int32_t words;             // how many of Tree::words are this channel's
};
struct TreeWord {
  uint64_t own, parent;      // the words of weights that differ
  int32_t run, offset;       // where the word of x is: bytes behind the run's start
};
struct Tree {
  const TreeNode* nodes;
  const TreeWord* words;
  int64_t channels;
};

struct Kernels {
  const char* name;         // isa_rowsxcolumns
  Layout layout;
  int rows;
  int width;                // kWords: outputs of a panel
  void (*tile)(const Tile& tile);
  void (*expand)(const uint8_t* bytes, int64_t count, uint8_t* dst);  // kNibbles: bytes of x to 2 * count offsets
  void (*finish)(const Finish& f, const Result& r);
  void (*tree)(const Tree& tree, const uint8_t* a, const int64_t* run_offset, int32_t* count);  // rows of A as kWords lays them out
};

// Kernels of an instruction set. deep: sums of 65,536 products and more, which the 16-bit counters of kNibbles cannot hold.
const Kernels& kernels_of(Isa isa, bool deep);
void override_kernels_for_test(const Kernels* kernels);  // tests run emulated tables; null restores

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_BGEMM_H_
