// The matrix product on random jobs: every tile height and width, cache blocks, groups, epilogues. All instruction sets against one plain
// fma chain an output, bit for bit; the 16-lane tile of AVX-512 runs here whatever the CPU has.
#include <cmath>
#include <cstring>
#include <cstdio>
#include <vector>

#include "base/check.h"
#include "kernels/base/op_runner.h"
#include "kernels/fgemm/fgemm.h"

#pragma GCC diagnostic ignored "-Wpsabi"
#define NETSUKE_LANES 16
#define NETSUKE_TABLE wide
#define NETSUKE_ROWS 12
#define NETSUKE_VECTORS 2
#define NETSUKE_NAME "wide_12x32"
#include "kernels/fgemm/tile.inc"

namespace {

using namespace netsuke;

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

std::vector<float> run(const Problem& p, const FgemmKernels& kernels, int threads) {
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
  for (Isa isa : testable_isas()) same(fgemm_kernels(isa));
  same(fgemm_kernels_wide);
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
  return check_result();
}
