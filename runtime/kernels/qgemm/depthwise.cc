// Depthwise convolution: channels are independent, so vectors run over channels and the input is read in place. Taps outside the
// image point into a line of x_zero codes; only pixels at the left and right edge are computed one by one.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/qgemm/plan.h"

namespace netsuke {
namespace qgemm {
namespace {

constexpr int64_t kMaxTaps = 256;          // tap pointers live on the stack
constexpr int64_t kBlockChannels = 192;    // of one task: 3 rows of a 56-pixel image fit L1

class Depthwise final : public Algorithm {
 public:
  Status build(const Geometry& g, const Weights& weights, const Requant& q, const Kernels& kernels, int) override {
    g_ = g;
    q_ = q;
    kernels_ = &kernels;
    const int64_t taps = g.kh * g.kw, chunk = kernels.depthwise_chunk, c = g.in_channels;
    chunks_ = ceil_div(c, chunk);
    chunk_bytes_ = kernels.depthwise_bytes(taps);
    NETSUKE_TRY(packed_.allocate_shared(static_cast<size_t>(chunks_ * chunk_bytes_)));
    std::vector<int32_t> init(static_cast<size_t>(c));
    for (int64_t o = 0; o < c; ++o) {
      uint32_t sum = 0;
      for (int64_t t = 0; t < taps; ++t) sum += static_cast<uint32_t>(static_cast<int32_t>(weights.w[o * taps + t]));
      const uint32_t start = weights.acc_bias ? static_cast<uint32_t>(weights.acc_bias[o]) : 0u;
      init[static_cast<size_t>(o)] = static_cast<int32_t>(start - static_cast<uint32_t>(g.x_zero) * sum);
    }
    for (int64_t i = 0; i < chunks_; ++i) {
      const int64_t first = std::min(i * chunk, c - chunk);
      kernels.depthwise_pack(weights.w + first * taps, taps, init.data() + first, q, first, packed_.data() + i * chunk_bytes_);
    }
    return Status();
  }

  // A line of x_zero codes as long as the widest run of inner pixels.
  size_t scratch_bytes(const Extent& e, int) const override { return align_up(static_cast<size_t>((e.w + 1) * g_.in_channels)); }

  void run(const Extent& e, const uint8_t* x, const void* residual, void* out, void* scratch, ThreadPool& pool) const override {
    if (e.n == 0) return;
    std::memset(scratch, g_.x_zero, scratch_bytes(e, 1));
    const int64_t per_block = std::max<int64_t>(kBlockChannels / kernels_->depthwise_chunk, 1);
    const int64_t blocks = ceil_div(chunks_, per_block), rows = e.n * e.oh;
    // Four tasks a thread in all: a task of a small layer takes microseconds, and each costs tap pointers and an atomic counter.
    const int64_t row_tasks = pool.threads() == 1 ? 1 : std::min(round_up(ceil_div(4 * pool.threads(), blocks), pool.threads()), rows);
    pool.parallel_for(blocks * row_tasks, [&](int64_t task, int) {
      DepthwiseRow t;
      t.chunk0 = task % blocks * per_block;
      t.chunk1 = std::min(t.chunk0 + per_block, chunks_);
      const int64_t part = task / blocks;
      for (int64_t r = rows * part / row_tasks; r < rows * (part + 1) / row_tasks; ++r) {
        run_row(e, r, x, residual, out, static_cast<const uint8_t*>(scratch), &t);
      }
    });
  }

  std::string name() const override {
    return std::string(kernels_->sets[0].isa) + "_dw" + std::to_string(g_.kh) + "x" + std::to_string(g_.kw) + "_" +
           std::to_string(kernels_->depthwise_chunk);
  }
  size_t packed_bytes() const override { return packed_.bytes(); }

 private:
  void run_row(const Extent& e, int64_t row, const uint8_t* x, const void* residual, void* out, const uint8_t* zeros,
               DepthwiseRow* t) const {
    const int64_t c = g_.in_channels, out_element = q_.out_f32 ? 4 : 1, y0 = row % e.oh * g_.stride_h - g_.pad_top;
    const uint8_t* image = x + row / e.oh * e.h * e.w * c;
    // Pixels whose taps all lie inside: pad_left <= ox * stride and ox * stride + span <= w + pad_left.
    const int64_t span = (g_.kw - 1) * g_.dil_w, last = e.w - 1 + g_.pad_left - span;
    const int64_t inner0 = std::min(ceil_div(g_.pad_left, g_.stride_w), e.ow);
    const int64_t inner1 = last < 0 ? inner0 : std::max(inner0, std::min(last / g_.stride_w + 1, e.ow));
    const uint8_t* taps[kMaxTaps];
    t->taps = taps;
    t->taps_count = g_.kh * g_.kw;
    t->pixel_stride = g_.stride_w * c;
    t->packed = packed_.data();
    t->packed_stride = chunk_bytes_;
    t->channels = c;
    t->requant = &q_;
    for (int64_t ox = 0; ox < e.ow;) {
      const bool inner = ox >= inner0 && ox < inner1;
      const int64_t pixels = inner ? inner1 - ox : 1;
      for (int64_t ky = 0; ky < g_.kh; ++ky) {
        const int64_t y = y0 + ky * g_.dil_h;
        const uint8_t* line = image + y * e.w * c;
        for (int64_t kx = 0; kx < g_.kw; ++kx) {
          const int64_t at = ox * g_.stride_w - g_.pad_left + kx * g_.dil_w;
          taps[ky * g_.kw + kx] = y < 0 || y >= e.h || at < 0 || at >= e.w ? zeros : line + at * c;
        }
      }
      const int64_t offset = (row * e.ow + ox) * c * out_element;
      t->out = static_cast<uint8_t*>(out) + offset;
      t->residual = residual == nullptr ? nullptr : static_cast<const uint8_t*>(residual) + offset;
      t->pixels = pixels;
      kernels_->depthwise(*t);
      ox += pixels;
    }
  }

  Geometry g_;
  Requant q_;
  const Kernels* kernels_ = nullptr;
  int64_t chunks_ = 0, chunk_bytes_ = 0;
  Buffer packed_;
};

}  // namespace

bool depthwise_applies(const Geometry& g, const Kernels& kernels) {
  return kernels.depthwise_chunk > 0 && g.groups == g.in_channels && g.out_channels == g.in_channels &&
         g.in_channels >= kernels.depthwise_chunk && g.kh * g.kw <= kMaxTaps;
}

std::unique_ptr<Algorithm> make_depthwise() { return std::make_unique<Depthwise>(); }

}  // namespace qgemm
}  // namespace netsuke
