// dw[o,ky,kx,c] = sum over batch and positions: A's rows are (ky, kx, c) with the batch innermost, so a window's shift and a stride are
// offsets; B is dY. A span of positions is as long as int32 allows; spans are added in int64.
#include <algorithm>
#include <cstring>

#include "train/products.h"

namespace netsuke {
namespace train {
namespace {

constexpr int64_t kInt32 = 2147483647;
constexpr int64_t kChunkTerms = 1024;  // products of one visit to a tile: 16 KB of B stay in L1

}  // namespace

Status Trainer::weight_gradient(const Conv& conv, const Codes& codes, const Codes& g, const float* mult, float* dw) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Stopwatch watch(&whole_ns_);
  NETSUKE_TRY(check(conv, codes, g, 1, 0));
  Conv c = conv;
  Codes x = codes;
  NETSUKE_TRY(used_pixels(&c, &x));
  if (is_depthwise(c)) return depthwise_weight(c, x, g, mult, dw);
  if (winograd_pays(c, x, g) && 225 * g.top() <= 32767) return winograd_weights(c, x, g, mult, dw);
  const int64_t cg = c.c / c.groups, og = c.o / c.groups;
  const Lane lane = x.wide ? Lane::kS16 : table_.dot || safe_flush(x.hi, g.top()) >= 2 ? Lane::kU8 : Lane::kS16;
  int64_t flush = lane == Lane::kU8 ? std::max<int64_t>(1, safe_flush(x.hi, g.top())) : 0;
  const int64_t product = std::max<int64_t>(1, x.top() * g.top());
  if (x.wide) flush = std::max<int64_t>(1, kInt32 / (2 * product));
  // Positions whose sums surely fit int32; wide operands sum in f32 and need no spans.
  const int64_t span = x.wide ? INT64_MAX : kInt32 / (product * batch_pad(c.n));
  if (span < 1) return error(Code::kUnsupported, "a batch of %lld overflows int32 at one position", static_cast<long long>(c.n));
  for (int64_t group = 0; group < c.groups; ++group) {
    const int64_t size = x.wide ? 2 : 1;
    const Image image = {static_cast<const uint8_t*>(x.data) + group * cg * size, c.n, c.h, c.w, cg, c.c, x.zero, x.wide};
    const Image gradient = {static_cast<const uint8_t*>(g.data) + group * og * size, c.n, c.oh(), c.ow(), og, c.o, g.zero, g.wide};
    const Padded pad = {c.top, c.left, c.h + c.top + c.bottom, c.w + c.left + c.right, cg, nullptr, lane};
    NETSUKE_TRY(weight_group(c, image, pad, gradient, lane, flush, span, mult + group * og, dw + group * og * c.kh * c.kw * cg));
  }
  return Status();
}

Status Trainer::weight_group(const Conv& c, const Image& x, const Padded& pad, const Image& g, Lane lane, int64_t flush,
                             int64_t span, const float* mult, float* dw) {
  const int64_t np = batch_pad(c.n), size = element_bytes(lane), positions = g.h * g.w, panels = panels_of(g.c);
  const int64_t groups = groups_of(np, lane), padded = panels * kWidth, rows = c.kh * c.kw * x.c;
  const int64_t tall = lane == Lane::kU8 ? table_.rows : table_.rows_s16;
  const int64_t most = lane == Lane::kU8 ? table_.panels : 1;
  NETSUKE_TRY(reserve(&a_, planar_bytes(x, pad)));
  NETSUKE_TRY(reserve(&b_, gradient_bytes(g, lane)));
  NETSUKE_TRY(reserve(&sums_, (rows + 1) * padded * 4));
  planar_image(x, pad, table_, a_.data(), pool_);
  pack_gradient(g, lane, table_, b_.data(), pool_);
  const bool many = positions > span;
  NETSUKE_TRY(reserve(&wide_, std::max<int64_t>(np, 64) + (many ? rows * padded * 8 : 0)));
  auto* sums = reinterpret_cast<int32_t*>(sums_.data());
  int32_t* column_sums = sums + rows * padded;  // of the span at hand
  uint8_t* ones = wide_.data() + (many ? rows * padded * 8 : 0);
  auto* total = reinterpret_cast<int64_t*>(wide_.data());
  memset(ones, 1, static_cast<size_t>(np));
  std::vector<int64_t> offset(static_cast<size_t>(positions)), still(static_cast<size_t>(positions), 0);
  const std::vector<int32_t> run_groups(static_cast<size_t>(positions), static_cast<int32_t>(groups));
  for (int64_t i = 0; i < positions; ++i) {
    offset[static_cast<size_t>(i)] = (i / g.w * c.stride_h * pad.wp + i % g.w * c.stride_w) * x.c * np * size;
  }
  const int64_t chunk = std::min(span, std::max<int64_t>(1, kChunkTerms / np));
  const int64_t block = std::max<int64_t>(tall, std::min<int64_t>((rows + 4 * pool_.threads() - 1) / (4 * pool_.threads()), 240) / tall * tall);
  const int64_t tasks = (rows + block - 1) / block;
  const bool real = x.wide;
  const Stopwatch watch(&tiles_ns_);
  for (int64_t begin = 0; begin < positions; begin += std::min(span, positions)) {
    const int64_t end = positions - begin > span ? begin + span : positions;
    pool_.parallel_for(tasks + 1, [&](int64_t task, int) {
      const bool counting = task == tasks;  // the last task sums columns: a row of ones
      if (counting && lane == Lane::kS16) return;
      const int64_t m0 = counting ? rows : task * block, m1 = counting ? rows + 1 : std::min(rows, m0 + block);
      for (int64_t at = begin; at < end; at += chunk) {
        const int64_t runs = std::min(chunk, end - at);
        for (int64_t panel = 0; panel < panels; panel += most) {
          const uint8_t* b = b_.data() + (panel * positions + at) * groups * kGroupBytes;
          const uint8_t* next = most > 1 && panel + 1 < panels ? b + positions * groups * kGroupBytes : nullptr;
          for (int64_t m = m0; m < m1; m += tall) {
            const uint8_t* base[kMaxRows];
            const int tile_rows = static_cast<int>(std::min(tall, m1 - m));
            for (int r = 0; r < tile_rows && !counting; ++r) {
              const int64_t row = m + r, tap = row / x.c, ky = tap / c.kw, kx = tap % c.kw;
              base[r] = a_.data() + ((ky * c.dilation_h * pad.wp + kx * c.dilation_w) * x.c + row % x.c) * np * size;
            }
            if (counting) base[0] = ones;
            const Tile tile = {base, (counting ? still : offset).data() + at, nullptr, run_groups.data(), runs,
                               b, next, tile_rows, flush,
                               (counting ? column_sums : sums + m * padded) + panel * kWidth, padded, at == begin};
            (lane == Lane::kU8 ? table_.tile_u8 : table_.tile_s16)(tile);
          }
        }
      }
    });
    if (!many) break;
    pool_.parallel_for(rows, [&](int64_t m, int) {
      for (int64_t o = 0; o < g.c; ++o) {
        const auto zero = lane == Lane::kU8 ? static_cast<uint32_t>(x.zero) * static_cast<uint32_t>(column_sums[o]) : 0u;
        const auto sum = static_cast<int32_t>(static_cast<uint32_t>(sums[m * padded + o]) - zero);
        total[m * padded + o] = (begin == 0 ? 0 : total[m * padded + o]) + sum;
      }
    });
  }
  pool_.parallel_for((g.c + 7) / 8, [&](int64_t task, int) {
    for (int64_t o = task * 8; o < std::min(g.c, task * 8 + 8); ++o) {
      const auto zero = lane == Lane::kU8 ? static_cast<uint32_t>(x.zero) * static_cast<uint32_t>(column_sums[o]) : 0u;
      for (int64_t m = 0; m < rows; ++m) {
        float sum;
        if (real) {
          memcpy(&sum, sums + m * padded + o, 4);
        } else if (many) {
          sum = static_cast<float>(total[m * padded + o]);
        } else {
          sum = static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(sums[m * padded + o]) - zero));
        }
        dw[o * rows + m] = sum * mult[o];
      }
    }
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
