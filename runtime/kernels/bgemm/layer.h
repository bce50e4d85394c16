// One one-bit layer: packs the weights once, then turns a convolution or linear layer of any shape into tiles.
#ifndef NETSUKE_KERNELS_BGEMM_LAYER_H_
#define NETSUKE_KERNELS_BGEMM_LAYER_H_

#include <string>
#include <vector>

#include "base/arena.h"
#include "base/threads.h"
#include "kernels/bgemm/bgemm.h"
#include "kernels/bgemm/forms.h"
#include "kernels/bgemm/tree.h"
#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace bgemm {

using qgemm::Extent;
using qgemm::Geometry;

inline int64_t words_of(int64_t channels) { return (channels + 63) / 64; }

class Layer {
 public:
  Layer() = default;
  Layer(const Layer&) = delete;  // kernels_ may point into it
  Layer& operator=(const Layer&) = delete;
  // w: [O, kh, kw, words of a group], spare bits 0. flip: one byte a channel or null. finish's vectors live as long as the layer.
  // image: many rows of A to expect, as a convolution has; forms count eight pixels at a time.
  Status build(const Geometry& g, int pad_value, const uint64_t* w, const uint8_t* flip, const Finish& finish, Isa isa, bool image);
  size_t scratch_bytes(const Extent& e, int threads) const;
  // x: [n, h, w, words]. out: y, or the packed signs when out_bits; bits: the second output or null.
  void run(const Extent& e, const uint64_t* x, const void* residual, void* out, uint64_t* bits, void* scratch, ThreadPool& pool) const;
  std::string kernel_name() const { return std::string(forms_ != nullptr ? forms_->name : kernels_->name) + (tree_.nodes.empty() ? "" : "_tree"); }
  size_t packed_bytes() const { return packed_.bytes() + (tap_bits_.size() + ones_.size()) * 4 + tree_.bytes(); }
  const std::string& key() const { return key_; }                  // base/choices.h
  const std::vector<std::string>& ways() const { return ways_; }   // "tiles"; "tree" where groups == 1
  const Geometry& geometry() const { return g_; }
  const Finish& finish() const { return f_; }

 private:
  struct Blocks;
  struct Task;
  struct Dropped;
  struct FormPlan;
  struct FormTask;
  struct Outputs {
    const void* residual;
    void* out;
    uint64_t* bits;
  };
  // A tap's pixel (py, px) of the padded image lies in the planes of the phase (py % stride_h, px % stride_w).
  struct FormTap {
    int64_t phase, row, column;
  };
  struct FormPhase {
    int64_t row, column;
  };
  Blocks blocks(const Extent& e, int threads) const;
  void pack(const uint64_t* w);
  void write_taps(const uint64_t* w, int64_t unit);
  void set_padding();
  void prepare(const Blocks& b, const Extent& e, const uint64_t* x, uint8_t* dst, ThreadPool& pool) const;
  void convert(const uint64_t* x, int64_t pixels, uint8_t* dst) const;
  void run_task(const Blocks& b, const Extent& e, const Task& task) const;
  void choose(const uint64_t* w, Isa isa);
  int32_t valid_taps(const Extent& e, int64_t m, int64_t range[4]) const;
  void choose_forms(Isa isa);
  FormPlan form_plan(const Extent& e) const;
  size_t form_scratch_bytes(const Extent& e) const;
  void form_planes(const FormPlan& plan, const Extent& e, const uint64_t* x, uint8_t* planes, ThreadPool& pool) const;
  uint64_t form_words(const FormPlan& plan, const Extent& e, const uint64_t* x, const FormPhase& phase, int64_t position, int64_t word, uint64_t* to) const;
  int64_t form_runs(const FormPlan& plan, const Extent& e, const FormTask& task, FormRun* runs, int32_t* base) const;
  bool small_results() const;
  void run_forms(const Extent& e, const uint64_t* x, const Outputs& out, uint8_t* scratch, ThreadPool& pool) const;
  void form_task(const FormPlan& plan, const Extent& e, const FormTask& task) const;
  void bits_outside(int64_t unit, const int64_t range[4], int32_t* sums) const;
  void sum_ones(int64_t unit, int rows, int columns, int32_t* count) const;
  bool zero_padded() const { return pad_value_ == 0 && !f_.zero_one && (g_.pad_top | g_.pad_left | g_.pad_bottom | g_.pad_right) != 0; }
  // Blocks of 64 outputs are whole words of the packed output.
  bool aligned() const { return g_.groups == 1 || g_.out_per_group() % kBlock == 0; }

  Geometry g_;
  Finish f_;
  int pad_value_ = 0;
  const Kernels* kernels_ = nullptr;
  Kernels own_ = {};                 // the tree's: rows of words, one at a time
  const FormKernels* forms_ = nullptr;   // in place of the tiles of kernels_
  std::vector<FormTap> form_taps_;
  std::vector<FormPhase> form_phases_;
  TreeOrder tree_;
  std::string key_;
  std::vector<std::string> ways_;
  int64_t tap_steps_ = 0, tap_bytes_ = 0;      // of one tap of one group in A
  int64_t runs_ = 0, steps_ = 0;
  int64_t group_blocks_ = 0, block_bytes_ = 0;
  Buffer packed_;
  std::vector<uint64_t> flip_;       // [units]
  std::vector<int32_t> tap_bits_;    // kWords with zero padding: [units][taps][64] popcounts of w
  std::vector<int32_t> ones_;        // zero_one: [units][64] popcounts of w
  std::vector<uint8_t> pad_pixel_;   // a padded pixel of A
};

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_LAYER_H_
