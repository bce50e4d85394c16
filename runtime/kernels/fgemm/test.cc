// The matrix product on random jobs: every tile height and width, cache blocks, groups, epilogues. All instruction sets against one plain
// fma chain an output, bit for bit; the 16-lane tile of AVX-512 runs here whatever the CPU has.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <cstdio>
#include <vector>

#include "base/check.h"
#include "kernels/base/op_runner.h"
#include "kernels/fgemm/bf16.h"
#include "kernels/fgemm/fgemm.h"

#if defined(__x86_64__)
#include <immintrin.h>

// The tile of AVX-512, lowered to whatever this CPU has. Not for Arm, which never runs it and compiles it for three minutes.
#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_ROWS 12
#define NETSUKE_VECTORS 2
#define NETSUKE_NAME "wide_12x32"
#include "kernels/fgemm/tile.inc"
#endif

namespace {

using namespace netsuke;

// The kernels of every instruction set this CPU has, and the wide ones.
std::vector<const FgemmKernels*> kernels_here() {
  std::vector<const FgemmKernels*> all;
  for (Isa isa : testable_isas()) all.push_back(&fgemm_kernels(isa));
#if defined(__x86_64__)
  all.push_back(&fgemm_kernels_wide);
#endif
  return all;
}

struct Problem {
  int64_t rows, cols, taps, channels, groups;
  bool bias, residual, relu;
  float scale;
  std::vector<float> a, b, bias_values, r;  // a [rows, taps, groups * channels], b [groups * cols, taps * channels]
};

Problem random_problem(TestRandom* random, int64_t rows, int64_t cols, int64_t taps, int64_t channels, int64_t groups) {
  Problem p = {rows, cols, taps, channels, groups, random->below(2) == 0, random->below(3) == 0, random->below(2) == 0, random->below(2) ? 1.0f : 0.37f, {}, {}, {}, {}};
  const auto fill = [&](std::vector<float>* v, int64_t n) {
    for (int64_t i = 0; i < n; ++i) v->push_back(random->unit());
  };
  fill(&p.a, rows * taps * groups * channels);
  fill(&p.b, groups * cols * taps * channels);
  fill(&p.bias_values, groups * cols);
  fill(&p.r, rows * groups * cols);
  return p;
}

// The definition.
std::vector<float> plain(const Problem& p) {
  std::vector<float> c(static_cast<size_t>(p.rows * p.groups * p.cols));
  for (int64_t m = 0; m < p.rows; ++m) {
    for (int64_t g = 0; g < p.groups; ++g) {
      for (int64_t n = 0; n < p.cols; ++n) {
        float acc = 0;
        for (int64_t t = 0; t < p.taps; ++t) {
          for (int64_t ch = 0; ch < p.channels; ++ch) {
            acc = std::fma(p.a[static_cast<size_t>((m * p.taps + t) * p.groups * p.channels + g * p.channels + ch)],
                           p.b[static_cast<size_t>(((g * p.cols + n) * p.taps + t) * p.channels + ch)], acc);
          }
        }
        const size_t at = static_cast<size_t>((m * p.groups + g) * p.cols + n);
        acc = acc * p.scale;
        if (p.bias) acc = acc + p.bias_values[static_cast<size_t>(g * p.cols + n)];
        if (p.residual) acc = acc + p.r[at];
        c[at] = p.relu && acc < 0 ? 0.0f : acc;
      }
    }
  }
  return c;
}

void pointers(const void* context, int64_t row, int64_t count, const float** out) {
  const Problem& p = *static_cast<const Problem*>(context);
  for (int64_t i = 0; i < count * p.taps; ++i) out[i] = p.a.data() + (row * p.taps + i) * p.groups * p.channels;
}

std::vector<float> run(const Problem& p, const FgemmKernels& kernels, int threads, bool bf16 = false, bool flush = false) {
  const int64_t k = p.taps * p.channels;
  const size_t group = fgemm_packed_floats(kernels, p.cols, k), padded = fgemm_padded_cols(kernels, p.cols);
  std::vector<float> packed(group * static_cast<size_t>(p.groups)), bias(padded * static_cast<size_t>(p.groups), NAN);
  for (int64_t g = 0; g < p.groups; ++g) {
    fgemm_pack(kernels, p.b.data() + g * p.cols * k, p.cols, k, k, 1, packed.data() + group * static_cast<size_t>(g), 0, fgemm_panels(kernels, p.cols));
    for (int64_t n = 0; n < p.cols; ++n) bias[padded * static_cast<size_t>(g) + static_cast<size_t>(n)] = p.bias_values[static_cast<size_t>(g * p.cols + n)];
  }
  std::vector<float> c(static_cast<size_t>(p.rows * p.groups * p.cols), NAN);
  FgemmJob job;
  job.kernels = &kernels;
  job.rows = p.rows;
  job.cols = p.cols;
  job.taps = p.taps;
  job.channels = p.channels;
  job.groups = p.groups;
  job.b = packed.data();
  job.bias = p.bias ? bias.data() : nullptr;
  job.c = c.data();
  job.ldc = job.ldr = p.groups * p.cols;
  job.r = p.residual ? p.r.data() : nullptr;
  job.scale = p.scale;
  job.act.fn = p.relu ? UnaryFn::relu : UnaryFn::identity;
  job.pointers = pointers;
  job.context = &p;
  job.bf16 = bf16;
  job.flush = flush;
  std::vector<uint8_t> scratch(fgemm_scratch_bytes(p.rows, p.taps) + 64);
  const int64_t tasks = fgemm_plan(&job, threads);
  for (int64_t t = tasks - 1; t >= 0; --t) fgemm_task(job, t, scratch.data());  // tasks are independent: any order
  return c;
}

void check_problem(const Problem& p) {
  const std::vector<float> expected = plain(p);
  const auto same = [&](const FgemmKernels& kernels) {
    for (int threads : {1, 3}) {
      const std::vector<float> c = run(p, kernels, threads);
      if (CHECK(c.size() == expected.size() && std::memcmp(c.data(), expected.data(), c.size() * sizeof(float)) == 0)) continue;
      std::fprintf(stderr, "  %s %lldx%lldx%lldx%lld groups %lld\n", kernels.name, (long long)p.rows, (long long)p.cols, (long long)p.taps, (long long)p.channels, (long long)p.groups);
    }
  };
  for (const FgemmKernels* kernels : kernels_here()) same(*kernels);
}

float float_of(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

// The conversion: rounding, ties, overflow to infinity, NaN, subnormals, odd channels. Without `between`, floats that round up to the smallest
// normal bfloat16: the conversion instruction does not take them.
void check_to_bf16(bool between) {
  TestRandom random(21);
  std::vector<float> x = {1.0f, -0.0f, 0.0f, 1e-40f, -1e-39f, NAN, INFINITY, -INFINITY, 3.4e38f, float_of(0x3f808000), float_of(0x3f818000), float_of(0x3f808001),
                          float_of(0x007f8000), float_of(0x007f7fff), float_of(0x7f7f8000), float_of(0x7f800001)};
  while (x.size() < 700) x.push_back(float_of(random.next() << 8 ^ random.next()));
  for (float& v : x) {
    uint32_t b;
    std::memcpy(&b, &v, 4);
    if (!between && (b & 0x7fffffff) >= 0x007f8000 && (b & 0x7fffffff) < 0x00800000) v = float_of(0x807f7fff);
  }
  for (int64_t channels : {1, 2, 3, 5, 7, 20, 100, 700}) {
    const int64_t rows = 700 / channels, words = (channels + 1) / 2;
    std::vector<uint32_t> expected(static_cast<size_t>(rows * words)), out(expected.size());
    uint32_t least = 255;
    for (int64_t i = 0; i < rows * channels; ++i) {
      const uint32_t kept = rounded_to_bf16(x[static_cast<size_t>(i)]);
      if (kept & 0x7f80) least = std::min(least, (kept >> 7) & 255);
      expected[static_cast<size_t>(i / channels * words + i % channels / 2)] |= kept << (i % channels % 2 * 16);
    }
    const auto same = [&](const FgemmKernels& kernels) {
      CHECK(kernels.to_bf16(x.data(), rows, channels, out.data()) == least);
      CHECK(out == expected);
      // The same pairs from two rows, where these are the even and the odd channels.
      std::vector<float> even, odd;
      for (int64_t i = 0; i + 1 < rows * channels; i += 2) {
        even.push_back(x[static_cast<size_t>(i)]);
        odd.push_back(x[static_cast<size_t>(i) + 1]);
      }
      std::vector<uint32_t> pairs(even.size());
      if (channels % 2 != 0) return;
      CHECK(kernels.pair_rows(even.data(), odd.data(), static_cast<int64_t>(even.size()), pairs.data()) == least);
      CHECK(pairs == expected);
    };
    for (const FgemmKernels* kernels : kernels_here()) same(*kernels);
    for (Isa isa : testable_isas()) same(fgemm_bf16_kernels(isa));
  }
}

#if defined(__x86_64__)
// What the processor does with subnormals flushed (bits 6 and 15 of MXCSR): the definition describes this.
__attribute__((target("fma"), noinline)) float flushed_fma(float x, float w, float acc) {
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(saved | 0x8040);
  volatile float y = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(x), _mm_set_ss(w), _mm_set_ss(acc)));
  _mm_setcsr(saved);
  return y;
}
void check_hardware_flush() {
  if (!isa_available(Isa::kAvx2)) return;
  TestRandom random(5);
  int64_t bad = 0, flushed = 0;
  for (int i = 0; i < 300000; ++i) {
    const uint32_t x = (random.next() & 0x807f) << 16 | static_cast<uint32_t>(60 + random.below(8)) << 23;
    const uint32_t w = (random.next() & 0x807f) << 16 | static_cast<uint32_t>(60 + random.below(8)) << 23;
    // Around -x w, so that the sum falls on both sides of 2^-126, also by less than a rounding.
    float acc = -float_of(x) * float_of(w) + (i % 2 ? 1 : -1) * float_of(0x00800000u >> (i % 3)) * (i % 5 ? 1.0f : 0.0f);
    uint32_t b;
    std::memcpy(&b, &acc, 4);
    acc = float_of(b + static_cast<uint32_t>(random.below(5)) - 2);
    if (std::fabs(acc) < 0x1p-126f) continue;
    const float hardware = flushed_fma(float_of(x), float_of(w), acc);
    const float defined = bf16_multiply_add(x, w, acc);  // the low halves are 0 and add nothing
    flushed += hardware == 0;
    bad += hardware != defined;
  }
  CHECK(bad == 0);
  CHECK(flushed > 1000);
}
#else
void check_hardware_flush() {}
#endif

// Products of pairs against the definition, with ordinary numbers and with numbers so small that sums are flushed on the way.
void check_pairs(int64_t rows, int64_t cols, int64_t k, bool tiny, uint64_t seed) {
  TestRandom random(seed);
  Problem p = {rows, cols, 1, k, 1, false, false, false, 1.0f, {}, {}, {}, {}};
  const auto pair = [&]() {
    uint32_t w = 0;
    for (int half = 0; half < 2; ++half) {
      const uint32_t exponent = static_cast<uint32_t>(tiny ? 58 + random.below(12) : 110 + random.below(20));
      w = w << 16 | (random.below(9) == 0 ? 0 : (random.next() & 0x807f) | exponent << 7);
    }
    return float_of(w);
  };
  for (int64_t i = 0; i < rows * k; ++i) p.a.push_back(pair());
  for (int64_t i = 0; i < cols * k; ++i) p.b.push_back(pair());
  p.bias_values.resize(static_cast<size_t>(cols));
  std::vector<float> expected;
  for (int64_t i = 0; i < rows * cols; ++i) {
    float acc = 0;
    for (int64_t j = 0; j < k; ++j) {
      uint32_t x, w;
      std::memcpy(&x, &p.a[static_cast<size_t>(i / cols * k + j)], 4);
      std::memcpy(&w, &p.b[static_cast<size_t>(i % cols * k + j)], 4);
      acc = bf16_multiply_add(x, w, acc);
    }
    expected.push_back(acc);
  }
  const auto same = [&](const FgemmKernels& kernels) {
    for (bool flush : {true, false}) {
      if (tiny && !flush) continue;
      const std::vector<float> c = run(p, kernels, 1, true, flush);
      CHECK(std::memcmp(c.data(), expected.data(), c.size() * sizeof(float)) == 0);
    }
  };
  for (const FgemmKernels* kernels : kernels_here()) same(*kernels);
  same(fgemm_bf16_kernels(best_isa()));
}

}  // namespace

int main() {
  TestRandom random(11);
  for (int64_t rows = 1; rows <= 26; ++rows) check_problem(random_problem(&random, rows, 1 + random.below(150), 1, 1 + random.below(40), 1));
  for (int64_t cols = 1; cols <= 70; cols += 1) check_problem(random_problem(&random, 1 + random.below(14), cols, 1 + random.below(3), 1 + random.below(20), 1));
  check_problem(random_problem(&random, 200, 50, 1, 30, 1));   // several row blocks
  check_problem(random_problem(&random, 100, 40, 9, 64, 1));   // K blocks of whole taps
  check_problem(random_problem(&random, 30, 70, 2, 600, 1));   // K blocks inside a tap
  check_problem(random_problem(&random, 31, 33, 3, 17, 3));    // groups
  check_problem(random_problem(&random, 5, 9, 1, 0, 1));       // nothing to sum
  check_to_bf16(true);
  check_to_bf16(false);
  check_hardware_flush();
  for (const FgemmKernels* kernels : kernels_here()) CHECK(bf16_follows(*kernels));
  FgemmKernels wrong = fgemm_kernels_portable;  // the check must notice
  wrong.tile_bf16 = [](const FgemmTile& t) {
    FgemmTile unflushed = t;
    unflushed.flush = false;
    fgemm_kernels_portable.tile_bf16(unflushed);
  };
  CHECK(!bf16_follows(wrong));
  wrong.tile_bf16 = [](const FgemmTile& t) {  // the halves in the other order
    uint32_t x;
    std::memcpy(&x, t.a[0], 4);
    x = x << 16 | x >> 16;
    std::vector<uint32_t> w(static_cast<size_t>(t.cols));
    std::memcpy(w.data(), t.b, w.size() * 4);
    for (uint32_t& v : w) v = v << 16 | v >> 16;
    const float* a = reinterpret_cast<const float*>(&x);
    FgemmTile swapped = t;
    swapped.a = &a;
    swapped.b = reinterpret_cast<const float*>(w.data());
    fgemm_kernels_portable.tile_bf16(swapped);
  };
  CHECK(!bf16_follows(wrong));
  check_pairs(7, 40, 33, false, 1);
  check_pairs(13, 21, 300, false, 2);
  check_pairs(7, 40, 33, true, 3);
  check_pairs(26, 33, 90, true, 4);
  return check_result();
}
