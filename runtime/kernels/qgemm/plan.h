// Driver of the integer matrix product: packs the weights once, then turns a convolution or linear layer of any shape into tiles.
#ifndef NETSUKE_KERNELS_QGEMM_PLAN_H_
#define NETSUKE_KERNELS_QGEMM_PLAN_H_

#include <string>
#include <vector>

#include "base/arena.h"
#include "base/cpu.h"
#include "base/status.h"
#include "base/threads.h"
#include "kernels/qgemm/qgemm.h"

namespace netsuke {
namespace qgemm {

// The constant side of a layer. A linear layer is a 1x1 convolution over its rows.
struct Geometry {
  int64_t in_channels = 0, out_channels = 0, groups = 1;
  int64_t kh = 1, kw = 1, stride_h = 1, stride_w = 1, dil_h = 1, dil_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int32_t x_zero = 0;
  int64_t in_per_group() const { return in_channels / groups; }
  int64_t out_per_group() const { return out_channels / groups; }
};

// The shape side: images, input height and width, output height and width.
struct Extent {
  int64_t n = 0, h = 0, w = 0, oh = 0, ow = 0;
};

struct Weights {
  const int8_t* w = nullptr;           // OHWI, docs/format.md section 3
  const int32_t* acc_bias = nullptr;   // null: none
};

// out_h, out_w of an input, or an error when the kernel does not fit or a size leaves int32 range.
Status output_extent(const Geometry& g, Extent* extent);

// Plain loops over docs/numerics.md, for tests and for Isa::kPortable when the caller asks for it. x, residual, out as in Op::run.
void reference(const Geometry& g, const Weights& weights, const Requant& q, const Extent& e, const uint8_t* x, const void* residual,
               void* out);

// Kernels of an instruction set; null when it is not compiled in. Ordered lists live in kernels.inc.
const Kernels* kernels_of(Isa isa);
// Tests run emulated tables (AVX-512 through SIMDe) by putting them here; null restores.
void override_kernels_for_test(Isa isa, const Kernels* kernels);

class Layer {
 public:
  // weights stay valid only during the call.
  Status build(const Geometry& geometry, const Weights& weights, const Requant& requant, Isa isa, int threads);
  size_t scratch_bytes(const Extent& extent, int threads) const;
  void run(const Extent& extent, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const;
  const std::string& kernel_name() const { return name_; }
  size_t packed_bytes() const { return packed_.bytes() + init_.size() * sizeof(int32_t); }
  const Geometry& geometry() const { return g_; }
  const Requant& requant() const { return q_; }

 private:
  enum class Source : uint8_t { kDirect, kWhole, kLocal };
  struct Blocks;
  Blocks blocks(const Extent& e, int threads) const;
  void prepare_whole(const Blocks& b, const Extent& e, const uint8_t* x, uint8_t* whole, ThreadPool& pool) const;
  void run_task(const Blocks& b, const Extent& e, int64_t task, const uint8_t* x, const uint8_t* a, const int64_t* run_offset,
                uint8_t* local, const void* residual, void* out) const;
  void convert(const uint8_t* src, int64_t count, uint8_t* dst) const;
  void fill_zero(int64_t count, uint8_t* dst) const;

  Geometry g_;
  Requant q_;
  const Kernels* kernels_ = nullptr;
  const TileSet* set_ = nullptr;
  int64_t super_groups_ = 1;   // groups after merging small ones into one panel
  int64_t c_ = 0, o_ = 0;      // channels in and out of one super group
  int64_t runs_ = 0, run_length_ = 0, run_groups_ = 0, panels_ = 0, panel_bytes_ = 0;
  bool row_runs_ = false;      // a run covers a whole kernel row
  Buffer packed_;
  std::vector<int32_t> init_;  // [super_groups][panels * width]
  std::string name_;
};

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_PLAN_H_
