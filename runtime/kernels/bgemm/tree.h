// Output channels in the order of a spanning tree: see tree.inc.
#ifndef NETSUKE_KERNELS_BGEMM_TREE_H_
#define NETSUKE_KERNELS_BGEMM_TREE_H_

#include <vector>

#include "kernels/bgemm/bgemm.h"

namespace netsuke {
namespace bgemm {

struct TreeOrder {
  std::vector<TreeNode> nodes;
  std::vector<TreeWord> words;
  Tree view() const { return {nodes.data(), words.data(), static_cast<int64_t>(nodes.size())}; }
  size_t bytes() const { return nodes.size() * sizeof(TreeNode) + words.size() * sizeof(TreeWord); }
};

// w: [channels][words]; a run of A holds words_a_run of them.
void build_tree(const uint64_t* w, int64_t channels, int64_t words, int64_t words_a_run, TreeOrder* out);

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_TREE_H_
