// The weight gradient through the exact Winograd of winograd.cc: F(3x3, 4x4), tiles of dY for windows, in spans of tiles whose sums are exact.
#include <algorithm>
#include <cstring>

#include "train/winograd.h"

namespace netsuke {
namespace train {

namespace {

constexpr int64_t kInt32 = 2147483647;
constexpr int64_t kSpan = 256;  // tiles of one visit of the weight gradient: operands stay in the caches

}  // namespace

// Ends of the spans of tiles whose sums stay below 2^25: as many strips (rows of tiles of one image) as max|x| times what dY sums up to, or
// so few tiles that any dY does.
std::vector<int64_t> Trainer::spans_of_tiles(const Conv& c, const Codes& x, const Codes& g) {
  const int64_t oh = c.oh(), ow = c.ow(), th = (oh + 3) / 4, tw = (ow + 3) / 4, tiles = c.n * th * tw, strips = c.n * th;
  const int64_t product = std::max<int64_t>(1, x.top() * g.top()), limit = c.stride_h == 1 ? kExact : kExactTwo;
  const int64_t most = std::min(kSpan, (limit - 1) / (16 * product) / 2 * 2);
  std::vector<int64_t> ends;
  if (most == kSpan || tiles <= most || tw > kSpan) {
    for (int64_t end = most; end < tiles; end += most) ends.push_back(end);
    ends.push_back(tiles);
    return ends;
  }
  std::vector<uint32_t> sums(static_cast<size_t>(strips * c.o), 0);
  pool_.parallel_for(strips, [&](int64_t strip, int) {
    const int64_t row = strip / th * oh + strip % th * 4, rows = std::min<int64_t>(4, oh - strip % th * 4);
    const auto* from = static_cast<const uint8_t*>(g.data) + row * ow * c.o;
    table_.norm.distance(from, rows * ow, c.o, static_cast<uint8_t>(g.zero), sums.data() + strip * c.o);
  });
  std::vector<uint32_t> held(static_cast<size_t>(c.o), 0), with(held);
  int64_t begin = 0;
  for (int64_t strip = 0; strip < strips; ++strip) {
    uint32_t largest = 0, alone = 0;
    for (int64_t o = 0; o < c.o; ++o) {
      const auto at = static_cast<size_t>(o);
      const uint32_t one = sums[static_cast<size_t>(strip * c.o + o)];
      with[at] = held[at] + one;
      largest = std::max(largest, with[at]);
      alone = std::max(alone, one);
    }
    const int64_t here = strip * tw;
    if (here > begin && (here + tw - begin > kSpan || largest * x.top() >= limit)) {
      ends.push_back(here);
      begin = here;
      with.assign(sums.begin() + strip * c.o, sums.begin() + (strip + 1) * c.o);
    }
    held.swap(with);
    if (alone * x.top() < limit) continue;
    for (int64_t end = here + most; end < here + tw; end += most) ends.push_back(end);
    ends.push_back(begin = here + tw);
    std::fill(held.begin(), held.end(), 0);
  }
  if (begin < tiles) ends.push_back(tiles);
  return ends;
}

Status Trainer::winograd_weights(const Conv& c, const Codes& x, const Codes& g, const float* mult, float* dw) {
  const int side = c.stride_h == 1 ? 3 : 2, points = side + 3, positions = points * points;
  const Winograd& kernels = side == 3 ? table_.winograd : table_.winograd_two;
  const std::vector<WinogradPhase> phases = phases_of(c);
  const int64_t oh = c.oh(), ow = c.ow(), th = (oh + 3) / 4, tw = (ow + 3) / 4;
  const std::vector<int64_t> ends = spans_of_tiles(c, x, g);
  int64_t span = 0;
  for (size_t i = 0; i < ends.size(); ++i) span = std::max(span, ends[i] - (i == 0 ? 0 : ends[i - 1]));
  const int64_t pairs = (span + 1) / 2 | 1, sources = static_cast<int64_t>(phases.size());
  const int64_t a_panels = c.o / kWidth, b_panels = c.c / kWidth, threads = pool_.threads();
  const int64_t a_position = (a_panels * pairs + 1) * kWidth, b_position = (sources * b_panels * pairs + 1) * kWidth;
  const int64_t m_position = kPair * kWidth * kWidth + kLine / 4, m_bytes = positions * m_position * 4;
  const bool several = ends.size() > 1, small = c.n * oh * ow <= kInt32 / std::max<int64_t>(1, x.top() * g.top());
  const int64_t total_bytes = several ? c.o * 9 * c.c * 8 : 0;
  NETSUKE_TRY(reserve(&a_, positions * a_position * 4 + kSlackBytes));
  NETSUKE_TRY(reserve(&b_, positions * b_position * 4 + kSlackBytes));
  NETSUKE_TRY(reserve(&sums_, threads * m_bytes));
  NETSUKE_TRY(reserve(&wide_, std::max<int64_t>(64, total_bytes)));
  auto* a = reinterpret_cast<uint32_t*>(a_.data());
  auto* b = reinterpret_cast<uint32_t*>(b_.data());
  auto* total = reinterpret_cast<int64_t*>(wide_.data());
  const std::vector<uint8_t> zero_x(static_cast<size_t>(c.c), static_cast<uint8_t>(x.zero)), zero_g(static_cast<size_t>(c.o), static_cast<uint8_t>(g.zero));
  const auto* xs = static_cast<const uint8_t*>(x.data);
  const auto* gs = static_cast<const uint8_t*>(g.data);
  const Stopwatch watch(&tiles_ns_);
  int64_t t0 = 0;
  for (size_t visit = 0; visit < ends.size(); t0 = ends[visit], ++visit) {
    const int64_t count = ends[visit] - t0, used = (count + 1) / 2;
    const bool first = visit == 0, last = visit + 1 == ends.size();
    pool_.parallel_for(used, [&](int64_t pair, int) {
      const uint8_t* in[2][36];
      const uint8_t* out[2][16];
      for (int64_t s = 0; s < sources; ++s) {
        const WinogradPhase& phase = phases[static_cast<size_t>(s)];
        for (int i = 0; i < 2; ++i) {
          const int64_t t = t0 + 2 * pair + i, tx = t % tw, ty = t / tw % th, n = t / tw / th;
          if (t >= t0 + count) {
            std::fill(in[i], in[i] + positions, zero_x.data());
            std::fill(out[i], out[i] + 16, zero_g.data());
            continue;
          }
          const int64_t y0 = 4 * c.stride_h * ty + phase.y, x0 = 4 * c.stride_w * tx + phase.x;
          addresses(points, xs + n * c.h * c.w * c.c, c.h, c.w, c.c, c.stride_h, y0, x0, zero_x.data(), in[i]);
          addresses(4, gs + n * oh * ow * c.o, oh, ow, c.o, 1, 4 * ty, 4 * tx, zero_g.data(), out[i]);
        }
        kernels.input_pairs({in[0], in[1], c.c, static_cast<uint8_t>(x.zero), {1, 1}, b + (s * b_panels * pairs + pair) * kWidth, b_position, pairs * kWidth});
      }
      kernels.gradient_pairs({out[0], out[1], c.o, static_cast<uint8_t>(g.zero), {1, 1}, a + pair * kWidth, a_position, pairs * kWidth});
    });
    const int64_t blocks = (b_panels + kPair - 1) / kPair;
    pool_.parallel_for(a_panels * sources * blocks, [&](int64_t task, int thread) {
      auto* m = reinterpret_cast<int32_t*>(sums_.data() + thread * m_bytes);
      const int64_t pa = task / blocks / sources, source = task / blocks % sources, pb = task % blocks * kPair;
      const int64_t together = std::min<int64_t>(kPair, b_panels - pb);
      const WinogradPhase& phase = phases[static_cast<size_t>(source)];
      const auto groups = static_cast<int32_t>(used);
      for (int at = 0; at < positions; ++at) {
        size_t begin, end;
        phases_at(phases, side, at, &begin, &end);
        if (static_cast<size_t>(source) < begin || static_cast<size_t>(source) >= end) {
          memset(m + at * m_position, 0, kPair * kWidth * kWidth * 4);
          continue;
        }
        const auto* rows_a = reinterpret_cast<const uint8_t*>(a + at * a_position + pa * pairs * kWidth);
        const uint8_t* row[kWidth];
        for (int i = 0; i < kWidth; ++i) row[i] = rows_a + 4 * i;
        const auto* panel_b = reinterpret_cast<const uint8_t*>(b + at * b_position + (source * b_panels + pb) * pairs * kWidth);
        multiply_pair(table_, row, 0, kWidth, groups, kGroupBytes, panel_b, pairs * kGroupBytes, together, m + at * m_position);
      }
      for (int64_t p = 0; p < together; ++p) {
        for (int64_t i = 0; i < kWidth; ++i) {
          alignas(64) int32_t window[9 * kWidth];
          kernels.window(m + i * kPair * kWidth + p * kWidth, m_position, window);
          const int64_t o = pa * kWidth + i;
          for (int t = 0; t < side * side; ++t) {
            const int tap = phase.taps[t];
            if (tap < 0) continue;
            const int64_t to = (o * 9 + tap) * c.c + (pb + p) * kWidth;
            const int32_t* sum = window + t * kWidth;
            if (several && first) memset(total + to, 0, kWidth * sizeof(int64_t));
            if (several) kernels.add(sum, total + to);
            if (!last) continue;
            for (int64_t k = 0; k < kWidth; ++k) {
              const float whole = !several ? static_cast<float>(sum[k]) : small ? static_cast<float>(static_cast<int32_t>(total[to + k])) : static_cast<float>(total[to + k]);
              dw[to + k] = whole * mult[o];
            }
          }
        }
      }
    });
  }
  return Status();
}

}  // namespace train
}  // namespace netsuke
