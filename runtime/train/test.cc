// Every table this CPU runs against the plain loops, on random operands with the ranges each lane allows; the random numbers against
// the generator's published form; thread counts.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "base/check.h"
#include "train/products.h"
#include "train/test_batch_norm.h"
#include "train/test_norm.h"
#include "train/test_quantize.h"
#include "train/test_tiles.h"
#include "train/test_winograd.h"

namespace netsuke {
namespace train {
namespace {

void check_movement(const Table& table) {
  std::mt19937 rng(3);
  std::vector<uint8_t> src(16 * 40), a(16 * 20), b(16 * 20);
  for (uint8_t& v : src) v = static_cast<uint8_t>(rng());
  train_kernels_portable.transpose16(src.data(), 40, a.data(), 20);
  table.transpose16(src.data(), 40, b.data(), 20);
  CHECK(a == b);
  const uint8_t* const rows[4] = {src.data(), src.data() + 40, src.data() + 80, src.data() + 120};
  train_kernels_portable.interleave4(rows, 31, a.data());
  table.interleave4(rows, 31, b.data());
  CHECK(memcmp(a.data(), b.data(), 64) == 0);
  std::vector<float> x(11 * 19);
  for (float& v : x) v = static_cast<float>(static_cast<int32_t>(rng())) * 1e-5f;
  std::vector<uint32_t> top(19, 0), top2(19, 0);
  train_kernels_portable.absmax(x.data(), 11, 19, top.data());
  table.absmax(x.data(), 11, 19, top2.data());
  CHECK(top == top2);
}

// Philox's published example with 7 rounds is not in the paper; the 10-round one is what other libraries ship. The round function is
// checked by running three more rounds by hand: key and counter zero give 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123's test vectors).
void check_philox() {
  uint32_t x[4];
  philox({0, 0}, 0, x);
  uint32_t k0 = kPhiloxRounds * kPhiloxW0, k1 = kPhiloxRounds * kPhiloxW1;
  for (int round = kPhiloxRounds; round < 10; ++round, k0 += kPhiloxW0, k1 += kPhiloxW1) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxM0) * x[0], p1 = static_cast<uint64_t>(kPhiloxM1) * x[2];
    const uint32_t next[4] = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
                              static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
    memcpy(x, next, sizeof x);
  }
  CHECK(x[0] == 0x6627e8d5u && x[1] == 0xe169c58du && x[2] == 0xbc57ac4cu && x[3] == 0x9b00dbd8u);
}

// A team as an OpenMP runtime gives it: `threads` threads call the function, the caller among them.
void team_of_threads(void (*function)(void*), void* data, unsigned threads, unsigned) {
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(function, data);
  function(data);
  for (std::thread& t : others) t.join();
}

// One-bit products against plain loops; a borrowed team gives what threads of our own give.
void check_one_bit(Isa isa) {
  std::mt19937 rng(5);
  const Conv c = {3, 5, 6, 70, 9, 3, 2, 1, 1, 1, 0, 1, 1, 1, 1, 1};
  std::vector<float> x(3 * 5 * 6 * 70), w(9 * 3 * 2 * 70), mult(9, 2.0f);
  for (float& v : x) v = rng() % 2 == 0 ? 1.0f : -1.0f;
  for (float& v : w) v = rng() % 2 == 0 ? 1.0f : -1.0f;
  std::vector<float> expected(static_cast<size_t>(3 * c.oh() * c.ow() * 9), 0.0f);
  for (int64_t n = 0; n < c.n; ++n) {
    for (int64_t at = 0; at < c.oh() * c.ow() * c.o; ++at) {
      const int64_t o = at % c.o, ox = at / c.o % c.ow(), oy = at / c.o / c.ow();
      float sum = 0;
      for (int64_t k = 0; k < c.kh * c.kw * c.c; ++k) {
        const int64_t ch = k % c.c, ix = ox + k / c.c % c.kw - c.left, iy = oy + k / c.c / c.kw - c.top;
        if (iy < 0 || iy >= c.h || ix < 0 || ix >= c.w) continue;
        sum += x[static_cast<size_t>(((n * c.h + iy) * c.w + ix) * c.c + ch)] * w[static_cast<size_t>(o * c.kh * c.kw * c.c + k)];
      }
      expected[static_cast<size_t>(n * c.oh() * c.ow() * c.o + at)] = 2 * 2.0f * sum;  // added twice
    }
  }
  for (const auto team : {static_cast<ThreadPool::Team>(nullptr), &team_of_threads}) {
    Trainer trainer(isa, 3, team);
    std::vector<uint64_t> xs(3 * 5 * 6 * 2), ws(9 * 3 * 2 * 2), back(70 * 30), again(xs.size());
    CHECK(trainer.pack_signs(x.data(), 3 * 5 * 6, 70, xs.data()).ok());
    CHECK(trainer.pack_signs(w.data(), 9 * 3 * 2, 70, ws.data()).ok());
    std::vector<float> y(expected.size());
    CHECK(trainer.bit_conv(c, xs.data(), ws.data(), mult.data(), false, y.data()).ok());
    CHECK(trainer.bit_conv(c, xs.data(), ws.data(), mult.data(), true, y.data()).ok());
    CHECK(y == expected);
    CHECK(trainer.transpose_bits(xs.data(), 3, 30, 70, back.data()).ok());
    CHECK(trainer.transpose_bits(back.data(), 70, 30, 3, again.data()).ok());
    CHECK(again == xs);
  }
}

// The three products of a 3x3 layer with padding 1 (Winograd, where a table has it) against plain loops, for several thread counts. Ends:
// every code at an end of its range, so that sums need spans; otherwise gradients are small and spans as long as they may be.
void check_three_by_three(Isa isa, int64_t n, int64_t h, int64_t wide, int64_t stride, bool ends) {
  std::mt19937 rng(9);
  const Conv c = {n, h, wide, 48, 32, 3, 3, stride, stride, 1, 1, 1, 1, 1, 1, 1};
  const int64_t pixels = c.n * c.h * c.w, oh = c.oh(), ow = c.ow(), outputs = c.n * oh * ow;
  std::vector<uint8_t> x(static_cast<size_t>(pixels * c.c)), g(static_cast<size_t>(outputs * c.o)), e(static_cast<size_t>(c.o));
  std::vector<int8_t> w(static_cast<size_t>(c.o * 9 * c.c));
  for (uint8_t& v : x) v = rng() % 8 == 0 ? static_cast<uint8_t>(rng()) : 255;
  for (uint8_t& v : g) v = ends ? (rng() % 2 == 0 ? 254 : 0) : static_cast<uint8_t>(120 + rng() % 20);
  for (int8_t& v : w) v = rng() % 8 == 0 ? -127 : 127;
  for (uint8_t& v : e) v = static_cast<uint8_t>(rng() % 4);
  e[0] = 3;
  std::vector<int64_t> y(static_cast<size_t>(outputs * c.o)), dx(static_cast<size_t>(pixels * c.c)), dw(w.size());
  for (int64_t at = 0; at < outputs * 9; ++at) {
    const int64_t p = at / 9, ky = at % 9 / 3, kx = at % 3, iy = p / ow % oh * stride + ky - 1, ix = p % ow * stride + kx - 1;
    if (iy < 0 || iy >= c.h || ix < 0 || ix >= c.w) continue;
    const int64_t from = (p / ow / oh * c.h + iy) * c.w + ix;
    for (int64_t o = 0; o < c.o; ++o) {
      const int64_t gradient = g[static_cast<size_t>(p * c.o + o)] - 127;
      for (int64_t k = 0; k < c.c; ++k) {
        const auto tap = static_cast<size_t>((o * 9 + at % 9) * c.c + k), in = static_cast<size_t>(from * c.c + k);
        y[static_cast<size_t>(p * c.o + o)] += (x[in] - 3) * w[tap];
        dx[in] += (gradient * w[tap]) * (8 >> e[static_cast<size_t>(o)]);
        dw[tap] += (x[in] - 3) * gradient;
      }
    }
  }
  const std::vector<float> mult(48, 0.37f), bias(48, 1.5f);
  for (const int threads : {1, 3}) {
    Trainer trainer(isa, threads);
    std::vector<float> a(y.size()), b(dx.size()), d(dw.size());
    const Codes xc = {x.data(), 3, 0, 255, false}, gc = {g.data(), 127, 0, 254, false}, wc = {w.data(), 0, -127, 127, false};
    CHECK(trainer.forward(c, xc, wc, mult.data(), bias.data(), a.data()).ok());
    CHECK(trainer.input_gradient(c, gc, e.data(), wc, 0.37f, b.data()).ok());
    CHECK(trainer.weight_gradient(c, xc, gc, mult.data(), d.data()).ok());
    bool same[3] = {true, true, true};
    for (size_t i = 0; i < a.size(); ++i) same[0] = same[0] && a[i] == static_cast<float>(y[i]) * 0.37f + 1.5f;
    for (size_t i = 0; i < b.size(); ++i) same[1] = same[1] && b[i] == static_cast<float>(dx[i]) * 0.37f;
    for (size_t i = 0; i < d.size(); ++i) same[2] = same[2] && d[i] == static_cast<float>(dw[i]) * 0.37f;
    CHECK(same[0]);
    CHECK(same[1]);
    CHECK(same[2]);
  }
}

// Batch normalization, addition and ReLU against binary64, the same bits for several thread counts; rows of 16 are taken together, and
// 4099 of them leave three over.
void check_batch_norm(Isa isa) {
  std::mt19937 rng(11);
  std::normal_distribution<float> value(3.0f, 2.0f);
  for (const int64_t columns : {16, 24}) {
    const int64_t rows = 4099, count = rows * columns;
    std::vector<float> x(static_cast<size_t>(count)), r(x), dy(x), weight(static_cast<size_t>(columns), 1.5f), bias(weight.size(), -2.0f);
    for (float& v : x) v = value(rng);
    for (float& v : r) v = value(rng) - 3;
    for (float& v : dy) v = value(rng) - 3;
    std::vector<std::vector<float>> first;
    for (const int threads : {1, 2, 5}) {
      Trainer trainer(isa, threads);
      std::vector<float> y(x.size()), dz(x.size()), dx(x.size()), affine(2 * weight.size()), dw(weight.size()), db(weight.size()), ends(2);
      std::vector<double> moments(2 * weight.size());
      const BatchNormLayer layer = {rows, columns, weight.data(), bias.data(), 1e-5, true};
      CHECK_OK(trainer.batch_norm(layer, x.data(), r.data(), y.data(), affine.data(), moments.data(), ends.data()));
      CHECK_OK(trainer.batch_norm_gradient(layer, x.data(), dy.data(), y.data(), affine.data(), moments.data(), dz.data(), dx.data(), dw.data(), db.data()));
      const std::vector<std::vector<float>> all = {y, dz, dx, affine, dw, db, ends};
      if (first.empty()) first = all;
      CHECK(all == first);
    }
    double worst = 0;
    for (int64_t c = 0; c < columns; ++c) {
      double mean = 0, variance = 0, total = 0, dot = 0;
      for (int64_t i = c; i < count; i += columns) mean += x[static_cast<size_t>(i)] / static_cast<double>(rows);
      for (int64_t i = c; i < count; i += columns) variance += (x[static_cast<size_t>(i)] - mean) * (x[static_cast<size_t>(i)] - mean) / static_cast<double>(rows);
      const double inverse = 1 / std::sqrt(variance + 1e-5);
      for (const bool last : {false, true}) {
        for (int64_t i = c; i < count; i += columns) {
          const auto at = static_cast<size_t>(i);
          const double xh = (x[at] - mean) * inverse, y = std::max(0.0, 1.5 * xh - 2 + r[at]), dz = first[0][at] > 0 ? dy[at] : 0;
          if (last) {
            worst = std::max({worst, std::abs(first[0][at] - y), std::abs(first[1][at] - dz)});
            worst = std::max(worst, std::abs(first[2][at] - 1.5 * inverse * (dz - (total + xh * dot) / static_cast<double>(rows))));
          } else {
            total += dz, dot += dz * xh;
          }
        }
      }
    }
    CHECK(worst < 2e-5);
  }
  Trainer trainer(isa, 1);
  float number = 0;
  double moments[2] = {0, 0};
  const BatchNormLayer none = {0, 1, nullptr, nullptr, 1e-5, true}, open = {1, 1, nullptr, nullptr, 1e-5, false};
  CHECK(trainer.batch_norm(none, &number, nullptr, &number, &number, moments, &number).code() == Code::kInvalidArgument);
  CHECK(trainer.batch_norm_gradient(open, &number, &number, &number, &number, moments, &number, nullptr, &number, &number).code() == Code::kInvalidArgument);
}

// A sum that could leave int32 is refused by its numbers, a window larger than the image too.
void check_refusals() {
  Trainer trainer(Isa::kPortable, 1);
  const Conv conv = {1, 1, 1, 200000, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  const Codes x = {nullptr, 0, 0, 255, false}, w = {nullptr, 0, -127, 127, false};
  CHECK(trainer.forward(conv, x, w, nullptr, nullptr, nullptr).code() == Code::kUnsupported);
  const Conv large = {1, 2, 2, 4, 4, 3, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  CHECK(trainer.forward(large, x, w, nullptr, nullptr, nullptr).code() == Code::kInvalidArgument);
  const Codes wide = {nullptr, 0, -32767, 32767, true};
  const Conv small = {1, 2, 2, 4, 4, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  CHECK(trainer.forward(small, x, wide, nullptr, nullptr, nullptr).code() == Code::kInvalidArgument);
}

}  // namespace
}  // namespace train
}  // namespace netsuke

int main() {
  using namespace netsuke;
  using namespace netsuke::train;
  check_philox();
  check_refusals();
  for (Isa isa : compiled_isas()) {
    if (!isa_available(isa)) continue;
    const Table& table = train_kernels(isa);
    compare_tiles(table);
    compare_batch_norm(table);
    compare_norm(table);
    compare_quantize_parts(table);
    check_batch_norm(isa);
    compare_quantize(table);
    compare_near_ties(table);
    check_movement(table);
    check_one_bit(isa);
    compare_winograd(table);
    check_three_by_three(isa, 3, 9, 7, 1, true);
    check_three_by_three(isa, 20, 15, 16, 1, false);
    check_three_by_three(isa, 1, 4, 300, 1, true);  // one row of tiles is too long for a span
    check_three_by_three(isa, 2, 8, 300, 1, true);  // eight spans: three threads take whole ones
    check_three_by_three(isa, 3, 9, 8, 2, true);
    check_three_by_three(isa, 2, 16, 15, 2, true);
  }
  return check_result();
}
