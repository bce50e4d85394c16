// The vectors of tests/formats/test_packing.py: both sides must read these bytes as these codes.
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "formats/packing.h"

namespace netsuke {
namespace {

struct Vector {
  int bits;
  std::vector<int8_t> codes;
  std::vector<uint8_t> bytes;
};

const Vector kVectors[] = {
    {1, {1, -1, -1, 1, 1, 1, -1, 1, -1, 1}, {0xb9, 0x02}},
    {2, {1, 0, -1, -2, 1}, {0xb1, 0x01}},
    {3, {3, -4, -1, 0, 1, 2, -2, -3, 3}, {0xe3, 0x11, 0xb9, 0x03}},
    {4, {7, -8, -1, 0, 3}, {0x87, 0x0f, 0x03}},
    {5, {15, -16, -1, 0, 1, 2, -2, -3, 9}, {0x0f, 0x7e, 0x10, 0x84, 0xef, 0x09}},
    {6, {31, -32, -1, 0, 5}, {0x1f, 0xf8, 0x03, 0x05}},
};

void test_vectors() {
  for (const Vector& v : kVectors) {
    const auto count = static_cast<int64_t>(v.codes.size());
    CHECK(packed_size(count, v.bits) == static_cast<int64_t>(v.bytes.size()));
    CHECK(packed_tail_clear(v.bytes.data(), count, v.bits));
    CHECK(fewest_bits_s8(v.codes.data(), count) == v.bits);
    std::vector<int8_t> codes(v.codes.size());
    unpack_s8(v.bytes.data(), count, v.bits, codes.data());
    CHECK(codes == v.codes);
    std::vector<uint8_t> plain(v.codes.size());
    unpack_u8(v.bytes.data(), count, v.bits, plain.data());
    for (size_t i = 0; i < plain.size(); ++i) {
      const int wanted = v.bits == 1 ? v.codes[i] > 0 : v.codes[i] & ((1 << v.bits) - 1);
      CHECK(plain[i] == wanted);
    }
    std::vector<uint8_t> dirty = v.bytes;
    dirty.back() |= 0x80;
    CHECK(packed_tail_clear(dirty.data(), count, v.bits) == (count * v.bits % 8 == 0));
  }
}

void test_widths() {
  const int8_t zero = 0, low = -128, seven = 64;
  CHECK(fewest_bits_s8(nullptr, 0) == 1 && fewest_bits_s8(&zero, 1) == 2);
  CHECK(fewest_bits_s8(&low, 1) == 8 && fewest_bits_s8(&seven, 1) == 8);
  for (int64_t bits : {0, 7, 8, -1}) CHECK(!packed_width(bits));
  CHECK(packed_size(0, 3) == 0 && packed_size(8, 3) == 3 && packed_size(9, 3) == 4);
}

}  // namespace
}  // namespace netsuke

int main() {
  netsuke::test_vectors();
  netsuke::test_widths();
  return netsuke::check_result();
}
