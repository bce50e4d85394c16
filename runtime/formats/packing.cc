#include "formats/packing.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace {

// Eight codes are `bits` bytes: one 64-bit number, of which code i is bits i*bits and up.
uint64_t eight(const uint8_t* data, int bytes) {
  uint64_t word = 0;
  for (int i = 0; i < bytes; ++i) word |= static_cast<uint64_t>(data[i]) << (8 * i);
  return word;
}

// kBits is a constant, so that the inner loop has constant shifts.
template <int kBits, typename T, typename Decode>
void unpack(const uint8_t* data, int64_t count, T* out, const Decode& decode) {
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  const int64_t whole = count / 8;
  for (int64_t g = 0; g < whole; ++g) {
    const uint64_t word = eight(data + g * kBits, kBits);
    for (int i = 0; i < 8; ++i) out[8 * g + i] = decode(static_cast<uint8_t>(word >> (i * kBits) & kMask));
  }
  const int rest = static_cast<int>(count % 8);
  const uint64_t word = eight(data + whole * kBits, (rest * kBits + 7) / 8);
  for (int i = 0; i < rest; ++i) out[8 * whole + i] = decode(static_cast<uint8_t>(word >> (i * kBits) & kMask));
}

template <int kBits>
void signed_codes(const uint8_t* data, int64_t count, int8_t* out) {
  unpack<kBits>(data, count, out, [](uint8_t code) {
    constexpr int kHalf = 1 << (kBits - 1);
    return static_cast<int8_t>(kBits == 1 ? 2 * code - 1 : (code ^ kHalf) - kHalf);
  });
}

template <int kBits>
void plain_codes(const uint8_t* data, int64_t count, uint8_t* out) {
  unpack<kBits>(data, count, out, [](uint8_t code) { return code; });
}

}  // namespace

bool packed_width(int64_t bits) { return bits >= 1 && bits <= 6; }

bool packed_tail_clear(const uint8_t* data, int64_t count, int bits) {
  const int used = static_cast<int>(count % 8 * bits % 8);
  return used == 0 || data[packed_size(count, bits) - 1] >> used == 0;
}

void unpack_s8(const uint8_t* data, int64_t count, int bits, int8_t* out) {
  switch (bits) {
    case 1: return signed_codes<1>(data, count, out);
    case 2: return signed_codes<2>(data, count, out);
    case 3: return signed_codes<3>(data, count, out);
    case 4: return signed_codes<4>(data, count, out);
    case 5: return signed_codes<5>(data, count, out);
    default: return signed_codes<6>(data, count, out);
  }
}

void unpack_u8(const uint8_t* data, int64_t count, int bits, uint8_t* out) {
  switch (bits) {
    case 1: return plain_codes<1>(data, count, out);
    case 2: return plain_codes<2>(data, count, out);
    case 3: return plain_codes<3>(data, count, out);
    case 4: return plain_codes<4>(data, count, out);
    case 5: return plain_codes<5>(data, count, out);
    case 6: return plain_codes<6>(data, count, out);
    case 7: return plain_codes<7>(data, count, out);
    default: return plain_codes<8>(data, count, out);
  }
}

int index_bits(int64_t entries) {
  int bits = 1;
  while (int64_t{1} << bits < entries) ++bits;
  return bits;
}

bool unpack_indices(const uint8_t* table, int64_t entries, int64_t vector, const uint8_t* data, int64_t count, int bits, uint8_t* out) {
  constexpr int64_t kBlock = 4096;  // a multiple of 8: every block starts at a whole byte
  uint8_t indices[kBlock];
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t part = std::min(kBlock, count - first);
    unpack_u8(data + first / 8 * bits, part, bits, indices);
    for (int64_t i = 0; i < part; ++i) {
      if (indices[i] >= entries) return false;
      std::memcpy(out + (first + i) * vector, table + indices[i] * vector, static_cast<size_t>(vector));
    }
  }
  return true;
}

namespace {

constexpr int kTrits = 5;  // 3^5 = 243 combinations a byte
constexpr int kPower3[kTrits + 1] = {1, 3, 9, 27, 81, 243};

bool bit_at(const uint8_t* data, int64_t i) { return data[i / 8] >> (i % 8) & 1; }

// True when the bits of the last byte behind `count` bits are 0.
bool clear_behind(const uint8_t* data, int64_t count) { return count % 8 == 0 || data[count / 8] >> (count % 8) == 0; }

int64_t ones(const uint8_t* data, int64_t bytes) {
  int64_t sum = 0;
  for (int64_t i = 0; i < bytes; ++i) {
    for (unsigned v = data[i]; v != 0; v &= v - 1) ++sum;
  }
  return sum;
}

const char* ternary_problem(const uint8_t* data, int64_t size, int64_t count) {
  if (size != count / kTrits + (count % kTrits != 0)) return "ternary codes are not five a byte";
  for (int64_t i = 0; i < size; ++i) {
    const int64_t used = std::min<int64_t>(kTrits, count - i * kTrits);
    if (data[i] >= kPower3[used]) return "a byte is no five ternary codes";
  }
  return nullptr;
}

const char* salient_problem(const uint8_t* data, int64_t size, int64_t rows, int64_t count) {
  if (rows < 1 || count < 1 || count % rows != 0) return "the form salient needs rows of codes";
  const int64_t map = (count + 7) / 8;
  if (size < 2 * rows + map) return "salient codes are cut short";
  const uint8_t* bitmap = data + 2 * rows;
  if (!clear_behind(bitmap, count)) return "an unused bit behind the last code is set";
  if (size == 2 * rows + map) return nullptr;  // no exceptions, no bitmap: these are the signs
  const int64_t exceptions = ones(bitmap, map), plain = count - exceptions;
  if (exceptions == 0) return "a bitmap without exceptions";
  if (size != 2 * rows + map + (plain + 7) / 8 + exceptions) return "salient codes and their exceptions do not fill their bytes";
  if (!clear_behind(bitmap + map, plain)) return "an unused bit behind the last code is set";
  return nullptr;
}

}  // namespace

const char* named_problem(NamedForm form, const uint8_t* data, int64_t size, int64_t rows, int64_t count) {
  return form == NamedForm::kTernary ? ternary_problem(data, size, count) : salient_problem(data, size, rows, count);
}

void unpack_ternary(const uint8_t* data, int64_t count, int8_t* out) {
  for (int64_t i = 0; i < count; i += kTrits) {
    int value = data[i / kTrits];
    const int64_t used = std::min<int64_t>(kTrits, count - i);
    for (int64_t k = 0; k < used; ++k, value /= 3) out[i + k] = static_cast<int8_t>(value % 3 - 1);
  }
}

void unpack_salient(const uint8_t* data, int64_t size, int64_t rows, int64_t count, int8_t* out) {
  const int64_t map = (count + 7) / 8, columns = count / rows;
  const bool marked = size > 2 * rows + map;
  const uint8_t* bitmap = data + 2 * rows;
  const uint8_t* signs = marked ? bitmap + map : bitmap;
  const uint8_t* salient = marked ? signs + (count - ones(bitmap, map) + 7) / 8 : nullptr;
  int64_t plain = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = row * columns; i < (row + 1) * columns; ++i) {
      const uint8_t code = marked && bit_at(bitmap, i) ? *salient++ : data[2 * row + bit_at(signs, plain++)];
      out[i] = static_cast<int8_t>(code);
    }
  }
}

int fewest_bits_s8(const int8_t* codes, int64_t count) {
  int low = 127, high = -128, zeros = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min<int>(low, codes[i]);
    high = std::max<int>(high, codes[i]);
    zeros |= codes[i] == 0;
  }
  if (count == 0 || (low >= -1 && high <= 1 && zeros == 0)) return 1;
  for (int bits = 2; bits <= 6; ++bits) {
    if (low >= -(1 << (bits - 1)) && high < 1 << (bits - 1)) return bits;
  }
  return 8;
}

}  // namespace netsuke
