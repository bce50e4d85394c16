#include "graph/memory.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/arena.h"

namespace netsuke {
namespace {

// Largest first, each at the lowest-waste gap between the blocks alive with it, takes quadratic time: 4,096 blocks are
// 16 million comparisons. Longer programs are laid out in order of execution.
constexpr size_t kBySizeBlocks = 4096;

int64_t rounded(int64_t bytes) { return static_cast<int64_t>(align_up(static_cast<size_t>(bytes))); }

bool total_fits(const std::vector<Block>& blocks) {
  int64_t total = 0;
  for (const Block& block : blocks) {
    if (block.bytes < 0 || block.bytes > INT64_MAX - 64 || !checked_add(total, rounded(block.bytes), &total)) return false;
  }
  return true;
}

// `placed` holds the indices already placed, by rising offset.
int64_t best_gap(const std::vector<Block>& blocks, const std::vector<size_t>& placed, const Block& wanted) {
  const int64_t need = rounded(wanted.bytes);
  int64_t end = 0, best = -1, best_waste = INT64_MAX;
  for (size_t index : placed) {
    const Block& other = blocks[index];
    if (other.last < wanted.first || other.first > wanted.last) continue;
    const int64_t waste = other.offset - end - need;
    if (waste >= 0 && waste < best_waste) {
      best = end;
      best_waste = waste;
    }
    end = std::max(end, other.offset + rounded(other.bytes));
  }
  return best >= 0 ? best : end;
}

int64_t place_by_size(std::vector<Block>* blocks) {
  std::vector<size_t> order(blocks->size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return (*blocks)[a].bytes > (*blocks)[b].bytes; });
  std::vector<size_t> placed;
  int64_t size = 0;
  for (size_t index : order) {
    Block& block = (*blocks)[index];
    block.offset = best_gap(*blocks, placed, block);
    size = std::max(size, block.offset + rounded(block.bytes));
    const auto after = std::upper_bound(placed.begin(), placed.end(), block.offset,
                                        [&](int64_t offset, size_t other) { return offset < (*blocks)[other].offset; });
    placed.insert(after, index);
  }
  return size;
}

// Free gaps of the arena, by offset and by size; gaps that touch are merged.
class FreeList {
 public:
  int64_t take(int64_t need) {
    const auto found = by_size_.lower_bound({need, 0});
    if (found == by_size_.end()) return grow(need);
    const auto [bytes, offset] = *found;
    remove(offset, bytes);
    if (bytes > need) insert(offset + need, bytes - need);
    return offset;
  }

  void give(int64_t offset, int64_t bytes) {
    auto next = by_offset_.lower_bound(offset);
    if (next != by_offset_.end() && next->first == offset + bytes) {
      const auto [at, length] = *next;
      remove(at, length);
      bytes += length;
    }
    auto before = by_offset_.lower_bound(offset);
    if (before != by_offset_.begin() && (--before)->first + before->second == offset) {
      const auto [at, length] = *before;
      remove(at, length);
      offset = at;
      bytes += length;
    }
    insert(offset, bytes);
  }

  int64_t size() const { return size_; }

 private:
  int64_t grow(int64_t need) {
    int64_t offset = size_;
    if (!by_offset_.empty()) {
      const auto [at, length] = *by_offset_.rbegin();
      if (at + length == size_) {
        remove(at, length);
        offset = at;
      }
    }
    size_ = offset + need;
    return offset;
  }
  void insert(int64_t offset, int64_t bytes) {
    by_offset_[offset] = bytes;
    by_size_.insert({bytes, offset});
  }
  void remove(int64_t offset, int64_t bytes) {
    by_offset_.erase(offset);
    by_size_.erase({bytes, offset});
  }
  std::map<int64_t, int64_t> by_offset_;
  std::set<std::pair<int64_t, int64_t>> by_size_;
  int64_t size_ = 0;
};

int64_t place_in_order(std::vector<Block>* blocks) {
  std::vector<size_t> starts(blocks->size());
  std::iota(starts.begin(), starts.end(), size_t{0});
  std::vector<size_t> ends = starts;
  std::stable_sort(starts.begin(), starts.end(), [&](size_t a, size_t b) { return (*blocks)[a].first < (*blocks)[b].first; });
  std::stable_sort(ends.begin(), ends.end(), [&](size_t a, size_t b) { return (*blocks)[a].last < (*blocks)[b].last; });
  FreeList free;
  size_t ended = 0;
  for (size_t index : starts) {
    Block& block = (*blocks)[index];
    for (; ended < ends.size() && (*blocks)[ends[ended]].last < block.first; ++ended) {
      const Block& over = (*blocks)[ends[ended]];
      if (over.bytes > 0) free.give(over.offset, rounded(over.bytes));
    }
    block.offset = block.bytes > 0 ? free.take(rounded(block.bytes)) : 0;
  }
  return free.size();
}

}  // namespace

int64_t place_blocks(std::vector<Block>* blocks) {
  if (!total_fits(*blocks)) return -1;
  return blocks->size() <= kBySizeBlocks ? place_by_size(blocks) : place_in_order(blocks);
}

}  // namespace netsuke
