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

void test_indices() {
  for (int64_t k : {2, 3, 4, 5, 128, 129, 256}) {
    const int bits = index_bits(k);
    CHECK(int64_t{1} << bits >= k && (bits == 1 || int64_t{1} << (bits - 1) < k));
  }
  for (int bits = 1; bits <= 8; ++bits) {  // indices 0, 1, 2, ... of vectors of 3 bytes; more than one block
    const int64_t entries = int64_t{1} << bits, count = 9001;
    std::vector<uint8_t> data(static_cast<size_t>(packed_size(count, bits)) + 8), table(static_cast<size_t>(3 * entries));
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t value = static_cast<uint64_t>(i % entries) << (i * bits % 8);
      data[static_cast<size_t>(i * bits / 8)] |= static_cast<uint8_t>(value);
      data[static_cast<size_t>(i * bits / 8 + 1)] |= static_cast<uint8_t>(value >> 8);
    }
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<uint8_t>(i * 7 + 1);
    std::vector<uint8_t> out(static_cast<size_t>(3 * count));
    CHECK(unpack_indices(table.data(), entries, 3, data.data(), count, bits, out.data()));
    bool same = true;
    for (int64_t i = 0; i < 3 * count; ++i) same = same && out[static_cast<size_t>(i)] == table[static_cast<size_t>(i / 3 % entries * 3 + i % 3)];
    CHECK(same);
    CHECK(!unpack_indices(table.data(), entries - 1, 3, data.data(), count, bits, out.data()));
  }
}

void test_ternary() {
  const std::vector<uint8_t> data = {0xdd, 0x06};
  const std::vector<int8_t> wanted = {1, 0, -1, 1, 1, -1, 1};
  std::vector<int8_t> codes(7);
  CHECK(named_problem(NamedForm::kTernary, data.data(), 2, 7, 7) == nullptr);
  unpack_ternary(data.data(), 7, codes.data());
  CHECK(codes == wanted);
  CHECK(named_problem(NamedForm::kTernary, data.data(), 2, 6, 6) != nullptr);   // 6 is no single trit
  CHECK(named_problem(NamedForm::kTernary, data.data(), 2, 11, 11) != nullptr);
  CHECK(named_problem(NamedForm::kTernary, data.data(), 2, 5, 5) != nullptr);
  const uint8_t high = 243;
  CHECK(named_problem(NamedForm::kTernary, &high, 1, 5, 5) != nullptr);
  CHECK(named_problem(NamedForm::kTernary, nullptr, 0, 0, 0) == nullptr);
}

void test_salient() {
  std::vector<uint8_t> data = {0xfb, 0x07, 0xfd, 0x03, 0x10, 0x01, 0x3a, 0x64, 0x80};
  const std::vector<int8_t> wanted = {-5, 7, -5, 7, 100, 3, 3, -3, -128, -3};
  std::vector<int8_t> codes(10);
  const auto problem = [&](int64_t size, int64_t rows = 2, int64_t count = 10) {
    return named_problem(NamedForm::kSalient, data.data(), size, rows, count);
  };
  CHECK(problem(9) == nullptr);
  unpack_salient(data.data(), 9, 2, 10, codes.data());
  CHECK(codes == wanted);
  for (int64_t size = 0; size < 9; ++size) CHECK((problem(size) == nullptr) == (size == 6));  // 6: signs only, also sound
  CHECK(problem(9, 3) != nullptr && problem(9, 0) != nullptr && problem(9, 2, 0) != nullptr);
  data[5] |= 0x80;  // behind the ten bits of the bitmap
  CHECK(problem(9) != nullptr);
  const uint8_t three[] = {0xff, 0x01, 0x05}, dirty[] = {0xff, 0x01, 0x08}, empty[] = {0xff, 0x01, 0x00, 0x05};
  CHECK(named_problem(NamedForm::kSalient, three, 3, 1, 3) == nullptr);  // no exceptions, no bitmap
  unpack_salient(three, 3, 1, 3, codes.data());
  CHECK(codes[0] == 1 && codes[1] == -1 && codes[2] == 1);
  CHECK(named_problem(NamedForm::kSalient, dirty, 3, 1, 3) != nullptr);
  CHECK(named_problem(NamedForm::kSalient, empty, 4, 1, 3) != nullptr);
}

}  // namespace
}  // namespace netsuke

int main() {
  netsuke::test_indices();
  netsuke::test_vectors();
  netsuke::test_ternary();
  netsuke::test_salient();
  netsuke::test_widths();
  return netsuke::check_result();
}
