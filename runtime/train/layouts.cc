#include "train/layouts.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace train {
namespace {

int16_t value_at(const Image& x, int64_t i) {
  if (x.wide) return static_cast<const int16_t*>(x.data)[i];
  return static_cast<int16_t>(static_cast<const uint8_t*>(x.data)[i] - x.zero);
}

void widen(const uint8_t* __restrict from, int64_t count, int32_t zero, int16_t* __restrict to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int16_t>(from[i] - zero);
}

// Two rows of 16 codes as pairs of values.
void interleave2(const uint8_t* first, const uint8_t* second, int32_t zero, uint8_t* to) {
  uint32_t pair[kWidth];
  for (int64_t i = 0; i < kWidth; ++i) {
    const auto low = static_cast<uint16_t>(first[i] - zero), high = static_cast<uint16_t>(second[i] - zero);
    pair[i] = static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
  }
  memcpy(to, pair, sizeof pair);
}

// codes [n][image] of `channels` channels to [channel][np]: sixteen by sixteen, then what is left; fillers are zero points.
void planar_codes(const Image& x, int64_t from, int64_t np, const Table& table, uint8_t* to) {
  const int64_t image = x.h * x.w * x.stride, n16 = x.n / 16 * 16, c16 = x.c / 16 * 16;
  const uint8_t* src = static_cast<const uint8_t*>(x.data) + from;
  for (int64_t n = 0; n < n16; n += 16) {
    for (int64_t c = 0; c < c16; c += 16) table.transpose16(src + n * image + c, image, to + c * np + n, np);
  }
  for (int64_t c = 0; c < x.c; ++c) {
    for (int64_t n = c < c16 ? n16 : 0; n < np; ++n) to[c * np + n] = n < x.n ? src[n * image + c] : static_cast<uint8_t>(x.zero);
  }
}

void copy_pixel(const Image& x, const Padded& p, int64_t from, uint8_t* to) {
  if (p.lane == Lane::kU8) {
    const uint8_t* src = static_cast<const uint8_t*>(x.data) + from;
    if (p.channels == nullptr) {
      memcpy(to, src, static_cast<size_t>(x.c));
      memset(to + x.c, x.zero, static_cast<size_t>(p.cp - x.c));
    } else {
      for (int64_t c = 0; c < p.cp; ++c) to[c] = p.channels[c] < 0 ? static_cast<uint8_t>(x.zero) : src[p.channels[c]];
    }
    return;
  }
  int16_t* out = reinterpret_cast<int16_t*>(to);
  if (p.channels == nullptr && !x.wide) {
    widen(static_cast<const uint8_t*>(x.data) + from, x.c, x.zero, out);
    memset(out + x.c, 0, static_cast<size_t>(p.cp - x.c) * sizeof(int16_t));
    return;
  }
  for (int64_t c = 0; c < p.cp; ++c) {
    const int64_t at = p.channels == nullptr ? (c < x.c ? c : -1) : p.channels[c];
    out[c] = at < 0 ? int16_t{0} : value_at(x, from + at);
  }
}

}  // namespace

void pad_image(const Image& x, const Padded& p, void* dst, ThreadPool& pool) {
  const int64_t pixel = p.cp * element_bytes(p.lane);
  const int fill = p.lane == Lane::kU8 ? x.zero : 0;
  const bool whole = p.lane == Lane::kU8 && p.channels == nullptr && p.cp == x.c && x.stride == x.c && !x.wide;
  pool.parallel_for(x.n * p.hp, [&](int64_t row, int) {
    const int64_t n = row / p.hp, y = row % p.hp - p.top;
    uint8_t* to = static_cast<uint8_t*>(dst) + row * p.wp * pixel;
    if (y < 0 || y >= x.h) {
      memset(to, fill, static_cast<size_t>(p.wp * pixel));
      return;
    }
    const int64_t columns = std::max<int64_t>(0, std::min(x.w, p.wp - p.left)), from = (n * x.h + y) * x.w * x.stride;
    memset(to, fill, static_cast<size_t>(p.left * pixel));
    if (whole) {
      memcpy(to + p.left * pixel, static_cast<const uint8_t*>(x.data) + from, static_cast<size_t>(columns * pixel));
    } else {
      for (int64_t i = 0; i < columns; ++i) copy_pixel(x, p, from + i * x.stride, to + (p.left + i) * pixel);
    }
    memset(to + (p.left + columns) * pixel, fill, static_cast<size_t>((p.wp - p.left - columns) * pixel));
  });
}

void planar_image(const Image& x, const Padded& p, const Table& table, void* dst, ThreadPool& pool) {
  const int64_t np = batch_pad(x.n), size = element_bytes(p.lane);
  const int fill = p.lane == Lane::kU8 ? x.zero : 0;
  const int64_t image = x.h * x.w * x.stride;
  std::vector<uint8_t> narrow(p.lane == Lane::kS16 && !x.wide ? static_cast<size_t>(pool.threads() * x.c * np) : 0);
  pool.parallel_for(p.hp * p.wp, [&](int64_t at, int thread) {
    const int64_t y = at / p.wp - p.top, column = at % p.wp - p.left;
    uint8_t* to = static_cast<uint8_t*>(dst) + at * x.c * np * size;
    if (y < 0 || y >= x.h || column < 0 || column >= x.w) {
      memset(to, fill, static_cast<size_t>(x.c * np * size));
      return;
    }
    const int64_t from = (y * x.w + column) * x.stride;
    if (p.lane == Lane::kU8) {
      planar_codes(x, from, np, table, to);
      return;
    }
    int16_t* out = reinterpret_cast<int16_t*>(to);
    if (!x.wide) {
      uint8_t* codes = narrow.data() + thread * x.c * np;
      planar_codes(x, from, np, table, codes);
      widen(codes, x.c * np, x.zero, out);
      return;
    }
    for (int64_t c = 0; c < x.c; ++c) {
      for (int64_t n = 0; n < np; ++n) out[c * np + n] = n < x.n ? value_at(x, n * image + from + c) : int16_t{0};
    }
  });
}

void pack_gradient(const Image& g, Lane lane, const Table& table, uint8_t* dst, ThreadPool& pool) {
  const int64_t groups = groups_of(batch_pad(g.n), lane), positions = g.h * g.w, image = positions * g.stride;
  const int64_t each = lane == Lane::kU8 ? 4 : 2, panels = panels_of(g.c);
  pool.parallel_for(positions, [&](int64_t at, int) {
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t c0 = panel * kWidth, columns = std::min<int64_t>(kWidth, g.c - c0);
      uint8_t* to = dst + (panel * positions + at) * groups * kGroupBytes;
      for (int64_t n0 = 0; n0 < groups * each; n0 += each, to += kGroupBytes) {
        if (lane == Lane::kU8 && columns == kWidth && n0 + 4 <= g.n) {
          const uint8_t* src = static_cast<const uint8_t*>(g.data) + n0 * image + at * g.stride + c0;
          const uint8_t* const rows[4] = {src, src + image, src + 2 * image, src + 3 * image};
          table.interleave4(rows, static_cast<uint8_t>(g.zero), to);
          continue;
        }
        if (lane == Lane::kS16 && !g.wide && columns == kWidth && n0 + 2 <= g.n) {
          const uint8_t* first = static_cast<const uint8_t*>(g.data) + n0 * image + at * g.stride + c0;
          interleave2(first, first + image, g.zero, to);
          continue;
        }
        for (int64_t c = 0; c < kWidth; ++c) {
          for (int64_t i = 0; i < each; ++i) {
            const bool inside = c < columns && n0 + i < g.n;
            const int16_t v = inside ? value_at(g, (n0 + i) * image + at * g.stride + c0 + c) : int16_t{0};
            if (lane == Lane::kU8) {
              to[c * 4 + i] = static_cast<uint8_t>(v);
            } else {
              memcpy(to + c * 4 + i * 2, &v, 2);
            }
          }
        }
      }
    }
  });
}

int64_t weight_bytes(const Weights& w) {
  int64_t groups = 0;
  for (int64_t q = 0; q < w.runs; ++q) groups += w.groups[q];
  return panels_of(w.columns) * groups * kGroupBytes + kSlackBytes;
}

void pack_weights(const Weights& w, Lane lane, uint8_t* dst, int32_t* sums, ThreadPool& pool) {
  const int64_t each = lane == Lane::kU8 ? 4 : 2, panels = panels_of(w.columns);
  const int64_t panel_bytes = (weight_bytes(w) - kSlackBytes) / panels;
  pool.parallel_for(panels, [&](int64_t panel, int) {
    uint32_t total[kWidth] = {};
    uint8_t* to = dst + panel * panel_bytes;
    const int64_t columns = std::min<int64_t>(kWidth, w.columns - panel * kWidth);
    for (int64_t q = 0; q < w.runs; to += w.groups[q] * kGroupBytes, ++q) {
      if (w.shift != nullptr) {
        for (uint32_t& sum : total) sum <<= w.shift[q];
      }
      memset(to, 0, static_cast<size_t>(w.groups[q] * kGroupBytes));
      for (int64_t k = 0; k < w.k[q]; ++k) {
        const int64_t index = w.channels == nullptr ? k : w.channels[q][k];
        const int64_t from = w.base[q] + index * w.k_stride + panel * kWidth * w.column_stride;
        uint8_t* group = to + k / each * kGroupBytes + k % each * (4 / each);
        for (int64_t c = 0; c < columns; ++c) {
          const int64_t at = from + c * w.column_stride;
          if (lane == Lane::kU8) {
            const int8_t v = static_cast<const int8_t*>(w.data)[at];
            group[4 * c] = static_cast<uint8_t>(v);
            total[c] += static_cast<uint32_t>(static_cast<int32_t>(v));
          } else {
            const int16_t v = w.wide ? static_cast<const int16_t*>(w.data)[at] : static_cast<const int8_t*>(w.data)[at];
            memcpy(group + 4 * c, &v, 2);
          }
        }
      }
    }
    for (int c = 0; c < kWidth; ++c) sums[panel * kWidth + c] = static_cast<int32_t>(total[c]);
  });
}

}  // namespace train
}  // namespace netsuke
