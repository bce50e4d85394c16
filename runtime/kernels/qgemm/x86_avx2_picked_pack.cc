// Sorting the channels of a window into lanes (picked.h). A channel is a register of 32 bytes: the magnitudes of its positive weights for 16
// outputs, then those of its negative ones, so that a saturating addition and a comparison tell whether channels may share a lane.
//
// First the channels are paired, each time the one with the fewest possible partners, then the pairs are joined to lanes by the best of all
// 105 ways to join eight. Retried with other partners only where units are left partly empty: 0.7 us a window, 3 us with all retries. (Three
// attempts for more plain units raise them from 66 to 77 of a hundred, 3 % of a layer's time, at three times the cost.)
#include <immintrin.h>

#include <cstring>

#include "kernels/qgemm/picked.h"

namespace netsuke {
namespace qgemm {

PickedSize picked_pack_x86_avx2(const PickedPanel& panel, uint8_t* dst, uint8_t* scratch, uint32_t* lost);

namespace {

constexpr int kWindow = kPickedWindow;
constexpr int kAttempts = 6;  // where more units come out than the channels would fill
constexpr int kWays = 105;  // to join eight items in pairs: 7 * 5 * 3

struct Item {  // channels of one group of one lane: two, one or (never used) none
  int count = 0;
  int channel[2] = {0, 0};
  __m256i size;
};

struct Lane {
  int first = -1, second = -1;  // items; -1: none
  bool plain = true;
};

struct Way {
  int8_t item[4];  // 8 * first + second, first < second
};

struct Ways {
  Way way[kWays];
  int count = 0;
  Ways() {
    Way w = {};
    fill(0, 0, &w);
  }
  void fill(int used, int at, Way* w) {
    if (at == 4) {
      way[count++] = *w;
      return;
    }
    int first = 0;
    while (used >> first & 1) ++first;
    for (int second = first + 1; second < 8; ++second) {
      if (used >> second & 1) continue;
      w->item[at] = static_cast<int8_t>(8 * first + second);
      fill(used | 1 << first | 1 << second, at + 1, w);
    }
  }
};

inline bool none(__m256i v) { return _mm256_testz_si256(v, v) != 0; }

// How the channels of one window are laid out.
struct Layout16 {
  Item item[kWindow];
  int items = 0;
  Lane lane[kWindow];
  int lanes = 0, plain = 0;
  int units() const { return (lanes + 1) / 2; }
  int cost() const { return 14 * units() - 2 * plain_units(); }  // instructions a row
  int plain_units() const { return lanes == plain ? units() : plain / 2; }
};

class Window {
 public:
  explicit Window(int32_t hi) {
    const int32_t pair = 32767 / hi, wide = (65280 / hi - 1) / 2;
    // Bytes saturate at 255: P and N of at most 127 on average are below that.
    limit_ = _mm256_set1_epi8(static_cast<char>(pair < 254 ? pair : 254));
    half_ = _mm256_set1_epi8(static_cast<char>(wide < 127 ? wide : 127));
  }

  void sort(const __m256i* channel, int n, Layout16* out) const {
    uint32_t friends[kWindow] = {};
    for (int i = 0; i < n; ++i) {
      for (int j = i + 1; j < n; ++j) {
        const uint32_t good = fits(_mm256_adds_epu8(channel[i], channel[j])) ? 1 : 0;
        friends[i] |= good << j;
        friends[j] |= good << i;
      }
    }
    uint32_t seed = 1;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      Layout16 found;
      pair_up(channel, friends, n, attempt == 0 ? nullptr : &seed, &found);
      join(&found);
      if (attempt == 0 || found.cost() < out->cost()) *out = found;
      if (out->units() * 8 < n + 8) return;
    }
  }

 private:
  bool fits(__m256i sum) const { return none(_mm256_subs_epu8(sum, limit_)); }
  bool wraps_once(__m256i sum) const {
    const __m256i turned = _mm256_permute2x128_si256(sum, sum, 1);
    return none(_mm256_subs_epu8(_mm256_avg_epu8(sum, turned), half_));
  }

  // seed: null takes the partner with the fewest friends, else any.
  static void pair_up(const __m256i* channel, const uint32_t* friends, int n, uint32_t* seed, Layout16* out) {
    uint32_t left = (1u << n) - 1;
    while (left != 0) {
      const int a = fewest(friends, left, left);
      left &= ~(1u << a);
      const uint32_t partners = friends[a] & left;
      Item& item = out->item[out->items++];
      item.count = 1;
      item.channel[0] = a;
      item.size = channel[a];
      if (partners == 0) continue;
      const int b = seed == nullptr ? fewest(friends, partners, left) : any(partners, seed);
      left &= ~(1u << b);
      item.count = 2;
      item.channel[1] = b;
      item.size = _mm256_adds_epu8(item.size, channel[b]);
    }
  }

  static int any(uint32_t among, uint32_t* seed) {
    *seed = *seed * 1664525u + 1013904223u;
    for (uint32_t skip = (*seed >> 16) % static_cast<uint32_t>(__builtin_popcount(among)); skip > 0; --skip) among &= among - 1;
    return __builtin_ctz(among);
  }

  // The channel of `among` with the fewest friends left.
  static int fewest(const uint32_t* friends, uint32_t among, uint32_t left) {
    uint32_t best = 1u << 16;
    for (; among != 0; among &= among - 1) {
      const uint32_t i = static_cast<uint32_t>(__builtin_ctz(among));
      const uint32_t count = (static_cast<uint32_t>(__builtin_popcount(friends[i] & left)) << 8) | i;
      best = count < best ? count : best;
    }
    return static_cast<int>(best & 0xff);
  }

  // Items to lanes, eight at a time.
  void join(Layout16* out) const {
    for (int first = 0; first < out->items; first += 8) join8(first, out->items - first < 8 ? out->items - first : 8, out);
    Lane sorted[kWindow];
    int n = 0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i < out->lanes; ++i) {
        if (out->lane[i].plain == (pass == 0)) sorted[n++] = out->lane[i];
      }
      if (pass == 0) out->plain = n;
    }
    for (int i = 0; i < n; ++i) out->lane[i] = sorted[i];
  }

  void join8(int first, int n, Layout16* out) const {
    static const Ways ways;
    int8_t score[8][8];  // 2: plain, 1: offset, -8: not together
    for (int i = 0; i < 8; ++i) {
      for (int j = i + 1; j < 8; ++j) {
        score[i][j] = 2;
        if (j >= n) continue;  // an empty item goes with everything
        const __m256i sum = _mm256_adds_epu8(out->item[first + i].size, out->item[first + j].size);
        score[i][j] = fits(sum) ? int8_t{2} : wraps_once(sum) ? int8_t{1} : int8_t{-8};
      }
    }
    const Way* best = nullptr;
    int most = -1000;
    for (int i = 0; i < ways.count && most < 8; ++i) {
      const int8_t* w = ways.way[i].item;  // 8 * first + second
      const int8_t* s = &score[0][0];
      const int total = s[w[0]] + s[w[1]] + s[w[2]] + s[w[3]];
      if (total > most) {
        most = total;
        best = &ways.way[i];
      }
    }
    for (int i = 0; i < 4; ++i) {
      const int a = best->item[i] / 8, b = best->item[i] % 8, s = score[a][b];
      if (a >= n) continue;
      const bool two = b < n;
      Lane lane;
      lane.first = first + a;
      lane.second = two && s > 0 ? first + b : -1;
      lane.plain = s != 1;
      out->lane[out->lanes++] = lane;
      if (!two || s > 0) continue;
      lane.first = first + b;  // each alone: an item fits by itself
      out->lane[out->lanes++] = lane;
    }
  }

  __m256i limit_, half_;
};

// The 16 codes of a channel, one an output.
struct Channels {
  __m128i w[kWindow];
};

// w[o * stride + i] of 16 outputs and codes, transposed.
void transpose(const int8_t* w, int64_t stride, int columns, Channels* out) {
  __m128i a[16], b[16];
  for (int o = 0; o < 16; ++o) {
    a[o] = o < columns ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + o * stride)) : _mm_setzero_si128();
  }
  // Four rounds of a perfect shuffle of the 256 bytes exchange the two indices.
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 16; ++i) out->w[i] = a[i];
}

// Magnitudes of the positive codes, then of the negative ones; of -128 it is 128.
__m256i sizes(__m128i w) {
  const __m128i zero = _mm_setzero_si128();
  return _mm256_set_m128i(_mm_sub_epi8(zero, _mm_min_epi8(w, zero)), _mm_max_epi8(w, zero));
}

inline void store16(uint8_t* p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
inline bool any_above(__m256i v, int32_t most) { return _mm256_movemask_epi8(_mm256_cmpgt_epi16(v, _mm256_set1_epi16(static_cast<int16_t>(most)))) != 0; }

// What a lane can sum up to, exactly, in 16 bits: 16 outputs.
struct Reach {
  __m256i up, down;
};

// Proves that vpmaddubsw cannot saturate on this pair.
bool add_item(const Channels& codes, const int* place, const Item& item, int32_t pair_most, __m128i (&w)[2], int (&channel)[2], Reach* lane) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i up = zero, down = zero;
  for (int i = 0; i < item.count; ++i) {
    channel[i] = place[item.channel[i]];
    w[i] = codes.w[channel[i]];
    const __m256i v = _mm256_cvtepi8_epi16(w[i]);
    up = _mm256_add_epi16(up, _mm256_max_epi16(v, zero));
    down = _mm256_sub_epi16(down, _mm256_min_epi16(v, zero));
  }
  lane->up = _mm256_add_epi16(lane->up, up);
  lane->down = _mm256_add_epi16(lane->down, down);
  return !any_above(up, pair_most) && !any_above(down, pair_most);
}

// c / 256 of 8 outputs, as 32 bits.
__m256i start8(__m128i down, int32_t hi) {
  const __m256i low = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(down), _mm256_set1_epi32(hi));
  return _mm256_srai_epi32(_mm256_sub_epi32(low, _mm256_set1_epi32(32768 - 255)), 8);
}

struct Bounds {
  int32_t hi, pair, both;  // P, N of a pair or plain lane at most `pair`, P + N of an offset lane at most `both`
};

void add_lost(__m256i c, uint32_t* lost) {
  __m256i* at = reinterpret_cast<__m256i*>(lost);
  _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), _mm256_slli_epi32(c, 8)));
}

// One unit from up to two lanes. False when the lanes' exact sums break the bounds.
bool write_unit(const Bounds& bounds, const Layout16& layout, const Lane* lanes, int n, bool offset, const Channels& codes, const int* place,
                uint8_t* dst, PickedAt* at, uint32_t* lost) {
  __m128i w[2][2][2];  // [group][lane][channel of the pair]
  __m256i start[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  memset(w, 0, sizeof(w));
  at->pick[0] = at->pick[1] = 0x80808080u;
  for (int lane = 0; lane < n; ++lane) {
    Reach reach = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int group = 0; group < 2; ++group) {
      const int number = group == 0 ? lanes[lane].first : lanes[lane].second;
      if (number < 0) continue;
      const Item& item = layout.item[number];
      int channel[2] = {0x80, 0x80};
      if (!add_item(codes, place, item, bounds.pair, w[group][lane], channel, &reach)) return false;
      const uint32_t two = static_cast<uint32_t>(channel[0]) | static_cast<uint32_t>(channel[1]) << 8;
      at->pick[group] = (at->pick[group] & ~(0xffffu << (16 * lane))) | two << (16 * lane);
    }
    if (!offset) {
      if (any_above(reach.up, bounds.pair) || any_above(reach.down, bounds.pair)) return false;
      continue;
    }
    if (any_above(_mm256_add_epi16(reach.up, reach.down), bounds.both)) return false;
    const __m256i c0 = start8(_mm256_castsi256_si128(reach.down), bounds.hi), c1 = start8(_mm256_extracti128_si256(reach.down, 1), bounds.hi);
    start[lane] = _mm256_permute4x64_epi64(_mm256_packs_epi32(c0, c1), 0xd8);
    add_lost(c0, lost);
    add_lost(c1, lost + 8);
  }
  for (int group = 0; group < 2; ++group) {
    const __m128i(&g)[2][2] = w[group];
    const __m128i lo0 = _mm_unpacklo_epi8(g[0][0], g[0][1]), hi0 = _mm_unpackhi_epi8(g[0][0], g[0][1]);
    const __m128i lo1 = _mm_unpacklo_epi8(g[1][0], g[1][1]), hi1 = _mm_unpackhi_epi8(g[1][0], g[1][1]);
    uint8_t* to = dst + 64 * group;
    store16(to, _mm_unpacklo_epi16(lo0, lo1));
    store16(to + 16, _mm_unpackhi_epi16(lo0, lo1));
    store16(to + 32, _mm_unpacklo_epi16(hi0, hi1));
    store16(to + 48, _mm_unpackhi_epi16(hi0, hi1));
  }
  if (!offset) return true;
  // Unpacked above zeros, the low bytes of both 128-bit lanes become the 16-bit lanes of half 0, the high ones those of half 1.
  const __m128i a0 = _mm256_castsi256_si128(start[0]), b0 = _mm256_castsi256_si128(start[1]);
  const __m128i a1 = _mm256_extracti128_si256(start[0], 1), b1 = _mm256_extracti128_si256(start[1], 1);
  store16(dst + kPickedPlain, _mm_packs_epi16(_mm_unpacklo_epi16(a0, b0), _mm_unpacklo_epi16(a1, b1)));
  store16(dst + kPickedPlain + 16, _mm_packs_epi16(_mm_unpackhi_epi16(a0, b0), _mm_unpackhi_epi16(a1, b1)));
  return true;
}

int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// What a run's units are written to: plain ones to their place, offset ones and all positions aside.
struct Run {
  uint8_t *plain, *offset;
  PickedAt *plain_at, *offset_at;
};

// One window of n channels at `first` of its run.
bool pack_window(const PickedPanel& p, const Window& sorter, const int8_t* run, int64_t first, int64_t start, int64_t end, Run* out, uint32_t* lost) {
  Channels codes;
  transpose(run + first, p.runs * p.run_length, p.columns, &codes);
  __m256i channel[kWindow];
  int place[kWindow], n = 0;
  for (int64_t k = start; k < end; ++k) {
    channel[n] = sizes(codes.w[k - first]);
    if (none(channel[n])) continue;  // a channel without weights needs no product
    place[n++] = static_cast<int>(k - first);
  }
  if (n == 0) return true;
  const Bounds bounds = {p.hi, 32767 / p.hi, 65280 / p.hi};
  Layout16 layout;
  sorter.sort(channel, n, &layout);
  const int plain = layout.plain_units();
  for (int unit = 0; unit < layout.units(); ++unit) {
    const int lanes = layout.lanes - 2 * unit < 2 ? 1 : 2;
    const bool offset = unit >= plain;
    uint8_t*& to = offset ? out->offset : out->plain;
    PickedAt* at = (offset ? out->offset_at : out->plain_at)++;
    at->window = static_cast<int32_t>(first);
    if (!write_unit(bounds, layout, layout.lane + 2 * unit, lanes, offset, codes, place, to, at, lost)) return false;
    to += offset ? kPickedOffset : kPickedPlain;
  }
  return true;
}

}  // namespace

PickedSize picked_pack_x86_avx2(const PickedPanel& p, uint8_t* dst, uint8_t* scratch, uint32_t* lost) {
  PickedSize size;
  memset(lost, 0, kPickedWidth * sizeof(uint32_t));
  if (p.run_length < kWindow || p.hi < 2 || p.hi > 255) return size;
  const int64_t windows = (p.run_length + kWindow - 1) / kWindow, most = windows * kPickedMostUnits;
  int32_t* counts = reinterpret_cast<int32_t*>(scratch);
  PickedAt* all_at = reinterpret_cast<PickedAt*>(counts + 2 * p.runs);
  PickedAt* aside_at = all_at + most * p.runs;
  uint8_t* aside = scratch + rounded(reinterpret_cast<uint8_t*>(aside_at + most) - scratch);
  const Window sorter(p.hi);
  Run out = {dst + 64, nullptr, all_at, nullptr};
  for (int64_t r = 0; r < p.runs; ++r) {
    out.offset = aside;
    out.offset_at = aside_at;
    const PickedAt* before = out.plain_at;
    for (int64_t k = 0; k < p.run_length; k += kWindow) {
      const int64_t first = k + kWindow <= p.run_length ? k : p.run_length - kWindow;  // windows stay inside the run
      const int64_t end = k + kWindow < p.run_length ? k + kWindow : p.run_length;
      if (!pack_window(p, sorter, p.w + r * p.run_length, first, k, end, &out, lost)) return size;
    }
    const int64_t offset = out.offset_at - aside_at;
    counts[2 * r] = static_cast<int32_t>(out.plain_at - before);
    counts[2 * r + 1] = static_cast<int32_t>(offset);
    memcpy(out.plain, aside, static_cast<size_t>(offset * kPickedOffset));
    memcpy(out.plain_at, aside_at, static_cast<size_t>(offset) * sizeof(PickedAt));
    out.plain += offset * kPickedOffset;
    out.plain_at += offset;
    size.plain += counts[2 * r];
    size.offset += offset;
  }
  const int64_t head = out.plain - dst, bytes = reinterpret_cast<uint8_t*>(out.plain_at) - scratch;
  memset(dst, 0, 64);
  memcpy(dst, &head, 8);
  memcpy(out.plain, scratch, static_cast<size_t>(bytes));
  size.bytes = rounded(head + bytes);
  return size;
}

}  // namespace qgemm
}  // namespace netsuke
