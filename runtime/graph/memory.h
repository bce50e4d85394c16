// Where intermediate tensors live: blocks with lifetimes are laid into one arena so that blocks alive together never overlap.
#ifndef NETSUKE_GRAPH_MEMORY_H_
#define NETSUKE_GRAPH_MEMORY_H_

#include <cstdint>
#include <vector>

namespace netsuke {

struct Block {
  int64_t bytes = 0;
  int first = 0;  // steps at which the block is alive, both ends included
  int last = 0;
  int64_t offset = -1;  // result, a multiple of 64
};

// Returns the bytes of the arena, or -1 when they leave int64.
int64_t place_blocks(std::vector<Block>* blocks);

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_MEMORY_H_
