#include "train/products.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace train {

constexpr int64_t kInt32 = 2147483647;

// One product: rows of A by address, packed B, where results go.
struct Trainer::Plan {
  const uint8_t* a = nullptr;
  const uint8_t* b = nullptr;
  Lane lane = Lane::kU8;
  int64_t flush = 0;           // see Tile
  bool chain = false;          // sums are f32
  int32_t zero = 0;            // A's zero point
  std::vector<int64_t> run_offset, base;
  std::vector<int32_t> run_k, run_groups;
  std::vector<uint8_t> run_shift;
  std::vector<const int32_t*> channels;
  int64_t columns = 0;
  // Row m is pixel (m / pixels_w / pixels_h, m / pixels_w % pixels_h, m % pixels_w).
  int64_t images = 0, pixels_h = 0, pixels_w = 0;
  int64_t a_image = 0, a_row = 0, a_pixel = 0;  // bytes
  float* out = nullptr;
  int64_t out_image = 0, out_row = 0, out_pixel = 0;  // elements
  const int32_t* sums = nullptr;
  bool add = false;  // to what out holds
};

Lane Trainer::lane_for(const Codes& a, const Codes& b) const {
  if (a.wide || b.wide) return Lane::kS16;
  if (table_.dot) return Lane::kU8;
  return safe_flush(a.hi, b.top()) >= 2 ? Lane::kU8 : Lane::kS16;
}

Status Trainer::reserve(Buffer* buffer, int64_t bytes) {
  if (static_cast<int64_t>(buffer->bytes()) >= bytes) return Status();
  return buffer->allocate(static_cast<size_t>(bytes));
}

Status Trainer::check(const Conv& c, const Codes& a, const Codes& b, int64_t terms, int shift) const {
  const int64_t sizes[] = {c.n, c.h, c.w, c.c, c.o, c.kh, c.kw, c.stride_h, c.stride_w, c.dilation_h, c.dilation_w, c.groups};
  for (int64_t size : sizes) {
    if (size < 1 || size > (int64_t{1} << 31)) return error(Code::kInvalidArgument, "a size of the layer is %lld", static_cast<long long>(size));
  }
  if (c.c % c.groups != 0 || c.o % c.groups != 0 || c.top < 0 || c.left < 0 || c.bottom < 0 || c.right < 0) {
    return error(Code::kInvalidArgument, "groups must divide the channels and padding cannot be negative");
  }
  if (c.h + c.top + c.bottom < c.dilation_h * (c.kh - 1) + 1 || c.w + c.left + c.right < c.dilation_w * (c.kw - 1) + 1) {
    return error(Code::kInvalidArgument, "the window is larger than the padded image");
  }
  for (const Codes* codes : {&a, &b}) {
    const int32_t least = codes->wide ? -32767 : -128, most = codes->wide ? 32767 : 255;
    if (codes->lo < least || codes->hi > most || codes->lo > codes->hi || codes->zero < codes->lo || codes->zero > codes->hi) {
      return error(Code::kInvalidArgument, "codes [%d, %d] with zero %d do not fit their type", codes->lo, codes->hi, codes->zero);
    }
  }
  if (a.wide != b.wide) return error(Code::kInvalidArgument, "both operands must be 16 bits wide, or none");
  if (!a.wide && (terms > kInt32 || terms * a.top() * b.top() > (kInt32 >> shift))) {
    return error(Code::kUnsupported, "a sum of %lld products of %lld * %lld, shifted by %d, can leave int32", static_cast<long long>(terms),
                 static_cast<long long>(a.top()), static_cast<long long>(b.top()), shift);
  }
  return Status();
}

void Trainer::times(int64_t* prepare, int64_t* multiply) {
  const std::lock_guard<std::mutex> lock(mutex_);
  *prepare = whole_ns_ - tiles_ns_;
  *multiply = tiles_ns_;
  whole_ns_ = tiles_ns_ = 0;
}

void Trainer::multiply(const Plan& p, const float* mult, const float* bias) {
  const Stopwatch watch(&tiles_ns_);
  const int64_t rows = p.images * p.pixels_h * p.pixels_w, panels = panels_of(p.columns);
  const int64_t tall = p.lane == Lane::kU8 ? table_.rows : table_.rows_s16;
  const int most = p.lane == Lane::kU8 ? table_.panels : 1;
  int64_t groups = 0;
  for (int32_t g : p.run_groups) groups += g;
  // A panel of B stays in the caches for a task's rows; enough tasks for every thread.
  const int64_t wanted = std::max<int64_t>(1, rows / (4 * pool_.threads()));
  const int64_t block = (std::min<int64_t>(wanted, 384) + tall - 1) / tall * tall;
  const bool stream = !p.add && rows * p.columns >= kStreamedResult;
  pool_.parallel_for((rows + block - 1) / block, [&](int64_t task, int) {
    std::vector<const uint8_t*> a(static_cast<size_t>(block));
    std::vector<float*> out(static_cast<size_t>(block));
    const int64_t m0 = task * block, count = std::min(block, rows - m0);
    // Counted, not divided: three divisions a row take as long as its products with 16 channels.
    int64_t x = m0 % p.pixels_w, y = m0 / p.pixels_w % p.pixels_h, n = m0 / p.pixels_w / p.pixels_h;
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      a[i] = p.a + n * p.a_image + y * p.a_row + x * p.a_pixel;
      out[i] = p.out + n * p.out_image + y * p.out_row + x * p.out_pixel;
      if (++x == p.pixels_w) {
        x = 0;
        if (++y == p.pixels_h) y = 0, ++n;
      }
    }
    constexpr int kWide = kMaxPanels * kWidth;
    alignas(64) int32_t sums[kMaxRows * kWide];
    alignas(64) float* to[kMaxRows];
    for (int64_t panel = 0; panel < panels; panel += most) {
      const int together = static_cast<int>(std::min<int64_t>(most, panels - panel));
      const int64_t column = panel * kWidth;
      int32_t corr[kWide];
      float scale[kWide] = {}, offset[kWide] = {};
      for (int i = 0; i < together * kWidth; ++i) {
        const auto sum = static_cast<uint32_t>(p.sums[column + i]);
        corr[i] = p.lane == Lane::kU8 ? static_cast<int32_t>(0u - static_cast<uint32_t>(p.zero) * sum) : 0;
        if (column + i < p.columns) scale[i] = mult[column + i];
        if (column + i < p.columns && bias != nullptr) offset[i] = bias[column + i];
      }
      const uint8_t* b = p.b + panel * groups * kGroupBytes;
      for (int64_t i = 0; i < count; i += tall) {
        const int tile_rows = static_cast<int>(std::min(tall, count - i));
        Tile tile = {a.data() + i, p.run_offset.data(), p.run_shift.empty() ? nullptr : p.run_shift.data(), p.run_groups.data(),
                     static_cast<int64_t>(p.run_groups.size()), b, together > 1 ? b + groups * kGroupBytes : nullptr, tile_rows, p.flush,
                     sums, kWide, true};
        (p.lane == Lane::kU8 ? table_.tile_u8 : table_.tile_s16)(tile);
        for (int v = 0; v < together; ++v) {
          const int64_t at = column + v * kWidth;
          const int columns = static_cast<int>(std::min<int64_t>(kWidth, p.columns - at));
          for (int r = 0; r < tile_rows; ++r) to[r] = out[static_cast<size_t>(i + r)] + at;
          if (!p.chain) {
            const float* added = bias != nullptr ? offset + v * kWidth : nullptr;
            table_.finish({sums + v * kWidth, kWide, tile_rows, columns, corr + v * kWidth, scale + v * kWidth, added, to, stream, p.add});
            continue;
          }
          for (int r = 0; r < tile_rows; ++r) {
            float real[kWidth];
            memcpy(real, sums + r * kWide, sizeof real);
            for (int c = 0; c < columns; ++c) to[r][c] = bias != nullptr ? real[c] * scale[c] + offset[c] : real[c] * scale[c];
          }
        }
      }
    }
    if (stream) table_.streamed();
  });
}

// What 16-bit sums (kU8) or int32 sums of pairs (kS16, wide operands) hold.
static int64_t flush_for(Lane lane, const Codes& a, const Codes& b) {
  if (lane == Lane::kU8) return std::max<int64_t>(1, safe_flush(a.hi, b.top()));
  return a.wide ? std::max<int64_t>(1, kInt32 / std::max<int64_t>(1, 2 * a.top() * b.top())) : 0;
}

// Windows of one pixel and a stride read few pixels of x: a copy of those, and the layer without a stride.
Status Trainer::used_pixels(Conv* conv, Codes* x) {
  const Conv c = *conv;
  if (c.kh != 1 || c.kw != 1 || c.stride_h * c.stride_w == 1 || c.top + c.left + c.bottom + c.right != 0) return Status();
  const int64_t oh = c.oh(), ow = c.ow(), pixel = c.c * (x->wide ? 2 : 1);
  NETSUKE_TRY(reserve(&pixels_, c.n * oh * ow * pixel + kSlackBytes));
  const auto* from = static_cast<const uint8_t*>(x->data);
  pool_.parallel_for(c.n * oh, [&](int64_t row, int) {
    const uint8_t* source = from + (row / oh * c.h + row % oh * c.stride_h) * c.w * pixel;
    for (int64_t i = 0; i < ow; ++i) memcpy(pixels_.data() + (row * ow + i) * pixel, source + i * c.stride_w * pixel, static_cast<size_t>(pixel));
  });
  conv->h = oh, conv->w = ow, conv->stride_h = conv->stride_w = 1;
  x->data = pixels_.data();
  return Status();
}

Status Trainer::forward(const Conv& conv, const Codes& codes, const Codes& w, const float* mult, const float* bias, float* y) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Stopwatch watch(&whole_ns_);
  NETSUKE_TRY(check(conv, codes, w, conv.kh * conv.kw * (conv.c / conv.groups), 0));
  Conv c = conv;
  Codes x = codes;
  NETSUKE_TRY(used_pixels(&c, &x));
  if (is_depthwise(c)) return depthwise_forward(c, x, w, mult, bias, y);
  if (winograd_takes(c, x, nullptr, w)) return winograd_forward(c, x, w, mult, bias, y);
  const int64_t cg = c.c / c.groups, og = c.o / c.groups, oh = c.oh(), ow = c.ow();
  Plan p;
  p.lane = lane_for(x, w);
  p.flush = flush_for(p.lane, x, w);
  p.chain = x.wide;
  p.zero = x.zero;
  const int64_t size = element_bytes(p.lane);
  const Image image = {x.data, c.n, c.h, c.w, c.c, c.c, x.zero, x.wide};
  const Padded pad = {c.top, c.left, c.h + c.top + c.bottom, c.w + c.left + c.right, c.c, nullptr, p.lane};
  const bool direct = p.lane == Lane::kU8 && pad.hp == c.h && pad.wp == c.w && cg % 4 == 0;
  if (!direct) {
    NETSUKE_TRY(reserve(&a_, padded_bytes(image, pad)));
    pad_image(image, pad, a_.data(), pool_);
  }
  p.a_pixel = c.stride_w * c.c * size;
  p.a_row = c.stride_h * pad.wp * c.c * size;
  p.a_image = pad.hp * pad.wp * c.c * size;
  p.images = c.n, p.pixels_h = oh, p.pixels_w = ow;
  p.columns = og;
  p.out_pixel = c.o, p.out_row = ow * c.o, p.out_image = oh * ow * c.o;
  // Without dilation and groups a kernel row is one run.
  const bool rows = c.groups == 1 && c.dilation_w == 1;
  for (int64_t ky = 0; ky < c.kh; ++ky) {
    for (int64_t kx = 0; kx < (rows ? 1 : c.kw); ++kx) {
      p.run_k.push_back(static_cast<int32_t>(rows ? c.kw * cg : cg));
      p.run_groups.push_back(static_cast<int32_t>(groups_of(p.run_k.back(), p.lane)));
      p.run_offset.push_back((ky * c.dilation_h * pad.wp + kx * c.dilation_w) * c.c * size);
      p.base.push_back((ky * c.kw + kx) * cg);
    }
  }
  const int64_t each = c.kh * c.kw * cg;
  for (int64_t group = 0; group < c.groups; ++group) {
    const auto* data = static_cast<const uint8_t*>(w.data) + group * og * each * (w.wide ? 2 : 1);
    const Weights weights = {data, w.wide, static_cast<int64_t>(p.run_k.size()), p.base.data(), p.run_k.data(), p.run_groups.data(), nullptr,
                             nullptr, 1, og, each};
    NETSUKE_TRY(reserve(&b_, weight_bytes(weights)));
    NETSUKE_TRY(reserve(&sums_, panels_of(og) * kWidth * 4));
    pack_weights(weights, p.lane, b_.data(), reinterpret_cast<int32_t*>(sums_.data()), pool_);
    p.a = (direct ? static_cast<const uint8_t*>(x.data) : a_.data()) + group * cg * size;
    p.b = b_.data();
    p.sums = reinterpret_cast<const int32_t*>(sums_.data());
    p.out = y + group * og;
    multiply(p, mult + group * og, bias != nullptr ? bias + group * og : nullptr);
  }
  return Status();
}

namespace {

// Source row of tap k for the inputs y = phase + stride * j: j + offset, if the tap meets this phase at all.
bool meets(int64_t phase, int64_t pad, int64_t tap, int64_t dilation, int64_t stride, int64_t* offset) {
  const int64_t at = phase + pad - tap * dilation;
  if (at % stride != 0) return false;
  *offset = at / stride;
  return true;
}

// The border that every tap of every phase stays inside: rows before, and rows in all.
void border(int64_t size, int64_t out, int64_t pad, int64_t taps, int64_t dilation, int64_t stride, int64_t* before, int64_t* all) {
  int64_t low = 0, high = out;
  for (int64_t phase = 0; phase < stride && phase < size; ++phase) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      int64_t offset;
      if (!meets(phase, pad, tap, dilation, stride, &offset)) continue;
      low = std::min(low, offset);
      high = std::max(high, (size - phase - 1) / stride + offset + 1);
    }
  }
  *before = -low;
  *all = high - low;
}

// Channels of one group sorted by exponent, in segments of equal exponent padded to whole groups of products.
struct Segments {
  std::vector<int32_t> order;           // padded, -1 fillers
  std::vector<int32_t> start, count;    // per segment
  std::vector<uint8_t> shift;           // before the segment
  int total = 0;
};

Segments segments_of(const uint8_t* exponents, int64_t channels) {
  Segments s;
  int previous = 0;
  for (int e = 0; e < 32; ++e) {
    const auto begin = static_cast<int32_t>(s.order.size());
    for (int64_t c = 0; c < channels; ++c) {
      if ((exponents != nullptr ? exponents[c] : 0) == e) s.order.push_back(static_cast<int32_t>(c));
    }
    const auto count = static_cast<int32_t>(s.order.size()) - begin;
    if (count == 0) continue;
    s.start.push_back(begin);
    s.count.push_back(count);
    s.shift.push_back(static_cast<uint8_t>(s.start.size() == 1 ? 0 : e - previous));
    if (s.start.size() > 1) s.total += e - previous;
    previous = e;
    while (s.order.size() % 4 != 0) s.order.push_back(-1);
  }
  return s;
}

}  // namespace

Status Trainer::phase_gradient(const Conv& c, const Codes& w, const float* mult, Plan* plan, int64_t group, int64_t py, int64_t px,
                               const Padded& pad, float* dx) {
  Plan& p = *plan;
  const int64_t cg = c.c / c.groups, og = c.o / c.groups, size = element_bytes(p.lane);
  p.pixels_h = py < c.h ? (c.h - py - 1) / c.stride_h + 1 : 0;
  p.pixels_w = px < c.w ? (c.w - px - 1) / c.stride_w + 1 : 0;
  p.out = dx + (py * c.w + px) * c.c + group * cg;
  const std::vector<int32_t> starts = p.run_k, counts = p.run_groups;  // segments, set by the caller
  const std::vector<uint8_t> shifts = p.run_shift;
  const std::vector<const int32_t*> orders = p.channels;
  p.run_offset.clear(), p.run_k.clear(), p.run_groups.clear(), p.run_shift.clear(), p.base.clear(), p.channels.clear();
  for (size_t s = 0; s < starts.size(); ++s) {
    bool first = true;
    for (int64_t ky = 0; ky < c.kh; ++ky) {
      for (int64_t kx = 0; kx < c.kw; ++kx) {
        int64_t oy, ox;
        if (!meets(py, c.top, ky, c.dilation_h, c.stride_h, &oy) || !meets(px, c.left, kx, c.dilation_w, c.stride_w, &ox)) continue;
        p.run_offset.push_back((oy * pad.wp + ox) * pad.cp * size + starts[s] * size);
        p.run_k.push_back(counts[s]);
        p.run_groups.push_back(static_cast<int32_t>(groups_of(counts[s], p.lane)));
        p.run_shift.push_back(first ? shifts[s] : uint8_t{0});
        p.base.push_back((ky * c.kw + kx) * cg);
        p.channels.push_back(orders[s]);
        first = false;
      }
    }
  }
  Status status;
  if (p.run_k.empty() && p.add) {
  } else if (p.run_k.empty()) {  // no output saw these inputs (a stride larger than the window)
    pool_.parallel_for(c.n, [&](int64_t n, int) {
      for (int64_t y = 0; y < p.pixels_h; ++y) {
        for (int64_t x = 0; x < p.pixels_w; ++x) {
          float* to = p.out + n * p.out_image + y * p.out_row + x * p.out_pixel;
          std::fill(to, to + cg, 0.0f);
        }
      }
    });
  } else {
    const auto* data = static_cast<const uint8_t*>(w.data) + group * og * c.kh * c.kw * cg * (w.wide ? 2 : 1);
    const Weights weights = {data, w.wide, static_cast<int64_t>(p.run_k.size()), p.base.data(), p.run_k.data(), p.run_groups.data(),
                             p.run_shift.data(), p.channels.data(), c.kh * c.kw * cg, cg, 1};
    status = reserve(&b_, weight_bytes(weights));
    if (status.ok()) status = reserve(&sums_, panels_of(cg) * kWidth * 4);
    if (status.ok()) {
      pack_weights(weights, p.lane, b_.data(), reinterpret_cast<int32_t*>(sums_.data()), pool_);
      p.b = b_.data();
      p.sums = reinterpret_cast<const int32_t*>(sums_.data());
      multiply(p, mult, nullptr);
    }
  }
  p.run_k = starts, p.run_groups = counts, p.run_shift = shifts, p.channels = orders;
  return status;
}

Status Trainer::input_gradient(const Conv& c, const Codes& g, const uint8_t* exponents, const Codes& w, float mult, float* dx, bool add) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Stopwatch watch(&whole_ns_);
  int top = 0;
  for (int64_t o = 0; exponents != nullptr && o < c.o; ++o) {
    if (exponents[o] > 24) return error(Code::kInvalidArgument, "channel %lld has exponent %d; at most 24", static_cast<long long>(o), exponents[o]);
    top = std::max<int>(top, exponents[o]);
  }
  if (top > 0 && g.wide) return error(Code::kUnsupported, "channel exponents need operands of 8 bits or fewer");
  NETSUKE_TRY(check(c, g, w, c.kh * c.kw * (c.o / c.groups), top));
  if (add && (g.wide || is_depthwise(c))) return error(Code::kUnsupported, "this gradient is not added");
  if (is_depthwise(c)) return depthwise_input(c, g, exponents, w, mult, dx);
  if (winograd_takes(c, g, exponents, w)) return winograd_gradient(c, g, exponents, w, mult, dx, add);
  const int64_t cg = c.c / c.groups, og = c.o / c.groups, oh = c.oh(), ow = c.ow();
  Plan p;
  p.lane = lane_for(g, w);
  p.flush = flush_for(p.lane, g, w);
  p.chain = g.wide;
  p.zero = g.zero;
  p.images = c.n;
  p.columns = cg;
  p.add = add;
  const int64_t size = element_bytes(p.lane);
  Padded pad = {0, 0, 0, 0, 0, nullptr, p.lane};
  border(c.h, oh, c.top, c.kh, c.dilation_h, c.stride_h, &pad.top, &pad.hp);
  border(c.w, ow, c.left, c.kw, c.dilation_w, c.stride_w, &pad.left, &pad.wp);
  p.out_pixel = c.stride_w * c.c, p.out_row = c.stride_h * c.w * c.c, p.out_image = c.h * c.w * c.c;
  for (int64_t group = 0; group < c.groups; ++group) {
    const Segments segments = segments_of(exponents != nullptr ? exponents + group * og : nullptr, og);
    // The last segment ends at the highest exponent present; the scale is relative to `top`.
    const int behind = top - (exponents != nullptr ? *std::max_element(exponents + group * og, exponents + (group + 1) * og) : 0);
    const std::vector<float> scale(static_cast<size_t>(cg), mult * static_cast<float>(int64_t{1} << behind));
    const Image image = {static_cast<const uint8_t*>(g.data) + group * og * (g.wide ? 2 : 1), c.n, oh, ow, og, c.o, g.zero, g.wide};
    pad.cp = static_cast<int64_t>(segments.order.size());
    pad.channels = segments.start.size() > 1 ? segments.order.data() : nullptr;
    if (pad.channels == nullptr) pad.cp = og;
    NETSUKE_TRY(reserve(&a_, padded_bytes(image, pad)));
    pad_image(image, pad, a_.data(), pool_);
    p.a = a_.data() + (pad.top * pad.wp + pad.left) * pad.cp * size;
    p.a_pixel = pad.cp * size, p.a_row = pad.wp * p.a_pixel, p.a_image = pad.hp * p.a_row;
    p.run_k = segments.start, p.run_groups = segments.count, p.run_shift = segments.shift;
    p.channels.clear();
    for (int32_t start : segments.start) p.channels.push_back(segments.order.data() + start);
    for (int64_t py = 0; py < c.stride_h; ++py) {
      for (int64_t px = 0; px < c.stride_w; ++px) NETSUKE_TRY(phase_gradient(c, w, scale.data(), &p, group, py, px, pad, dx));
    }
  }
  return Status();
}

Status Trainer::quantize(const Quantize& q, int64_t count) {
  if (count < 0 || q.period < 1) return error(Code::kInvalidArgument, "a size is negative");
  const int64_t task = kNoiseBlock * 256;
  pool_.parallel_for((count + task - 1) / task, [&](int64_t i, int) { table_.quantize(q, i * task, std::min(count, (i + 1) * task)); });
  return Status();
}

Status Trainer::absmax(const float* x, int64_t rows, int64_t columns, int64_t groups, float* top) {
  if (rows < 0 || columns < 1 || groups < 1) return error(Code::kInvalidArgument, "a size is negative");
  if (groups > 1) {
    std::vector<uint32_t> most(static_cast<size_t>(groups * columns), 0);
    pool_.parallel_for(groups, [&](int64_t g, int) { table_.absmax(x + g * rows * columns, rows, columns, most.data() + g * columns); });
    memcpy(top, most.data(), most.size() * sizeof(float));
    return Status();
  }
  const int tasks = 4 * pool_.threads();
  std::vector<uint32_t> part(static_cast<size_t>(tasks * columns), 0);
  const int64_t block = (rows + tasks - 1) / tasks;
  pool_.parallel_for(tasks, [&](int64_t i, int) {
    const int64_t begin = std::min(rows, i * block), end = std::min(rows, begin + block);
    table_.absmax(x + begin * columns, end - begin, columns, part.data() + i * columns);
  });
  for (int64_t c = 0; c < columns; ++c) {
    uint32_t most = 0;
    for (int i = 0; i < tasks; ++i) most = std::max(most, part[static_cast<size_t>(i * columns + c)]);
    memcpy(top + c, &most, 4);
  }
  return Status();
}

}  // namespace train
}  // namespace netsuke
