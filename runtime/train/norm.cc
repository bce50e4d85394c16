// Ranges and codes of whole tensors, and the fully quantized L1 normalization (docs/numerics.md section 13): integer sums of codes, two
// multiplications and additions of f32 an element, a few binary64 numbers a channel in between.
//
//   mu = mean(v), k = floor(mu), f = mu - k        v the u8 codes of a channel
//   sum |v - mu| = P + N + (count - 2 greater) f   P = sum max(v - k, 0), N = P - (sum v - count k), greater = number of v > k
//
// so the mean deviation needs integer sums only. The saved tensor is v; xh's codes rne((v - k) slope + offset) are made again where they
// are needed. offset = -f slope, and slope <= 2 top: a channel that is not constant has a code at least half a step from its mean, and the
// furthest one has xh = top at most. So a code's three roundings leave it within 1e-4 of top, and none needs a clamp.
#include <algorithm>
#include <cmath>

#include "train/norm.h"
#include "train/scale_groups.h"

namespace netsuke {
namespace train {
namespace {

// Scale and zero point of codes 0 to top of [lo, hi] and 0 (nn/qtensor.py, affine).
struct Affine {
  Affine(float lo, float hi, int32_t top) {
    const double low = std::min(0.0, static_cast<double>(lo)), high = std::max(0.0, static_cast<double>(hi));
    if (!(high - low > 0)) return;
    scale = static_cast<float>(std::max((high - low) / top, 0x1p-126));
    zero = static_cast<int32_t>(std::min<double>(top, std::max(0.0, std::nearbyint(-low / static_cast<double>(scale)))));
  }
  float scale = 1;
  int32_t zero = 0;
};

// What the passes over x's codes count in a channel.
struct Counts {
  std::vector<int64_t> total, above, greater, equal;
  std::vector<uint8_t> least, most;
};

double largest_of(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b); }

// Of a mean of codes.
double whole(double mean) { return static_cast<double>(static_cast<int64_t>(mean)); }

// A channel's numbers from its counts, in steps of x's codes: nn/l1_products.py has the same operations in the same order.
void forward_numbers(const L1NormLayer& layer, const Affine& x, const Counts& found, double* numbers, float* statistics) {
  const int64_t columns = layer.columns;
  const auto count = static_cast<double>(layer.rows), scale = static_cast<double>(x.scale), eps = layer.eps / scale;
  std::vector<double> mu(static_cast<size_t>(columns)), deviation(mu), inverse(mu);
  double largest = -INFINITY;
  for (size_t c = 0; c < mu.size(); ++c) {
    const double mean = static_cast<double>(found.total[c]) / count, floor = whole(mean);
    const int64_t under = found.above[c] - (found.total[c] - layer.rows * static_cast<int64_t>(floor));
    const double a = (static_cast<double>(found.above[c] + under) + static_cast<double>(layer.rows - 2 * found.greater[c]) * (mean - floor)) / count;
    mu[c] = mean, deviation[c] = a, inverse[c] = 1 / (a + eps);
    largest = largest_of(largest, std::max(found.most[c] - mean, mean - found.least[c]) * inverse[c]);
  }
  const float rounded = largest > 0 ? static_cast<float>(largest / (layer.top / 2)) : 1.0f;
  const double step = rounded > 0 ? static_cast<double>(rounded) : 1.0;
  for (int64_t c = 0; c < columns; ++c) {
    const auto i = static_cast<size_t>(c);
    const double floor = whole(mu[i]), slope = deviation[i] > 0 ? inverse[i] / step : 0.0;
    const bool exact = mu[i] == floor;
    const int64_t less = layer.rows - found.greater[i] - (exact ? found.equal[i] : 0);
    const auto number = [&](L1NormNumber kind) -> double& { return numbers[kind * columns + c]; };
    number(kSlope) = static_cast<double>(static_cast<float>(slope)), number(kOffset) = static_cast<double>(static_cast<float>((floor - mu[i]) * slope));
    number(kInverse) = inverse[i] / scale, number(kSign) = static_cast<double>(found.greater[i] - less) / count;
    number(kWeight) = static_cast<double>(layer.weight[c]), number(kStep) = step, number(kMeanIsCode) = exact ? 1.0 : 0.0;
    statistics[c] = static_cast<float>((mu[i] - x.zero) * scale), statistics[columns + c] = static_cast<float>(deviation[i] * scale);
  }
}

// y of a code, as the loops make it.
float norm_value(const NormColumns& n, int64_t c, int32_t code) {
  const float real = static_cast<float>(code - n.floor[c]) * n.slope[c] + n.offset[c];
  const float xh = std::fabs(real) < 0x1p22f ? (real + 0x1.8p23f) - 0x1.8p23f : std::nearbyint(real);
  return xh * n.gain[c] + n.shift[c];
}

// Codes that the ReLU lets through, and the ends of y. Every rounding is monotone, so y is in the code.
void gate_and_ends(const L1NormLayer& layer, const NormColumns& n, const Counts& found, double* numbers, float* ends) {
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int64_t c = 0; c < layer.columns; ++c) {
    const auto passes = [&](int32_t code) { return !(norm_value(n, c, code) <= 0); };
    int32_t from = 0, to = 255;
    if (layer.relu) {
      const bool first = passes(0), last = passes(255);
      const auto end = [&](int32_t inside, int32_t outside) {
        while (std::abs(inside - outside) > 1) {
          const int32_t middle = (inside + outside) / 2;
          (passes(middle) ? inside : outside) = middle;
        }
        return inside;
      };
      if (!first && !last) from = 1, to = 0;
      if (!first && last) from = end(255, 0);
      if (first && !last) to = end(0, 255);
    }
    numbers[kFrom * layer.columns + c] = from, numbers[kTo * layer.columns + c] = to;
    for (const uint8_t code : {found.least[static_cast<size_t>(c)], found.most[static_cast<size_t>(c)]}) {
      const float v = norm_value(n, c, code);
      const int32_t order = to_order(v < n.least ? n.least : v);
      low = std::min(low, order), high = std::max(high, order);
    }
  }
  ends[0] = from_order(low), ends[1] = from_order(high);
}

// Scales of dY's channels; false where a range is NaN or Inf.
bool shift_scales(const float* ranges, int64_t columns, const L1NormGradient& gradient, float* scale) {
  std::vector<uint8_t> exponents(static_cast<size_t>(columns));
  float largest = 0;
  if (!scale_groups(ranges, columns, gradient.groups, exponents.data(), &largest)) return false;
  const float step = largest_scale(largest, gradient.top);
  for (int64_t c = 0; c < columns; ++c) scale[c] = std::max(scaled_down(step, exponents[static_cast<size_t>(c)]), kSmallestScale);
  return true;
}

// What dx is made of, and the gradients of weight and bias.
L1Gradient gradient_numbers(int64_t rows, int64_t columns, const double* numbers, const float* scale, const Sums& sums, float* dweight, float* dbias) {
  L1Gradient made;
  const auto count = static_cast<double>(rows);
  const std::vector<int64_t> total = sums.total(0, columns), dot = sums.total(1, columns);
  for (int64_t c = 0; c < columns; ++c) {
    const auto number = [&](L1NormNumber kind) { return numbers[kind * columns + c]; };
    const auto i = static_cast<size_t>(c);
    const double real = static_cast<double>(scale[c]), weight = number(kWeight);
    const double to_bias = static_cast<double>(total[i]) * real, to_weight = static_cast<double>(dot[i]) * real * number(kStep);
    const double base = weight * to_bias / count, pull = weight * to_weight / count;
    const auto rest = [&](double sign) { return static_cast<float>((base + (sign - number(kSign)) * pull) * number(kInverse)); };
    made.floor.push_back(static_cast<uint8_t>(number(kFloor)));
    made.slope.push_back(static_cast<float>(weight * real * number(kInverse)));
    made.below.push_back(rest(-1.0)), made.at.push_back(number(kMeanIsCode) > 0 ? rest(0.0) : made.below.back()), made.above.push_back(rest(1.0));
    dweight[c] = static_cast<float>(to_weight), dbias[c] = static_cast<float>(to_bias);
  }
  made.floor = repeated(made.floor.data(), columns);
  for (std::vector<float>* v : {&made.slope, &made.below, &made.at, &made.above}) *v = repeated(v->data(), columns);
  return made;
}

}  // namespace

Status Trainer::minmax(const float* x, int64_t count, float* out) {
  if (count < 1) return error(Code::kInvalidArgument, "a tensor without elements has no range");
  const int64_t each = std::max<int64_t>(kElements, (count + 4 * pool_.threads() - 1) / (4 * pool_.threads())), tasks = (count + each - 1) / each;
  std::vector<int32_t> low(static_cast<size_t>(tasks), INT32_MAX), high(static_cast<size_t>(tasks), INT32_MIN);
  pool_.parallel_for(tasks, [&](int64_t i, int) {
    int32_t least = INT32_MAX, most = INT32_MIN;
    table_.norm.minmax(x + i * each, std::min(each, count - i * each), &least, &most);
    low[static_cast<size_t>(i)] = least, high[static_cast<size_t>(i)] = most;
  });
  out[0] = from_order(*std::min_element(low.begin(), low.end()));
  out[1] = from_order(*std::max_element(high.begin(), high.end()));
  return Status();
}

Status Trainer::weight_codes(const float* w, int64_t rows, int64_t columns, int32_t top, int8_t* codes, float* scale) {
  if (rows < 1 || columns < 1 || top < 1 || top > 127) return error(Code::kInvalidArgument, "weights without rows, or codes outside of s8");
  pool_.parallel_for(rows, [&](int64_t row, int) {
    const float* from = w + row * columns;
    auto* to = reinterpret_cast<uint8_t*>(codes + row * columns);
    int32_t least = INT32_MAX, most = INT32_MIN;
    table_.norm.minmax(from, columns, &least, &most);
    const float low = std::fabs(from_order(least)), high = std::fabs(from_order(most));
    const float largest = (std::isnan(low) || std::isnan(high) ? 0.0f : std::max(low, high)) / static_cast<float>(top);
    scale[row] = largest > 0 ? std::max(largest, 1.17549435e-38f) : 1.0f;
    table_.quantize({from, scale + row, 1, -static_cast<float>(top), static_cast<float>(top), 128, nullptr, to, false}, 0, columns);
    for (int64_t i = 0; i < columns; ++i) to[i] ^= 0x80;
  });
  return Status();
}

Status Trainer::l1_numbers(const L1NormLayer& layer, const float* x, uint8_t* codes, double* numbers, float* statistics, float* range, bool* finite) {
  const int64_t columns = layer.columns;
  if (layer.rows < 1 || columns < 1 || layer.top < 3 || layer.top > 255) return error(Code::kInvalidArgument, "a normalization needs rows, channels and codes of u8");
  float ends[2];
  NETSUKE_TRY(minmax(x, layer.rows * columns, ends));
  *finite = std::isfinite(ends[0]) && std::isfinite(ends[1]);
  if (!*finite) return Status();
  const Affine affine(ends[0], ends[1], layer.top);
  const Tasks tasks(layer.rows, columns);
  const int threads = pool_.threads();
  const Quantize q = {x, &affine.scale, 1, static_cast<float>(-affine.zero), static_cast<float>(layer.top - affine.zero), affine.zero, nullptr, codes, false};
  Sums sums(4, tasks.width, threads);
  const int64_t stride = tasks.width + 64;
  std::vector<uint8_t> low(static_cast<size_t>(threads * stride), 255), high(static_cast<size_t>(threads * stride), 0);
  pool_.parallel_for(tasks.count, [&](int64_t task, int thread) {
    const int64_t i = tasks.count - 1 - task;  // the end of x, which its range has read last, may still be near
    table_.quantize(q, i * tasks.each * columns, tasks.end(i));
    tasks.run(i, [&](int64_t at, int64_t rows, bool wide) {
      table_.norm.count(codes + at, rows, wide ? tasks.width : columns, sums.of(thread), low.data() + thread * stride, high.data() + thread * stride);
    });
  });
  Counts found = {sums.total(0, columns), {}, {}, {}, std::vector<uint8_t>(static_cast<size_t>(columns), 255), std::vector<uint8_t>(static_cast<size_t>(columns), 0)};
  for (int64_t from = 0; from < threads * stride; from += stride) {
    for (int64_t w = 0; w < tasks.width; ++w) {
      const auto c = static_cast<size_t>(w % columns), i = static_cast<size_t>(from + w);
      found.least[c] = std::min(found.least[c], low[i]), found.most[c] = std::max(found.most[c], high[i]);
    }
  }
  for (int64_t c = 0; c < columns; ++c) numbers[kFloor * columns + c] = static_cast<double>(found.total[static_cast<size_t>(c)] / layer.rows);
  const Repeated<uint8_t> floor(numbers + kFloor * columns, columns);
  pool_.parallel_for(tasks.count, [&](int64_t i, int thread) {
    tasks.run(i, [&](int64_t at, int64_t rows, bool wide) {
      table_.norm.above(codes + at, rows, wide ? tasks.width : columns, floor.many.data(), sums.of(thread, 1), sums.of(thread, 2), sums.of(thread, 3));
    });
  });
  found.above = sums.total(1, columns), found.greater = sums.total(2, columns), found.equal = sums.total(3, columns);
  forward_numbers(layer, affine, found, numbers, statistics);
  gate_and_ends(layer, ApplyColumns(layer, numbers).narrow(), found, numbers, range);
  return Status();
}

Status Trainer::l1_apply(const L1NormLayer& layer, const uint8_t* codes, const double* numbers, float* y) {
  const Tasks tasks(layer.rows, layer.columns);
  const ApplyColumns apply(layer, numbers);
  const NormColumns narrow = apply.narrow(), wide = apply.wide(layer.rows * layer.columns >= kStreamed);
  pool_.parallel_for(tasks.count, [&](int64_t i, int) {
    tasks.run(tasks.count - 1 - i, [&](int64_t at, int64_t rows, bool many) { table_.norm.apply(codes + at, rows, many ? wide : narrow, y + at); });
  });
  return Status();
}

Status Trainer::l1_norm(const L1NormLayer& layer, const float* x, uint8_t* codes, float* y, double* numbers, float* statistics, float* range, bool* finite) {
  NETSUKE_TRY(l1_numbers(layer, x, codes, numbers, statistics, range, finite));
  return *finite ? l1_apply(layer, codes, numbers, y) : Status();
}

Status Trainer::l1_sums(int64_t rows, int64_t columns, const float* dy, const uint8_t* codes, const double* numbers, const L1NormGradient& gradient,
                        uint8_t* q_codes, float* sums, L1Gradient* made, float* largest, bool* finite) {
  if (rows < 1 || columns < 1 || gradient.top < 1 || gradient.top > 127 || gradient.groups < 1) {
    return error(Code::kInvalidArgument, "a normalization needs rows and channels, its gradient codes of s8 and a group");
  }
  const Tasks tasks(rows, columns);
  const Repeated<uint8_t> from(numbers + kFrom * columns, columns), to(numbers + kTo * columns, columns);
  const NormGate narrow_gate = {from.one.data(), to.one.data()}, wide_gate = {from.many.data(), to.many.data()};
  const auto open = [](const double* n, int64_t count, double all) { return std::all_of(n, n + count, [all](double v) { return v == all; }); };
  const bool gated = !open(numbers + kFrom * columns, columns, 0) || !open(numbers + kTo * columns, columns, 255);
  if (gated) {
    const int64_t stride = tasks.width + 16;
    std::vector<uint32_t> most(static_cast<size_t>(pool_.threads() * stride), 0);
    pool_.parallel_for(tasks.count, [&](int64_t i, int thread) {
      tasks.run(i, [&](int64_t at, int64_t many, bool wide) {
        table_.norm.absmax(dy + at, codes + at, many, wide ? tasks.width : columns, wide ? wide_gate : narrow_gate, most.data() + thread * stride);
      });
    });
    std::vector<uint32_t> top(static_cast<size_t>(columns), 0);
    for (int64_t i = 0; i < pool_.threads() * stride; ++i) {
      if (i % stride >= tasks.width) continue;
      uint32_t& one = top[static_cast<size_t>(i % stride % columns)];
      one = std::max(one, most[static_cast<size_t>(i)]);
    }
    memcpy(sums, top.data(), top.size() * sizeof(float));
  } else {
    NETSUKE_TRY(absmax(dy, rows, columns, 1, sums));
  }
  std::vector<float> scale(static_cast<size_t>(columns));
  *finite = shift_scales(sums, columns, gradient, scale.data());
  if (!*finite) return Status();
  const FormColumns form(numbers, columns);
  const std::vector<float> scales = repeated(scale.data(), columns);
  const auto top = static_cast<float>(gradient.top);
  const Quantize q = {dy, scales.data(), tasks.width, -top, top, gradient.top, gradient.seed, q_codes, false};
  Sums found(2, tasks.width, pool_.threads());
  SideEnds ends(columns, largest == nullptr ? 0 : pool_.threads());
  pool_.parallel_for(tasks.count, [&](int64_t task, int thread) {
    const int64_t i = tasks.count - 1 - task;
    std::vector<int32_t> part(static_cast<size_t>(2 * tasks.width), 0);
    table_.quantize(q, i * tasks.each * columns, tasks.end(i));
    tasks.run(i, [&](int64_t at, int64_t many, bool wide) {
      if (gated) {
        table_.norm.gate(codes + at, many, wide ? tasks.width : columns, wide ? wide_gate : narrow_gate, static_cast<uint8_t>(gradient.top), q_codes + at);
      }
      const NormColumns& n = wide ? form.wide : form.narrow;
      table_.norm.dot(q_codes + at, codes + at, many, n, gradient.top, part.data(), part.data() + tasks.width);
      if (largest != nullptr) table_.norm.ends(q_codes + at, codes + at, many, n.columns, n.floor, ends.of(thread, wide));
    });
    int64_t* to = found.of(thread);
    for (size_t w = 0; w < part.size(); ++w) to[w] += part[w];
  });
  *made = gradient_numbers(rows, columns, numbers, scale.data(), found, sums + columns, sums + 2 * columns);
  if (largest != nullptr) made->largest(columns, gradient.top, ends.total(), largest);
  return Status();
}

Status Trainer::l1_norm_gradient(int64_t rows, int64_t columns, const float* dy, const uint8_t* codes, const double* numbers, const L1NormGradient& gradient,
                                 uint8_t* q_codes, float* dx, float* sums, bool* finite) {
  L1Gradient made;
  NETSUKE_TRY(l1_sums(rows, columns, dy, codes, numbers, gradient, q_codes, sums, &made, nullptr, finite));
  if (!*finite) return Status();
  const Tasks tasks(rows, columns);
  const NormGradient narrow = made.columns(columns, gradient.top, false), wide = made.columns(tasks.width, gradient.top, rows * columns >= kStreamed);
  pool_.parallel_for(tasks.count, [&](int64_t i, int) {
    tasks.run(i, [&](int64_t at, int64_t many, bool several) { table_.norm.gradient(q_codes + at, codes + at, many, several ? wide : narrow, dx + at); });
  });
  return Status();
}

}  // namespace train
}  // namespace netsuke
