// The tiled product: packed weights, input rows read in place or copied once, see qgemm.h.
#ifndef NETSUKE_KERNELS_QGEMM_GEMM_H_
#define NETSUKE_KERNELS_QGEMM_GEMM_H_

#include <string>
#include <vector>

#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {

// How many groups of 4 products the sums of a narrow set may hold in 16 bits, at most kMostChain; 0 when the layer does not profit or the
// instruction set has no such tiles.
constexpr int64_t kMostChain = 64;
int64_t narrow_chain(const Geometry& g, const Weights& weights, const Kernels& kernels);

class Gemm final : public Algorithm {
 public:
  Status build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int threads) override;
  size_t scratch_bytes(const Extent& extent, int threads) const override;
  void run(const Extent& extent, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const override;
  std::string name() const override {
    const std::string kind = chain_ > 0                       ? "_narrow" + std::to_string(chain_)
                             : set_->layout == Layout::kPicked ? "_picked" + std::to_string(picked_plain_)
                                                               : "";
    return set_->isa + kind + "_" + std::to_string(set_->rows) + "x" + std::to_string(set_->width);
  }
  size_t packed_bytes() const override { return (picked_bytes_ > 0 ? picked_bytes_ : packed_.bytes()) + init_.size() * sizeof(int32_t); }

 private:
  enum class Source : uint8_t { kDirect, kWhole, kLocal };
  struct Blocks;
  struct Output;
  Blocks blocks(const Extent& e, int threads) const;
  void find_rows(const Blocks& b, const Extent& e, int64_t m0, int64_t rows, const uint8_t* x, const uint8_t* a, uint8_t* local,
                 const uint8_t** base) const;
  void choose_panel(int64_t unit, bool as_bytes, uint8_t* expanded, Tile* tile) const;
  void expand_panel(int64_t unit, uint8_t* expanded) const;
  void run_tiles(const TileFn* functions, int64_t r0, int64_t r1, int64_t tiles, const Output& to, int64_t fetched, Tile* tile) const;
  int64_t fetch_ahead(int64_t unit, int64_t next, int64_t tiles, Tile* tile) const;
  void run_task(const Blocks& b, const Extent& e, int64_t task, const uint8_t* x, const uint8_t* a, const int64_t* run_offset,
                uint8_t* local, const uint8_t* residual, uint8_t* out) const;
  void pack(const Weights& weights, int64_t merge);
  PickedSize pick_panel(const Weights& weights, int64_t panel, uint8_t* work);
  Status pick(const Weights& weights, int threads, bool* picked);

  Geometry g_;
  Requant q_;
  const Kernels* kernels_ = nullptr;
  const TileSet* set_ = nullptr;
  int64_t super_groups_ = 1;   // groups after merging small ones into one panel
  int64_t c_ = 0, o_ = 0;      // channels in and out of one super group
  int64_t runs_ = 0, run_length_ = 0, run_groups_ = 0, panels_ = 0, panel_bytes_ = 0;
  bool row_runs_ = false;      // a run covers a whole kernel row
  int64_t chain_ = 0;          // of the narrow set; 0: another set
  std::vector<int64_t> picked_at_;  // kPicked: where each panel starts
  std::vector<PickedSize> picked_sizes_;
  size_t picked_bytes_ = 0;         // of packed_, whose end was never touched
  int picked_plain_ = 0;            // kPicked: plain units of a hundred
  Buffer packed_;
  std::vector<int32_t> init_;  // [super_groups][panels * width]
};

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_GEMM_H_
