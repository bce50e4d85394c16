// The arena: blocks alive together never overlap, on both paths, and reuse comes near the lower bound.
#include <algorithm>
#include <random>
#include <vector>

#include "base/check.h"
#include "graph/memory.h"

namespace netsuke {
namespace {

std::vector<Block> random_blocks(size_t count, int steps, int longest, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Block> blocks;
  for (size_t i = 0; i < count; ++i) {
    const int first = static_cast<int>(random() % static_cast<uint32_t>(steps));
    const int last = first + static_cast<int>(random() % static_cast<uint32_t>(longest));
    blocks.push_back({static_cast<int64_t>(random() % 10000), first, last, -1});
  }
  return blocks;
}

// The most bytes alive at any step: no layout can be smaller.
int64_t lower_bound(const std::vector<Block>& blocks) {
  int64_t most = 0;
  for (const Block& at : blocks) {
    int64_t alive = 0;
    for (const Block& other : blocks) {
      if (other.first <= at.first && at.first <= other.last) alive += (other.bytes + 63) / 64 * 64;
    }
    most = std::max(most, alive);
  }
  return most;
}

bool disjoint(const std::vector<Block>& blocks, int64_t size) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Block& a = blocks[i];
    if (a.offset < 0 || a.offset % 64 != 0 || a.offset + a.bytes > size) return false;
    for (size_t j = 0; j < i; ++j) {
      const Block& b = blocks[j];
      const bool together = a.first <= b.last && b.first <= a.last;
      if (together && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes && a.bytes > 0 && b.bytes > 0) return false;
    }
  }
  return true;
}

void test_random() {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::vector<Block> blocks = random_blocks(200, 100, 6, seed);
    const int64_t size = place_blocks(&blocks);
    CHECK(disjoint(blocks, size));
    CHECK(size >= lower_bound(blocks) && size <= lower_bound(blocks) * 5 / 4);
  }
}

void test_many() {
  std::vector<Block> blocks = random_blocks(6000, 3000, 5, 1);  // above the limit of the quadratic path
  const int64_t size = place_blocks(&blocks);
  CHECK(disjoint(blocks, size));
  CHECK(size <= lower_bound(blocks) * 3 / 2);
}

void test_chain_needs_two() {
  std::vector<Block> chain;
  for (int i = 0; i < 50; ++i) chain.push_back({1000, i, i + 1, -1});
  CHECK(place_blocks(&chain) == 2048);
}

void test_overflow() {
  std::vector<Block> blocks = {{INT64_MAX - 10, 0, 1, -1}, {INT64_MAX - 10, 0, 1, -1}};
  CHECK(place_blocks(&blocks) == -1);
  blocks.clear();
  CHECK(place_blocks(&blocks) == 0);
}

}  // namespace
}  // namespace netsuke

int main() {
  netsuke::test_random();
  netsuke::test_many();
  netsuke::test_chain_needs_two();
  netsuke::test_overflow();
  return netsuke::check_result();
}
