// Baseline loops: what the compiler makes of plain code for the oldest CPU of the family.
#include <cstring>

#include "limits/limits.h"

namespace netsuke {
namespace limits {
namespace {

constexpr int kLanes = 16;

uint64_t f32(int64_t count) {
  float acc[kLanes] = {}, a = 1.0f, b = 1e-9f;
  for (int64_t i = 0; i < count; ++i) {
    asm volatile("" : "+m"(a));  // the product is not to be hoisted
    for (int j = 0; j < kLanes; ++j) acc[j] += a * b;
  }
  float sum = 0;
  for (float v : acc) sum += v;
  return static_cast<uint64_t>(sum);
}

uint64_t int8(int64_t count) {
  int32_t acc[kLanes] = {};
  int32_t a = 3;
  for (int64_t i = 0; i < count; ++i) {
    asm volatile("" : "+m"(a));
    for (int j = 0; j < kLanes; ++j) acc[j] = static_cast<int32_t>(static_cast<uint32_t>(acc[j]) + static_cast<uint32_t>(a * j));
  }
  uint64_t sum = 0;
  for (int32_t v : acc) sum += static_cast<uint64_t>(static_cast<uint32_t>(v));
  return sum;
}

uint64_t bits(int64_t count) {
  uint64_t acc[4] = {}, a = 3;
  for (int64_t i = 0; i < count; ++i) {
    asm volatile("" : "+m"(a));  // the count is not to be hoisted
    for (uint64_t j = 0; j < 4; ++j) {
      uint64_t v = a ^ j;
      v -= (v >> 1) & 0x5555555555555555ull;
      v = (v & 0x3333333333333333ull) + ((v >> 2) & 0x3333333333333333ull);
      v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full;
      acc[j] += (v * 0x0101010101010101ull) >> 56;
    }
  }
  return acc[0] + acc[1] + acc[2] + acc[3];
}

uint64_t read(const uint8_t* data, size_t bytes) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    uint64_t word[8];
    std::memcpy(word, data + i, 64);
    for (int j = 0; j < 8; ++j) sum[j] += word[j];
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

}  // namespace

Loops portable_loops() {
  Loops loops;
  loops.f32 = {f32, kLanes};
  loops.int8 = {int8, kLanes};
  loops.bits = {bits, 64 * 4};
  loops.read = read;
  return loops;
}

}  // namespace limits
}  // namespace netsuke
