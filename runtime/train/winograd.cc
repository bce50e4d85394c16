// Exact integer Winograd for 3x3 windows of stride 1: a 4 x 4 tile of outputs (or, for the weight gradient, the 3 x 3 window from a
// 4 x 4 tile of dY) takes 36 products of 16 bits instead of 144 of 8 bits.
//
//   forward, input gradient   F(4x4, 3x3):  y = A^T [(G w G^T) . (B^T x B)] A          weight gradient   F(3x3, 4x4), the same with dY for w
//
// G's rows are scaled to integers (6 g0, -(g0 + g1 + g2), ..., 6 g_last), so what comes out is 9 * 2^k times the sum, k <= 6. Everything
// runs modulo 2^32: 9 has an inverse there and the shift brings the sum back, exactly, while |sum| < 2^25. Sums that could be larger
// are split: input channels (or tiles, for the weight gradient) into spans proved from the operands' ranges, or from the weights
// themselves, and the spans' results are added. Transformed operands fit 16 bits:
//
//   x, dY   |B^T x B| <= 100 max|x|  (255: 25500)     weights |G w G^T| <= 49 max|w|  (128: 6272)     dY as G: 225 max|dY|  (127: 28575)
//
// and a pair of products fits 31 bits. Channel exponents (ShiftQuant) are left shifts of weights and, where those are full, of dY.
#include <algorithm>
#include <cstring>

#include "train/products.h"

namespace netsuke {
namespace train {

// y[n][oy][ox][column] = sum over taps and k of x[n][oy + ky - top][ox + kx - left][k] w[ky][kx][k][column] << shift[k].
struct WinogradConv {
  const uint8_t* x;
  int32_t zero;
  int64_t n, h, w, k;
  int64_t oh, ow, top, left, columns;
  const int8_t* weights;             // columns are neighbours
  int64_t tap[9];                    // where each tap starts
  int64_t k_stride;
  const uint8_t* shift;              // null or [k]
  int64_t a_top, w_top;              // largest |x - zero| and |w|
};

namespace {

constexpr int64_t kInt32 = 2147483647;
constexpr int64_t kExact = int64_t{1} << 25;  // sums stay below
constexpr int64_t kTiles = 36;                // of a task
constexpr int64_t kSpan = 256;                // tiles of one visit of the weight gradient: operands stay in the caches
constexpr int kPositions = 36;
constexpr int kPair = 2;                      // panels of one visit

int most_shift(int64_t top) {
  int shift = 0;
  while (shift < 15 && (top << (shift + 1)) <= 32767) ++shift;
  return shift;
}

// Codes that the transforms take, and that one pair of channels keeps below the limit.
bool narrow(const Codes& a, const Codes& b) { return !a.wide && !b.wide && 100 * a.top() <= 32767 && b.top() <= 128; }

bool shifts_fit(int64_t a_top, int64_t w_top, int shift) {
  if (shift > 15) return false;
  return shift <= most_shift(49 * w_top) + most_shift(100 * a_top) && ((18 * a_top * w_top) << shift) < kExact;
}

// [begin, end) of the input channels whose sum is surely below 2^25, in twos.
std::vector<int64_t> spans_of(const WinogradConv& w) {
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

// Addresses of the N x N pixels from (y0, x0) on; outside of the image (or of `end`) a pixel of zeros.
template <int N>
void addresses(const uint8_t* image, int64_t h, int64_t w, int64_t stride, int64_t y0, int64_t x0, const uint8_t* zeros, const uint8_t** out) {
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) {
      const int64_t y = y0 + i, x = x0 + j;
      out[i * N + j] = y < 0 || y >= h || x < 0 || x >= w ? zeros : image + (y * w + x) * stride;
    }
  }
}

// As many rows of tiles as six at a time need, of nearly equal height.
int rows_at(int64_t left) { return static_cast<int>((left + (left + 5) / 6 - 1) / ((left + 5) / 6)); }

}  // namespace

bool Trainer::winograd_pays(const Conv& c, const Codes& a, const Codes& b) const {
  if (table_.winograd.input == nullptr || !narrow(a, b)) return false;
  const bool window = c.kh == 3 && c.kw == 3 && c.stride_h == 1 && c.stride_w == 1 && c.dilation_h == 1 && c.dilation_w == 1;
  if (!window || c.groups != 1 || c.c % 16 != 0 || c.o % 16 != 0 || c.top > 2 || c.left > 2 || c.bottom > 2 || c.right > 2) return false;
  // Full tiles take a quarter of the products, which are 16 bits wide: twice as slow as pairs of 8 bits.
  const int64_t oh = c.oh(), ow = c.ow(), full = (oh + 3) / 4 * ((ow + 3) / 4) * 16;
  return oh * ow * 5 >= full * 3 && std::min(c.c, c.o) >= 32;
}

Status Trainer::winograd_conv(const WinogradConv& w, const float* mult, const float* bias, float* y) {
  const Winograd& kernels = table_.winograd;
  const int64_t th = (w.oh + 3) / 4, tw = (w.ow + 3) / 4, tiles = w.n * th * tw, panels = panels_of(w.columns), groups = w.k / 2;
  const int64_t threads = pool_.threads(), tasks = threads * ((tiles + threads * kTiles - 1) / (threads * kTiles));
  const int64_t each = (tiles + tasks - 1) / tasks;
  const std::vector<int64_t> ends = spans_of(w);
  const bool whole = ends.size() == 1;
  // Shifts: as many as fit go to the weights, the others to x.
  const int held = most_shift(49 * w.w_top);
  std::vector<int16_t> factor(static_cast<size_t>(w.k), 1);
  bool scaled = false;
  for (int64_t k = 0; w.shift != nullptr && k < w.k; ++k) {
    const int over = std::max(0, w.shift[k] - held);
    factor[static_cast<size_t>(k)] = static_cast<int16_t>(1 << over);
    scaled = scaled || over > 0;
  }
  const int64_t v_bytes = kPositions * each * w.k * 2, m_bytes = kPositions * kPair * each * kWidth * 4, y_bytes = whole ? 0 : kPair * each * 16 * kWidth * 4;
  const int64_t scratch = v_bytes + m_bytes + y_bytes;
  const int64_t b_position = panels * groups * kWidth;  // of 32 bits
  NETSUKE_TRY(reserve(&a_, threads * scratch + kSlackBytes));
  NETSUKE_TRY(reserve(&b_, kPositions * b_position * 4 + kSlackBytes));
  auto* b = reinterpret_cast<uint32_t*>(b_.data());
  pool_.parallel_for(groups, [&](int64_t pair, int) {
    const uint8_t* pixel[2][9];
    WinogradPairs in = {pixel[0], pixel[1], w.columns, 0, {}, b + pair * kWidth, b_position, groups * kWidth};
    for (int i = 0; i < 2; ++i) {
      const int64_t k = 2 * pair + i;
      in.factor[i] = static_cast<int16_t>(1 << (w.shift != nullptr ? std::min<int>(w.shift[k], held) : 0));
      for (int t = 0; t < 9; ++t) pixel[i][t] = reinterpret_cast<const uint8_t*>(w.weights) + w.tap[t] + k * w.k_stride;
    }
    kernels.weight_pairs(in);
  });
  const std::vector<uint8_t> zeros(static_cast<size_t>(w.k), static_cast<uint8_t>(w.zero));
  const Stopwatch watch(&tiles_ns_);
  pool_.parallel_for(tasks, [&](int64_t task, int thread) {
    const int64_t t0 = task * each, count = std::min(each, tiles - t0);
    if (count <= 0) return;
    auto* v = reinterpret_cast<int16_t*>(a_.data() + thread * scratch);
    auto* m = reinterpret_cast<int32_t*>(a_.data() + thread * scratch + v_bytes);
    int32_t* sums = m + m_bytes / 4;
    std::vector<const uint8_t*> row(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = t0 + i, tx = t % tw, ty = t / tw % th, n = t / tw / th;
      const uint8_t* pixel[36];
      addresses<6>(w.x + n * w.h * w.w * w.k, w.h, w.w, w.k, 4 * ty - w.top, 4 * tx - w.left, zeros.data(), pixel);
      kernels.input({pixel, w.k, static_cast<uint8_t>(w.zero), scaled ? factor.data() : nullptr, v + i * w.k, each * w.k});
      row[static_cast<size_t>(i)] = reinterpret_cast<const uint8_t*>(v + i * w.k);
    }
    float nowhere[kWidth];
    const int32_t none[kWidth] = {};
    for (int64_t panel = 0; panel < panels; panel += kPair) {
      const int64_t together = std::min<int64_t>(kPair, panels - panel);
      int64_t begin = 0;
      for (size_t span = 0; span < ends.size(); begin = ends[span], ++span) {
        const auto span_groups = static_cast<int32_t>((ends[span] - begin) / 2);
        for (int at = 0; at < kPositions; ++at) {
          const int64_t offset = (at * each * w.k + begin) * 2;
          for (int64_t p = 0; p < together; ++p) {
            const auto* panel_b = reinterpret_cast<const uint8_t*>(b + at * b_position + ((panel + p) * groups + begin / 2) * kWidth);
            for (int64_t i = 0; i < count;) {
              const int rows = rows_at(count - i);
              table_.tile_s16({row.data() + i, &offset, nullptr, &span_groups, 1, panel_b, nullptr, rows, 0,
                               m + ((at * kPair + p) * each + i) * kWidth, kWidth, true});
              i += rows;
            }
          }
        }
        const bool last = span + 1 == ends.size();
        for (int64_t p = 0; p < together; ++p) {
          const int64_t column = (panel + p) * kWidth;
          for (int64_t i = 0; i < count; ++i) {
            alignas(64) int32_t one[16 * kWidth];
            int32_t* tile = whole ? one : sums + (p * each + i) * 16 * kWidth;
            kernels.output(m + (p * each + i) * kWidth, kPair * each * kWidth, tile, span > 0);
            if (!last) continue;
            const int64_t t = t0 + i, tx = t % tw, ty = t / tw % th, n = t / tw / th;
            float* to[16];
            for (int r = 0; r < 16; ++r) {
              const int64_t oy = 4 * ty + r / 4, ox = 4 * tx + r % 4;
              to[r] = oy < w.oh && ox < w.ow ? y + ((n * w.oh + oy) * w.ow + ox) * w.columns + column : nowhere;
            }
            table_.finish({tile, kWidth, 16, kWidth, none, mult + column, bias != nullptr ? bias + column : nullptr, to});
          }
        }
      }
    }
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
  WinogradConv conv = {static_cast<const uint8_t*>(x.data), x.zero, c.n, c.h, c.w, c.c, c.oh(), c.ow(), c.top, c.left, c.o,
                       reinterpret_cast<const int8_t*>(turned), {}, c.o, nullptr, x.top(), w.top()};
  for (int t = 0; t < 9; ++t) conv.tap[t] = t * c.c * c.o;
  return winograd_conv(conv, mult, bias, y);
}

bool Trainer::winograd_takes(const Conv& c, const Codes& g, const uint8_t* exponents, const Codes& w) const {
  const int shift = exponents == nullptr ? 0 : *std::max_element(exponents, exponents + c.o) - *std::min_element(exponents, exponents + c.o);
  return winograd_pays(c, g, w) && shifts_fit(g.top(), w.top(), shift);
}

Status Trainer::winograd_gradient(const Conv& c, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx) {
  std::vector<uint8_t> shift(static_cast<size_t>(c.o), 0);
  if (exponents != nullptr) {
    const uint8_t top = *std::max_element(exponents, exponents + c.o);
    for (int64_t o = 0; o < c.o; ++o) shift[static_cast<size_t>(o)] = static_cast<uint8_t>(top - exponents[o]);
  }
  WinogradConv conv = {static_cast<const uint8_t*>(g.data), g.zero, c.n, c.oh(), c.ow(), c.o, c.h, c.w, 2 - c.top, 2 - c.left, c.c,
                       static_cast<const int8_t*>(w.data), {}, 9 * c.c, exponents != nullptr ? shift.data() : nullptr, g.top(), w.top()};
  for (int t = 0; t < 9; ++t) conv.tap[t] = (8 - t) * c.c;  // both axes turned
  const std::vector<float> scale(static_cast<size_t>(c.c), mult);
  return winograd_conv(conv, scale.data(), nullptr, dx);
}

Status Trainer::winograd_weights(const Conv& c, const Codes& x, const Codes& g, const float* mult, float* dw) {
  const Winograd& kernels = table_.winograd;
  const int64_t oh = c.oh(), ow = c.ow(), th = (oh + 3) / 4, tw = (ow + 3) / 4, tiles = c.n * th * tw;
  const int64_t product = std::max<int64_t>(1, x.top() * g.top()), most = (kExact - 1) / (16 * product) / 2 * 2;
  const int64_t span = std::min(std::min(most, kSpan), (tiles + 1) / 2 * 2), pairs = span / 2;
  const int64_t a_panels = c.o / kWidth, b_panels = c.c / kWidth, threads = pool_.threads();
  const int64_t a_position = a_panels * pairs * kWidth, b_position = b_panels * pairs * kWidth, m_bytes = kPositions * kPair * kWidth * kWidth * 4;
  const bool several = tiles > span, small = c.n * oh * ow <= kInt32 / product;
  const int64_t total_bytes = several ? c.o * 9 * c.c * 8 : 0;
  NETSUKE_TRY(reserve(&a_, kPositions * a_position * 4 + kSlackBytes));
  NETSUKE_TRY(reserve(&b_, kPositions * b_position * 4 + kSlackBytes));
  NETSUKE_TRY(reserve(&sums_, threads * m_bytes));
  NETSUKE_TRY(reserve(&wide_, std::max<int64_t>(64, total_bytes)));
  auto* a = reinterpret_cast<uint32_t*>(a_.data());
  auto* b = reinterpret_cast<uint32_t*>(b_.data());
  auto* total = reinterpret_cast<int64_t*>(wide_.data());
  const std::vector<uint8_t> zero_x(static_cast<size_t>(c.c), static_cast<uint8_t>(x.zero)), zero_g(static_cast<size_t>(c.o), static_cast<uint8_t>(g.zero));
  const auto* xs = static_cast<const uint8_t*>(x.data);
  const auto* gs = static_cast<const uint8_t*>(g.data);
  const Stopwatch watch(&tiles_ns_);
  for (int64_t t0 = 0; t0 < tiles; t0 += span) {
    const int64_t count = std::min(span, tiles - t0), used = (count + 1) / 2;
    const bool first = t0 == 0, last = t0 + span >= tiles;
    pool_.parallel_for(used, [&](int64_t pair, int) {
      const uint8_t* in[2][36];
      const uint8_t* out[2][16];
      for (int i = 0; i < 2; ++i) {
        const int64_t t = t0 + 2 * pair + i, tx = t % tw, ty = t / tw % th, n = t / tw / th;
        if (t >= t0 + count) {
          std::fill(in[i], in[i] + 36, zero_x.data());
          std::fill(out[i], out[i] + 16, zero_g.data());
          continue;
        }
        addresses<6>(xs + n * c.h * c.w * c.c, c.h, c.w, c.c, 4 * ty - c.top, 4 * tx - c.left, zero_x.data(), in[i]);
        addresses<4>(gs + n * oh * ow * c.o, oh, ow, c.o, 4 * ty, 4 * tx, zero_g.data(), out[i]);
      }
      kernels.gradient_pairs({out[0], out[1], c.o, static_cast<uint8_t>(g.zero), {1, 1}, a + pair * kWidth, a_position, pairs * kWidth});
      kernels.input_pairs({in[0], in[1], c.c, static_cast<uint8_t>(x.zero), {1, 1}, b + pair * kWidth, b_position, pairs * kWidth});
    });
    const int64_t blocks = (b_panels + kPair - 1) / kPair;
    pool_.parallel_for(a_panels * blocks, [&](int64_t task, int thread) {
      auto* m = reinterpret_cast<int32_t*>(sums_.data() + thread * m_bytes);
      const int64_t pa = task / blocks, pb = task % blocks * kPair, together = std::min<int64_t>(kPair, b_panels - pb), none = 0;
      const auto groups = static_cast<int32_t>(used);
      for (int at = 0; at < kPositions; ++at) {
        const auto* rows_a = reinterpret_cast<const uint8_t*>(a + at * a_position + pa * pairs * kWidth);
        const uint8_t* row[kWidth];
        for (int i = 0; i < kWidth; ++i) row[i] = rows_a + 4 * i;
        for (int64_t p = 0; p < together; ++p) {
          const auto* panel_b = reinterpret_cast<const uint8_t*>(b + at * b_position + (pb + p) * pairs * kWidth);
          for (int i = 0; i < kWidth;) {
            const int rows = rows_at(kWidth - i);
            table_.tile_s16({row + i, &none, nullptr, &groups, 1, panel_b, nullptr, rows, 0, m + ((at * kPair + p) * kWidth + i) * kWidth, kWidth, true, 64});
            i += rows;
          }
        }
      }
      for (int64_t p = 0; p < together; ++p) {
        for (int64_t i = 0; i < kWidth; ++i) {
          alignas(64) int32_t window[9 * kWidth];
          kernels.window(m + (p * kWidth + i) * kWidth, kPair * kWidth * kWidth, window);
          const int64_t o = pa * kWidth + i;
          for (int64_t tap = 0; tap < 9; ++tap) {
            const int64_t to = (o * 9 + tap) * c.c + (pb + p) * kWidth;
            const int32_t* sum = window + tap * kWidth;
            if (several) {
              for (int64_t k = 0; k < kWidth; ++k) total[to + k] = (first ? 0 : total[to + k]) + sum[k];
            }
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
