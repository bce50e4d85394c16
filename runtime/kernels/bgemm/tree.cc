// The minimum spanning tree of a layer's filters under the Hamming distance of their words, by Prim's algorithm.
#include <limits>

#include "kernels/bgemm/tree.h"

namespace netsuke {
namespace bgemm {
namespace {

int64_t distance(const uint64_t* a, const uint64_t* b, int64_t words) {
  int64_t sum = 0;
  for (int64_t i = 0; i < words; ++i) sum += __builtin_popcountll(a[i] ^ b[i]);
  return sum;
}

}  // namespace

// Edges weigh the bits that differ, as in the paper; ties go to the lower channel, so the order is the same everywhere.
void build_tree(const uint64_t* w, int64_t channels, int64_t words, int64_t words_a_run, TreeOrder* out) {
  std::vector<int64_t> best(static_cast<size_t>(channels), std::numeric_limits<int64_t>::max());
  std::vector<int32_t> parent(static_cast<size_t>(channels), -1);
  std::vector<bool> done(static_cast<size_t>(channels), false);
  best[0] = 0;
  for (int64_t step = 0; step < channels; ++step) {
    int64_t at = -1;
    for (int64_t c = 0; c < channels; ++c) {
      if (!done[static_cast<size_t>(c)] && (at < 0 || best[static_cast<size_t>(c)] < best[static_cast<size_t>(at)])) at = c;
    }
    done[static_cast<size_t>(at)] = true;
    TreeNode node = {static_cast<int32_t>(at), parent[static_cast<size_t>(at)], 0};
    const uint64_t* own = w + at * words;
    const uint64_t* other = node.parent < 0 ? nullptr : w + node.parent * words;
    for (int64_t i = 0; i < words; ++i) {
      if (other != nullptr && own[i] == other[i]) continue;
      const TreeWord word = {own[i], other == nullptr ? 0 : other[i], static_cast<int32_t>(i / words_a_run), static_cast<int32_t>(i % words_a_run * 8)};
      out->words.push_back(word);
      ++node.words;
    }
    out->nodes.push_back(node);
    for (int64_t c = 0; c < channels; ++c) {
      if (done[static_cast<size_t>(c)]) continue;
      const int64_t d = distance(own, w + c * words, words);
      if (d < best[static_cast<size_t>(c)]) {
        best[static_cast<size_t>(c)] = d;
        parent[static_cast<size_t>(c)] = static_cast<int32_t>(at);
      }
    }
  }
}

}  // namespace bgemm
}  // namespace netsuke
