// Exact integer Winograd for 3x3 windows: a 4 x 4 tile of outputs (or, for the weight gradient, the window from a 4 x 4 tile of dY) takes
// fewer products, of 16 bits: 36 instead of 144 for stride 1, 81 for stride 2.
//
//   forward, input gradient   F(4x4, 3x3):  y = A^T [(G w G^T) . (B^T x B)] A          weight gradient   F(3x3, 4x4), the same with dY for w
//
// G's rows are scaled to integers (6 g0, -(g0 + g1 + g2), ..., 6 g_last), so what comes out is 9 * 2^k times the sum, k <= 6. Everything
// runs modulo 2^32: 9 has an inverse there and the shift brings the sum back, exactly, while |sum| < 2^25. Sums that could be larger
// are split: input channels (or tiles, for the weight gradient) into spans proved from the operands' ranges, or from the weights or dY
// themselves, and the spans' results are added. Transformed operands fit 16 bits:
//
//   x, dY   |B^T x B| <= 100 max|x|  (255: 25500)     weights |G w G^T| <= 49 max|w|  (128: 6272)     dY as G: 225 max|dY|  (127: 28575)
//
// and a pair of products fits 31 bits. Channel exponents (ShiftQuant) are left shifts of weights and, where those are full, of dY.
//
// Stride 2 with padding 1: rows of x with odd numbers meet the window's rows 0 and 2, even ones row 1, columns likewise. That is the sum of
// four convolutions of stride 1, one a phase, with 2 x 2, 2 x 1, 1 x 2 and 1 x 1 taps; as F(4x4, 2x2) they share their 25 positions
// (points 0, 1, -1, 2, infinity), hence one transform of the results. At infinity a window's last tap alone counts, so an axis with
// one tap has no products there: 4 * 16 + 2 * 8 + 1 = 81. The input gradient has the phases among its outputs, the weight gradient among its
// taps. k = 2 here, so sums below 2^29 come back; |B^T x B| <= 36 max|x|, |G w G^T| <= 36 max|w|, dY as G 225 max|dY|.
#include <algorithm>
#include <cstring>

#include "train/winograd.h"

namespace netsuke {
namespace train {

// y[n][spread * oy + target.y][..][target, column] = sum over sources, taps and k of
// x[n][step * (oy + i) + source.y][..][k] w[tap(i, j)][k][column] << shift[k]; one of sources and targets is a single phase.
struct WinogradConv {
  int side;                          // taps of a phase: 3 or 2
  std::vector<WinogradPhase> sources, targets;
  int64_t step, spread;
  const uint8_t* x;
  int32_t zero;
  int64_t n, h, w, k;
  int64_t oh, ow, columns;           // of y, all targets
  const int8_t* weights;             // columns are neighbours
  int64_t tap[9];                    // where each tap starts
  int64_t k_stride;
  const uint8_t* shift;              // null or [k]
  int64_t a_top, w_top;              // largest |x - zero| and |w|
  bool add = false;                  // to what y holds
};

namespace {

// Tiles of a task: transformed inputs that half of an L2 cache of 512 KB holds and some more, or, where those would be too few for one
// reading of the weights, enough to read the weights seldom (256 channels: 18 tiles 1.11x of 36, 512: 64 tiles 1.03x of 36).
int64_t tiles_of_task(int64_t tile_bytes) {
  constexpr int64_t kHeld = 340 << 10, kFew = 18, kMost = 36, kLong = 64;
  const int64_t fit = kHeld / tile_bytes / 6 * 6;
  return fit < kFew ? kLong : std::min(fit, kMost);
}

int most_shift(int64_t top) {
  int shift = 0;
  while (shift < 15 && (top << (shift + 1)) <= 32767) ++shift;
  return shift;
}

// Codes that the transforms take, and that one pair of channels keeps below the limit.
bool narrow(const Codes& a, const Codes& b) { return !a.wide && !b.wide && 100 * a.top() <= 32767 && b.top() <= 128; }

// Whether channels shifted by so much fit 16 bits, and sums their limit: two channels of stride 1, all `k` of stride 2.
bool shifts_fit(int side, int64_t k, int64_t a_top, int64_t w_top, int shift) {
  if (shift > 15) return false;
  if (side == 2) return shift <= most_shift(36 * w_top) + most_shift(36 * a_top) && ((9 * k * a_top * w_top) << shift) < kExactTwo;
  return shift <= most_shift(49 * w_top) + most_shift(100 * a_top) && ((18 * a_top * w_top) << shift) < kExact;
}

// [begin, end) of the input channels whose sum is surely below 2^25, in twos.
std::vector<int64_t> spans_of(const WinogradConv& w) {
  if (w.side == 2) return {static_cast<int64_t>(w.sources.size()) * w.k};  // shifts_fit
  const auto bound = [&](int64_t k, int64_t taps) { return (taps * w.a_top) << (w.shift != nullptr ? w.shift[k] : 0); };
  int64_t total = 0;
  for (int64_t k = 0; k < w.k; ++k) total += bound(k, 9 * w.w_top);
  std::vector<int64_t> ends;
  std::vector<int32_t> taps(static_cast<size_t>(w.columns));
  int64_t held = 0;
  for (int64_t k = 0; total >= kExact && k < w.k; k += 2) {
    int64_t two = 0;
    for (int64_t i = k; i < k + 2; ++i) {
      std::fill(taps.begin(), taps.end(), 0);
      for (int64_t from : w.tap) {
        const int8_t* row = w.weights + from + i * w.k_stride;
        for (int64_t c = 0; c < w.columns; ++c) taps[static_cast<size_t>(c)] += row[c] < 0 ? -row[c] : row[c];
      }
      two += bound(i, *std::max_element(taps.begin(), taps.end()));
    }
    if (held + two >= kExact) {
      ends.push_back(k);
      held = 0;
    }
    held += two;
  }
  ends.push_back(w.k);
  return ends;
}

}  // namespace

bool Trainer::winograd_pays(const Conv& c, const Codes& a, const Codes& b) const {
  if (table_.winograd.input == nullptr || !narrow(a, b)) return false;
  if (c.kh != 3 || c.kw != 3 || c.dilation_h != 1 || c.dilation_w != 1 || c.stride_h != c.stride_w || c.stride_h > 2) return false;
  if (c.groups != 1 || c.c % 16 != 0 || c.o % 16 != 0 || c.top > 2 || c.left > 2 || c.bottom > 2 || c.right > 2) return false;
  // Stride 2 keeps 81 products of 144: less than tiles of 8 bits gain where their sums hold more than the 8 groups of 6-bit codes.
  if (c.stride_h == 2 && (table_.winograd_two.input == nullptr || c.top != 1 || c.left != 1 || safe_flush(a.hi, b.top()) > 8)) return false;
  // Full tiles of stride 1 keep a quarter of the products, which are 16 bits wide: twice as slow as those of 8 bits.
  const int64_t oh = c.oh(), ow = c.ow(), full = (oh + 3) / 4 * ((ow + 3) / 4) * 16;
  return oh * ow * 5 >= full * 3;
}

Status Trainer::winograd_conv(const WinogradConv& w, const float* mult, const float* bias, float* y) {
  const Winograd& kernels = w.side == 3 ? table_.winograd : table_.winograd_two;
  const int points = w.side + 3, positions = points * points;
  const int64_t th = (w.oh + 4 * w.spread - 1) / (4 * w.spread), tw = (w.ow + 4 * w.spread - 1) / (4 * w.spread), tiles = w.n * th * tw;
  const auto sources = static_cast<int64_t>(w.sources.size()), targets = static_cast<int64_t>(w.targets.size());
  const int64_t all = sources * w.k, panels = panels_of(w.columns), groups = all / 2;
  const int64_t threads = pool_.threads(), most = tiles_of_task(positions * all * 2);
  const int64_t tasks = threads * ((tiles + threads * most - 1) / (threads * most));
  const int64_t each = (tiles + tasks - 1) / tasks;
  const std::vector<int64_t> ends = spans_of(w);
  const bool whole = ends.size() == 1;
  // Shifts: as many as fit go to the weights, the others to x.
  const int held = most_shift((w.side == 3 ? 49 : 36) * w.w_top);
  std::vector<int16_t> factor(static_cast<size_t>(w.k), 1);
  bool scaled = false;
  for (int64_t k = 0; w.shift != nullptr && k < w.k; ++k) {
    const int over = std::max(0, w.shift[k] - held);
    factor[static_cast<size_t>(k)] = static_cast<int16_t>(1 << over);
    scaled = scaled || over > 0;
  }
  const int64_t v_position = each * all + kLine / 2, m_position = each * kPair * kWidth + kLine / 4;
  const int64_t v_bytes = positions * v_position * 2, m_bytes = positions * m_position * 4, y_bytes = whole ? 0 : kPair * each * 16 * kWidth * 4;
  const int64_t scratch = v_bytes + m_bytes + y_bytes;
  const int64_t b_position = (targets * panels * groups + 1) * kWidth;  // of 32 bits
  NETSUKE_TRY(reserve(&a_, threads * scratch + kSlackBytes));
  NETSUKE_TRY(reserve(&b_, positions * b_position * 4 + kSlackBytes));
  auto* b = reinterpret_cast<uint32_t*>(b_.data());
  const bool stream = !w.add && w.n * w.oh * w.ow * w.columns >= kStreamedResult;
  const std::vector<uint8_t> nothing(static_cast<size_t>(w.columns), 0), zeros(static_cast<size_t>(w.k), static_cast<uint8_t>(w.zero));
  pool_.parallel_for(groups, [&](int64_t pair, int) {
    const uint8_t* pixel[2][9];
    for (int64_t target = 0; target < targets; ++target) {
      const WinogradPhase& phase = targets > 1 ? w.targets[static_cast<size_t>(target)] : w.sources[static_cast<size_t>(2 * pair / w.k)];
      WinogradPairs in = {pixel[0], pixel[1], w.columns, 0, {}, b + (target * panels * groups + pair) * kWidth, b_position, groups * kWidth};
      for (int i = 0; i < 2; ++i) {
        const int64_t k = 2 * pair % w.k + i;
        in.factor[i] = static_cast<int16_t>(1 << (w.shift != nullptr ? std::min<int>(w.shift[k], held) : 0));
        for (int t = 0; t < w.side * w.side; ++t) {
          const int tap = phase.taps[t];
          pixel[i][t] = tap < 0 ? nothing.data() : reinterpret_cast<const uint8_t*>(w.weights) + w.tap[tap] + k * w.k_stride;
        }
      }
      kernels.weight_pairs(in);
    }
  });
  const Stopwatch watch(&tiles_ns_);
  pool_.parallel_for(tasks, [&](int64_t task, int thread) {
    const int64_t t0 = task * each, count = std::min(each, tiles - t0);
    if (count <= 0) return;
    auto* v = reinterpret_cast<int16_t*>(a_.data() + thread * scratch);
    auto* m = reinterpret_cast<int32_t*>(a_.data() + thread * scratch + v_bytes);
    int32_t* sums = m + m_bytes / 4;
    std::vector<const uint8_t*> row(static_cast<size_t>(count));
    struct Place { int64_t image, y, x; };  // of a tile's first output
    std::vector<Place> places(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = t0 + i, tx = t % tw, ty = t / tw % th, n = t / tw / th;
      places[static_cast<size_t>(i)] = {n * w.oh, 4 * ty, 4 * tx};
      for (int64_t s = 0; s < sources; ++s) {
        const WinogradPhase& from = w.sources[static_cast<size_t>(s)];
        const uint8_t* pixel[36];
        addresses(points, w.x + n * w.h * w.w * w.k, w.h, w.w, w.k, w.step, 4 * w.step * ty + from.y, 4 * w.step * tx + from.x, zeros.data(), pixel);
        kernels.input({pixel, w.k, static_cast<uint8_t>(w.zero), scaled ? factor.data() : nullptr, v + i * all + s * w.k, v_position});
      }
      row[static_cast<size_t>(i)] = reinterpret_cast<const uint8_t*>(v + i * all);
    }
    float nowhere[kWidth] = {};
    const int32_t none[kWidth] = {};
    for (int64_t visit = 0; visit < targets * ((panels + kPair - 1) / kPair); ++visit) {
      const int64_t target = visit / ((panels + kPair - 1) / kPair), panel = visit % ((panels + kPair - 1) / kPair) * kPair;
      const WinogradPhase& into = w.targets[static_cast<size_t>(target)];
      const int64_t together = std::min<int64_t>(kPair, panels - panel);
      int64_t begin = 0;
      for (size_t span = 0; span < ends.size(); begin = ends[span], ++span) {
        for (int at = 0; at < positions; ++at) {
          size_t first, last;
          phases_at(targets > 1 ? w.targets : w.sources, w.side, at, &first, &last);
          const bool used = targets == 1 || (first <= static_cast<size_t>(target) && static_cast<size_t>(target) < last);
          const int64_t low = targets > 1 ? begin : std::max(begin, static_cast<int64_t>(first) * w.k);
          const int64_t high = targets > 1 ? ends[span] : std::min(ends[span], static_cast<int64_t>(last) * w.k);
          const auto span_groups = static_cast<int32_t>((high - low) / 2);
          int32_t* to = m + at * m_position;
          if (!used) {
            memset(to, 0, static_cast<size_t>(count * kPair * kWidth * 4));
            continue;
          }
          const auto* panel_b = reinterpret_cast<const uint8_t*>(b + at * b_position + ((target * panels + panel) * groups + low / 2) * kWidth);
          multiply_pair(table_, row.data(), (at * v_position + low) * 2, count, span_groups, 4, panel_b, groups * kGroupBytes, together, to);
        }
        const bool last = span + 1 == ends.size();
        for (int64_t p = 0; p < together; ++p) {
          const int64_t column = (panel + p) * kWidth;
          for (int64_t i = 0; i < count; ++i) {
            alignas(64) int32_t one[16 * kWidth];
            int32_t* tile = whole ? one : sums + (p * each + i) * 16 * kWidth;
            kernels.output(m + i * kPair * kWidth + p * kWidth, m_position, tile, span > 0);
            if (!last) continue;
            const Place& place = places[static_cast<size_t>(i)];
            float* to[16];
            bool inside = stream;
            for (int r = 0; r < 16; ++r) {
              const int64_t oy = (place.y + r / 4) * w.spread + into.y, ox = (place.x + r % 4) * w.spread + into.x;
              to[r] = oy < w.oh && ox < w.ow ? y + ((place.image + oy) * w.ow + ox) * w.columns + column : nowhere;
              inside = inside && to[r] != nowhere;
            }
            table_.finish({tile, kWidth, 16, kWidth, none, mult + column, bias != nullptr ? bias + column : nullptr, to, inside, w.add});
          }
        }
      }
    }
    if (stream) table_.streamed();
  });
  return Status();
}

Status Trainer::winograd_forward(const Conv& c, const Codes& x, const Codes& w, const float* mult, const float* bias, float* y) {
  // The kernels want neighbouring columns: [o][tap][c] to [tap][c][o].
  NETSUKE_TRY(reserve(&wide_, 9 * c.c * c.o + kSlackBytes));
  auto* turned = wide_.data();
  const auto* from = static_cast<const uint8_t*>(w.data);
  pool_.parallel_for(9 * c.c / 16, [&](int64_t at, int) {
    const int64_t tap = at % 9, k = at / 9 * 16;
    for (int64_t o = 0; o < c.o; o += 16) table_.transpose16(from + (o * 9 + tap) * c.c + k, 9 * c.c, turned + (tap * c.c + k) * c.o + o, c.o);
  });
  WinogradConv conv = {c.stride_h == 1 ? 3 : 2, phases_of(c), {WinogradPhase{}}, c.stride_h, 1, static_cast<const uint8_t*>(x.data), x.zero,
                       c.n, c.h, c.w, c.c, c.oh(), c.ow(), c.o, reinterpret_cast<const int8_t*>(turned), {}, c.o, nullptr, x.top(), w.top()};
  for (int t = 0; t < 9; ++t) conv.tap[t] = t * c.c * c.o;
  return winograd_conv(conv, mult, bias, y);
}

bool Trainer::winograd_takes(const Conv& c, const Codes& g, const uint8_t* exponents, const Codes& w) const {
  // Beside VNNI's products of 8 bits, tiles of 16 channels are all transforms: 0.85x; 32: 1.07x, 64: 1.4x (Zen 5).
  if (table_.pair_s16 && std::min(c.c, c.o) < 32) return false;
  const int shift = exponents == nullptr ? 0 : *std::max_element(exponents, exponents + c.o) - *std::min_element(exponents, exponents + c.o);
  return winograd_pays(c, g, w) && shifts_fit(c.stride_h == 1 ? 3 : 2, exponents == nullptr ? c.c : c.o, g.top(), w.top(), shift);
}

Status Trainer::winograd_gradient(const Conv& c, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx, bool add) {
  std::vector<uint8_t> shift(static_cast<size_t>(c.o), 0);
  if (exponents != nullptr) {
    const uint8_t top = *std::max_element(exponents, exponents + c.o);
    for (int64_t o = 0; o < c.o; ++o) shift[static_cast<size_t>(o)] = static_cast<uint8_t>(top - exponents[o]);
  }
  std::vector<WinogradPhase> turned = phases_of(c);  // both axes
  for (WinogradPhase& phase : turned) {
    for (int& tap : phase.taps) tap = tap < 0 ? tap : 8 - tap;
    phase.y = -phase.y, phase.x = -phase.x;
  }
  WinogradPhase one = {};
  if (c.stride_h == 1) {  // the phase is that of the source
    std::swap(one, turned[0]);
    one.y = c.top - 2, one.x = c.left - 2;
  }
  WinogradConv conv = {c.stride_h == 1 ? 3 : 2, {one}, turned, 1, c.stride_h, static_cast<const uint8_t*>(g.data), g.zero, c.n, c.oh(), c.ow(), c.o,
                       c.h, c.w, c.c, static_cast<const int8_t*>(w.data), {}, 9 * c.c, exponents != nullptr ? shift.data() : nullptr, g.top(), w.top()};
  for (int t = 0; t < 9; ++t) conv.tap[t] = t * c.c;
  conv.add = add;
  const std::vector<float> scale(static_cast<size_t>(c.c), mult);
  return winograd_conv(conv, scale.data(), nullptr, dx);
}

}  // namespace train
}  // namespace netsuke
