// Random one-bit layers: the kernels of an instruction set against plain loops, bit for bit.
#ifndef NETSUKE_KERNELS_BGEMM_TEST_CASES_H_
#define NETSUKE_KERNELS_BGEMM_TEST_CASES_H_

#include <vector>

#include "kernels/base/test_op.h"
#include "kernels/bgemm/reference.h"

namespace netsuke {
namespace bgemm {

// Channel counts that are not multiples of the word, groups, pads of every value, strides, dilations, 1x1 images, batch 0.
class RandomLayer {
 public:
  explicit RandomLayer(uint64_t seed) : random_(seed) {
    const bool grouped = one_in(4), large = one_in(8);
    g_.groups = grouped ? pick(2, 5) : 1;
    const int64_t most = grouped ? 70 : large ? 300 : 140;
    g_.in_channels = g_.groups * (one_in(3) ? 64 * pick(1, grouped ? 2 : 4) : pick(1, most));
    g_.out_channels = g_.groups * (one_in(3) ? 64 : pick(1, most));
    if (!one_in(4)) {
      g_.kh = one_in(2) ? 3 : pick(1, 5);
      g_.kw = one_in(2) ? g_.kh : pick(1, 5);
      g_.dil_h = one_in(4) ? pick(1, 3) : 1;
      g_.dil_w = one_in(4) ? pick(1, 3) : 1;
      g_.pad_top = pick(0, 3);
      g_.pad_left = pick(0, 3);
      g_.pad_bottom = pick(0, 3);
      g_.pad_right = pick(0, 3);
    }
    g_.stride_h = one_in(2) ? 1 : pick(1, 3);
    g_.stride_w = one_in(2) ? g_.stride_h : pick(1, 3);
    pad_value_ = static_cast<int>(pick(-1, 1));
    e_ = {one_in(12) ? 0 : pick(1, 2), pick(1, 9), pick(1, 9), 0, 0};
  }

  // False where the window does not fit.
  bool prepare() {
    if (!qgemm::output_extent(g_, &e_).ok()) return false;
    const int64_t each = g_.in_per_group(), words = words_of(each);
    w_ = words_for(g_.out_channels * g_.kh * g_.kw, each);
    x_ = words_for(e_.n * e_.h * e_.w, g_.in_channels);
    (void)words;
    const size_t padded = static_cast<size_t>(g_.out_channels + 2 * kBlock);
    for (auto& v : vectors_) {
      v.assign(padded, 0.0f);
      for (float& f : v) f = one_in(8) ? 0.0f : random_.uniform(-2.0f, 2.0f);
    }
    thresholds_.assign(padded, 0);
    const int64_t k = g_.kh * g_.kw * each;
    const int kind = static_cast<int>(pick(0, 2));
    f_.out_bits = kind == 0;
    f_.out_f32 = kind == 1;
    for (int32_t& t : thresholds_) t = static_cast<int32_t>(kind == 2 ? pick(-1, 257) : one_in(10) ? k + 1 : pick(-k / 4 - 1, k / 4 + 1));
    f_.with_bits = kind != 0 && one_in(2);
    f_.zero_one = one_in(3);
    f_.threshold = thresholds_.data();
    f_.threshold_f32 = vectors_[4].data();
    if (kind != 0) {
      f_.mult = vectors_[0].data();
      const bool plain = one_in(3);  // whole blocks of codes have an epilogue of their own then
      if (plain || !one_in(3)) f_.bias = vectors_[1].data();
      if (!plain && one_in(2)) f_.slope = vectors_[2].data();
      if (!plain && one_in(2)) f_.shift = vectors_[3].data();
      f_.residual = one_in(2) ? 1 : 0;
      f_.zero = static_cast<int32_t>(pick(0, 255));
      f_.lo = static_cast<int32_t>(pick(0, 100));
      f_.hi = static_cast<int32_t>(pick(f_.lo, 255));
      f_.r_zero = static_cast<int32_t>(pick(0, 255));
      f_.r_mult = random_.uniform(0.0f, 1.0f);
    }
    flip_.assign(static_cast<size_t>(g_.out_channels), 0);
    for (uint8_t& v : flip_) v = one_in(3);
    const size_t outputs = static_cast<size_t>(e_.n * e_.oh * e_.ow * g_.out_channels);
    residual_.assign(outputs * 4 + 1, 0);
    for (size_t i = 0; i < outputs; ++i) {
      const float v = random_.uniform(-30.0f, 30.0f);
      if (f_.out_f32) std::memcpy(&residual_[4 * i], &v, 4);
      else residual_[i] = random_.code();
    }
    return true;
  }

  void compare(Isa isa, int threads, bool image) const {
    const size_t pixels = static_cast<size_t>(e_.n * e_.oh * e_.ow), outputs = pixels * static_cast<size_t>(g_.out_channels);
    const size_t words = pixels * static_cast<size_t>(words_of(g_.out_channels));
    const size_t bytes = f_.out_bits ? words * 8 : outputs * (f_.out_f32 ? 4 : 1);
    std::vector<uint64_t> want((bytes + 7) / 8 + 1, 7), got = want, want_bits(words + 1, 9), got_bits = want_bits;
    const void* residual = f_.residual != 0 ? residual_.data() : nullptr;
    reference(g_, pad_value_, w_.data(), flip_.data(), f_, e_, x_.data(), residual, want.data(), f_.with_bits ? want_bits.data() : nullptr);
    Layer layer;
    CHECK_OK(layer.build(g_, pad_value_, w_.data(), flip_.data(), f_, isa, image));
    ThreadPool pool(threads);
    Buffer scratch;
    CHECK_OK(scratch.allocate(layer.scratch_bytes(e_, threads)));
    layer.run(e_, x_.data(), residual, got.data(), f_.with_bits ? got_bits.data() : nullptr, scratch.data(), pool);
    const bool same = want == got && want_bits == got_bits;
    if (!same) {
      std::printf("%s: n%lld %lldx%lld c%lld -> %lld g%lld k%lldx%lld s%lld,%lld d%lld,%lld p%lld,%lld,%lld,%lld pad %d out %d%d%d %s\n", layer.kernel_name().c_str(),
                  (long long)e_.n, (long long)e_.h, (long long)e_.w, (long long)g_.in_channels, (long long)g_.out_channels, (long long)g_.groups,
                  (long long)g_.kh, (long long)g_.kw, (long long)g_.stride_h, (long long)g_.stride_w, (long long)g_.dil_h, (long long)g_.dil_w,
                  (long long)g_.pad_top, (long long)g_.pad_left, (long long)g_.pad_bottom, (long long)g_.pad_right, pad_value_, f_.out_bits,
                  f_.out_f32, f_.with_bits, f_.zero_one ? "bool" : "sign");
    }
    CHECK(same);
  }

 private:
  int64_t pick(int64_t lo, int64_t hi) { return random_.range(lo, hi); }
  bool one_in(int n) { return pick(1, n) == 1; }
  // Packed signs: random, or all the same (every count extreme).
  std::vector<uint64_t> words_for(int64_t rows, int64_t channels) {
    const int64_t words = words_of(channels);
    const int kind = static_cast<int>(pick(0, 4));
    std::vector<uint64_t> v(static_cast<size_t>(rows * words));
    for (size_t i = 0; i < v.size(); ++i) {
      v[i] = kind == 0 ? 0 : kind == 1 ? ~uint64_t{0} : random_.next() << 32 ^ random_.next();
      if (static_cast<int64_t>(i) % words == words - 1 && channels % 64 != 0) v[i] &= (uint64_t{1} << (channels % 64)) - 1;
    }
    return v;
  }

  TestRandom random_;
  Geometry g_;
  Extent e_;
  Finish f_;
  int pad_value_ = 0;
  std::vector<uint64_t> w_, x_;
  std::vector<float> vectors_[5];
  std::vector<int32_t> thresholds_;
  std::vector<uint8_t> flip_, residual_;
};

inline void check_many(Isa isa, int count, uint64_t seed) {
  for (int i = 0; i < count; ++i) {
    RandomLayer layer(seed + static_cast<uint64_t>(i));
    if (layer.prepare()) layer.compare(isa, 1 + i % 3, i % 4 != 0);
  }
}

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_TEST_CASES_H_
