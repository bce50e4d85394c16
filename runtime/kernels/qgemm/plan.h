// Driver of the integer matrix product: packs the weights once, then turns a convolution or linear layer of any shape into tiles.
#ifndef NETSUKE_KERNELS_QGEMM_PLAN_H_
#define NETSUKE_KERNELS_QGEMM_PLAN_H_

#include <memory>
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
  int32_t x_hi = 255;  // the largest code x can hold, x_zero (padding) included
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

// One way to compute a layer. Built once; run() may be called from several threads at once.
class Algorithm {
 public:
  virtual ~Algorithm() = default;
  virtual Status build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int threads) = 0;
  virtual size_t scratch_bytes(const Extent& extent, int threads) const = 0;
  virtual void run(const Extent& extent, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const = 0;
  virtual std::string name() const = 0;         // isa_tile, or isa_method_tile
  virtual size_t packed_bytes() const = 0;
};

std::unique_ptr<Algorithm> make_gemm();        // gemm.cc: any layer
std::unique_ptr<Algorithm> make_depthwise();   // depthwise.cc
bool depthwise_applies(const Geometry& g, const Kernels& kernels);
// Ways of Winograd that are exact for the layer, "winograd4", "winograd2", "winograd3_narrow" or "winograd2_narrow", the fastest as a rule first.
std::vector<std::string> winograd_ways(const Geometry& g, const Weights& weights, const Kernels& kernels);  // winograd_exact.cc
std::unique_ptr<Algorithm> make_winograd(const std::string& way);                                           // winograd.cc
std::unique_ptr<Algorithm> make_bitserial(Isa isa);  // bitserial.cc
bool bitserial_applies(const Geometry& g, const Weights& weights, const Requant& q);

class Layer {
 public:
  // weights stay valid only during the call; the vectors in requant for the life of the layer.
  Status build(const Geometry& geometry, const Weights& weights, const Requant& requant, Isa isa, int threads);
  size_t scratch_bytes(const Extent& extent, int threads) const { return algorithm_->scratch_bytes(extent, threads); }
  void run(const Extent& extent, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const {
    algorithm_->run(extent, x, residual, out, scratch, pool);
  }
  std::string kernel_name() const { return algorithm_->name(); }
  size_t packed_bytes() const { return algorithm_->packed_bytes(); }
  const Geometry& geometry() const { return g_; }
  const Requant& requant() const { return q_; }
  // Names of the ways to compute the layer where there is more than one: the rule's own first. base/choices.h picks another.
  const std::string& key() const { return key_; }
  const std::vector<std::string>& ways() const { return ways_; }

 private:
  std::unique_ptr<Algorithm> make(const std::string& way, Isa isa) const;
  Geometry g_;
  Requant q_;
  std::unique_ptr<Algorithm> algorithm_;
  std::string key_;
  std::vector<std::string> ways_;
};

// The correction that a kernel's view of x needs: what it multiplies is x - shift_of(layout, x_zero) away from x - x_zero.
inline int32_t zero_shift(Layout layout, int32_t x_zero) {
  return layout == Layout::kS16x2 ? 0 : layout == Layout::kU8x4 || layout == Layout::kPicked ? x_zero : x_zero - 128;
}
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_PLAN_H_
