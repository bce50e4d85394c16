// Codes of fewer than 8 bits in a byte string (docs/format.md section 3): the mirror of netsuke.formats.packing and
// netsuke.formats.packing_forms.
#ifndef NETSUKE_FORMATS_PACKING_H_
#define NETSUKE_FORMATS_PACKING_H_

#include <cstddef>
#include <cstdint>

namespace netsuke {

// Widths of packed codes: 1, 2, 3, 4, 5, 6.
bool packed_width(int64_t bits);
// Bytes of `count` codes, count < 2^60.
inline int64_t packed_size(int64_t count, int bits) { return count / 8 * bits + (count % 8 * bits + 7) / 8; }
// True when the bits behind the last code are 0.
bool packed_tail_clear(const uint8_t* data, int64_t count, int bits);
// The fewest bits that tell 2 to 256 entries of a table apart.
int index_bits(int64_t entries);
// Elements from indices of 1 to 8 bits into `entries` vectors of `vector` bytes at `table`, which need no alignment. False when an
// index has no entry; `out` is then unspecified.
bool unpack_indices(const uint8_t* table, int64_t entries, int64_t vector, const uint8_t* data, int64_t count, int bits, uint8_t* out);
// s8: two's complement of `bits` bits, at 1 bit 0 is -1 and 1 is +1. u8: the bits as they are, 1 to 8 of them.
void unpack_s8(const uint8_t* data, int64_t count, int bits, int8_t* out);
void unpack_u8(const uint8_t* data, int64_t count, int bits, uint8_t* out);
// Forms of packed s8 codes that have a name instead of a width.
enum class NamedForm { kNone, kTernary, kSalient };
// What is wrong with `size` bytes that shall hold `count` codes in this form (kSalient: of `rows` rows, which divide count),
// or null. Everything that unpacking reads has been checked then.
const char* named_problem(NamedForm form, const uint8_t* data, int64_t size, int64_t rows, int64_t count);
// Five codes -1, 0, 1 a byte.
void unpack_ternary(const uint8_t* data, int64_t count, int8_t* out);
// Two levels a row, a bit for every code, and the exceptions, if there are any, as they are.
void unpack_salient(const uint8_t* data, int64_t size, int64_t rows, int64_t count, int8_t* out);
// The fewest bits of {1, 2, 3, 4, 5, 6, 8} that hold all codes.
int fewest_bits_s8(const int8_t* codes, int64_t count);

}  // namespace netsuke

#endif  // NETSUKE_FORMATS_PACKING_H_
