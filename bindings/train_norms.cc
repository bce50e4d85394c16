// Normalizations of netsuke._runtime.Trainer, alone and behind a convolution.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "train_arrays.h"

namespace {

// f32 [n, c, h, w] in the channels_last format, as rows of c.
template <typename T, typename A>
T* planes(const A& x, int64_t* rows, int64_t* columns, const char* name) {
  if (x.dtype() != nb::dtype<float>() || x.ndim() != 4) invalid(std::string(name) + " must be float32 [n, c, h, w]");
  int64_t stride = 1;
  for (const size_t axis : {1, 3, 2, 0}) {
    if (x.shape(axis) != 1 && x.stride(axis) != stride) invalid(std::string(name) + " must be in the channels_last format");
    stride *= static_cast<int64_t>(x.shape(axis));
  }
  if (stride == 0) invalid(std::string(name) + " is empty");
  const int64_t c = static_cast<int64_t>(x.shape(1)), r = stride / c;
  if (*columns != 0 && (r != *rows || c != *columns)) invalid(std::string(name) + " has another shape than x");
  *rows = r, *columns = c;
  return static_cast<T*>(x.data());
}
using Strided = nb::ndarray<nb::ro, nb::device::cpu>;
using StridedOut = nb::ndarray<nb::device::cpu>;

bool l1_norm(Trainer& t, const Strided& x, const Array& weight, const Array& bias, double eps, int32_t top, bool relu, const Out& codes,
             const StridedOut& y, const Out& numbers, const Out& statistics, const Out& ends) {
  int64_t rows = 0, columns = 0;
  const auto* from = planes<const float>(x, &rows, &columns, "x");
  auto* to = planes<float>(y, &rows, &columns, "y");
  const netsuke::train::L1NormLayer layer = {rows, columns, floats<const float>(weight, columns, "weight"), floats<const float>(bias, columns, "bias"), eps, top,
                                              relu};
  auto* range = floats<float>(ends, 2, "ends");
  auto* kept = typed<uint8_t>(codes, rows * columns, "codes");
  auto* made = typed<double>(numbers, netsuke::train::kNormNumbers * columns, "numbers");
  auto* found = floats<float>(statistics, 2 * columns, "statistics");
  bool finite = false;
  without_gil([&] { return t.l1_norm(layer, from, kept, to, made, found, range, &finite); });
  return finite;
}

bool l1_norm_gradient(Trainer& t, const Strided& dy, const Array& codes, const Array& numbers, int32_t top, int32_t groups,
                      const std::optional<std::pair<uint64_t, uint64_t>>& seed, const Out& q_codes, const StridedOut& dx, const Out& sums) {
  int64_t rows = 0, columns = 0;
  const auto* g = planes<const float>(dy, &rows, &columns, "dy");
  auto* to = planes<float>(dx, &rows, &columns, "dx");
  const netsuke::train::Seed noise = seed ? netsuke::train::Seed{seed->first, seed->second} : netsuke::train::Seed{};
  const netsuke::train::L1NormGradient gradient = {top, groups, seed ? &noise : nullptr};
  const auto* v = typed<const uint8_t>(codes, rows * columns, "codes");
  const auto* n = typed<const double>(numbers, netsuke::train::kNormNumbers * columns, "numbers");
  auto* q = typed<uint8_t>(q_codes, rows * columns, "q_codes");
  auto* out = floats<float>(sums, 3 * columns, "sums");
  bool finite = false;
  without_gil([&] { return t.l1_norm_gradient(rows, columns, g, v, n, gradient, q, to, out, &finite); });
  return finite;
}

using netsuke::train::BatchNormLayer;
using Optional = std::optional<Array>;

template <typename X, typename Numbers>
BatchNormLayer batch_norm_of(const X& x, const Optional& weight, const Optional& bias, double eps, bool relu, const Numbers& numbers) {
  const auto count = static_cast<int64_t>(x.size()), columns = static_cast<int64_t>(numbers.size()) / 2;
  if (columns < 1 || count < 1 || count % columns != 0) invalid("x is not a whole number of rows");
  return {count / columns, columns, weight ? floats<const float>(*weight, columns, "weight") : nullptr,
          bias ? floats<const float>(*bias, columns, "bias") : nullptr, eps, relu};
}

void follow(BatchNormLayer* layer, const std::optional<Out>& mean, const std::optional<Out>& variance, double share) {
  layer->running_mean = mean ? floats<float>(*mean, layer->columns, "running_mean") : nullptr;
  layer->running_var = variance ? floats<float>(*variance, layer->columns, "running_var") : nullptr;
  layer->share = share;
}

void batch_norm(Trainer& t, const Array& x, const Optional& residual, const Optional& weight, const Optional& bias, double eps, bool relu,
                const std::optional<Out>& running_mean, const std::optional<Out>& running_var, double share, const Out& y, const Out& affine,
                const Out& moments, const Out& ends) {
  auto layer = batch_norm_of(x, weight, bias, eps, relu, affine);
  follow(&layer, running_mean, running_var, share);
  const int64_t count = layer.rows * layer.columns;
  const auto* from = floats<const float>(x, count, "x");
  const float* add = residual ? floats<const float>(*residual, count, "residual") : nullptr;
  auto *to = floats<float>(y, count, "y"), *numbers = floats<float>(affine, 2 * layer.columns, "affine"), *range = floats<float>(ends, 2, "ends");
  auto* both = typed<double>(moments, 2 * layer.columns, "moments");
  without_gil([&] { return t.batch_norm(layer, from, add, to, numbers, both, range); });
}

void batch_norm_gradient(Trainer& t, const Array& x, const Array& dy, const std::optional<Array>& y, const std::optional<Array>& weight, double eps,
                         bool relu, const Out& affine, const Out& moments, const std::optional<Out>& dz, const std::optional<Out>& dx,
                         const Out& dweight, const Out& dbias) {
  const auto layer = batch_norm_of(x, weight, std::nullopt, eps, relu, affine);
  const int64_t count = layer.rows * layer.columns, columns = layer.columns;
  const auto *from = floats<const float>(x, count, "x"), *g = floats<const float>(dy, count, "dy");
  const float* out = y ? floats<const float>(*y, count, "y") : nullptr;
  const auto *numbers = floats<float>(affine, 2 * columns, "affine");
  const auto* both = typed<double>(moments, 2 * columns, "moments");
  auto *z = dz ? floats<float>(*dz, count, "dz") : nullptr, *to = dx ? floats<float>(*dx, count, "dx") : nullptr;
  auto *dw = floats<float>(dweight, columns, "dweight"), *db = floats<float>(dbias, columns, "dbias");
  without_gil([&] { return t.batch_norm_gradient(layer, from, g, out, numbers, both, z, to, dw, db); });
}

void norm_apply(Trainer& t, const Array& x, const Optional& residual, const Array& affine, bool relu, const Out& y, const Out& ends) {
  const auto layer = batch_norm_of(x, std::nullopt, std::nullopt, 0, relu, affine);
  const int64_t count = layer.rows * layer.columns;
  const auto *from = floats<const float>(x, count, "x"), *numbers = floats<const float>(affine, 2 * layer.columns, "affine");
  const float* add = residual ? floats<const float>(*residual, count, "residual") : nullptr;
  auto *to = floats<float>(y, count, "y"), *range = floats<float>(ends, 2, "ends");
  without_gil([&] { return t.norm_apply(layer, from, add, numbers, to, range); });
}

void norm_codes(Trainer& t, const Array& x, const Array& affine, bool relu, float scale, int32_t zero, int32_t top, const Out& codes) {
  const auto layer = batch_norm_of(x, std::nullopt, std::nullopt, 0, relu, affine);
  const int64_t count = layer.rows * layer.columns;
  const auto *from = floats<const float>(x, count, "x"), *numbers = floats<const float>(affine, 2 * layer.columns, "affine");
  if (zero < 0 || top > 255 || zero > top) invalid("codes do not fit out");
  const netsuke::train::Quantize q = {nullptr, &scale, 1, static_cast<float>(-zero), static_cast<float>(top - zero), zero, nullptr,
                                      typed<uint8_t>(codes, count, "codes"), false};
  without_gil([&] { return t.norm_codes(layer, from, numbers, q); });
}

void conv_norm(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, float x_scale, const Array& weight,
               int32_t w_top, const Optional& gamma, const Optional& beta, double eps, bool relu, const std::optional<Out>& running_mean,
               const std::optional<Out>& running_var, double share, const Out& w, const Out& w_scale, const Out& z, const Out& affine, const Out& moments,
               const Out& ends) {
  netsuke::train::ConvNorm c = {};
  c.conv = conv_of(layer);
  c.norm = batch_norm_of(z, gamma, beta, eps, relu, affine);
  follow(&c.norm, running_mean, running_var, share);
  c.x = codes(x, inputs(c.conv), x_range, false, "x"), c.x_scale = x_scale, c.w_top = w_top;
  const auto* values = floats<const float>(weight, weights(c.conv), "weight");
  auto* made = typed<int8_t>(w, weights(c.conv), "w");
  auto *steps = floats<float>(w_scale, c.conv.o, "w_scale"), *out = floats<float>(z, outputs(c.conv), "z");
  auto *numbers = floats<float>(affine, 2 * c.conv.o, "affine"), *range = floats<float>(ends, 2, "ends");
  auto* both = typed<double>(moments, 2 * c.conv.o, "moments");
  without_gil([&] { return t.conv_norm(c, values, made, steps, out, numbers, both, range); });
}

int conv_norm_gradient(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, float x_scale, const Array& w,
                       int32_t w_top, const Array& w_scale, const Array& z, const Array& affine, const Array& moments, const Optional& gamma, double eps,
                       bool relu, const Array& dy, const Optional& y, int32_t top, int32_t groups, const std::optional<std::pair<uint64_t, uint64_t>>& seed,
                       const std::optional<Out>& dz, const Out& sums, const std::optional<Out>& dx, bool add, const std::optional<Out>& dw) {
  netsuke::train::ConvNorm c = {};
  c.conv = conv_of(layer);
  c.norm = batch_norm_of(z, gamma, std::nullopt, eps, relu, affine);
  const int64_t count = outputs(c.conv), o = c.conv.o;
  c.x = codes(x, inputs(c.conv), x_range, false, "x"), c.x_scale = x_scale, c.w_top = w_top;
  c.w = typed<const int8_t>(w, weights(c.conv), "w"), c.w_scale = floats<const float>(w_scale, o, "w_scale");
  c.z = floats<const float>(z, count, "z"), c.affine = floats<const float>(affine, 2 * o, "affine"), c.moments = typed<const double>(moments, 2 * o, "moments");
  const auto* g = floats<const float>(dy, count, "dy");
  const float* out = y ? floats<const float>(*y, count, "y") : nullptr;
  const netsuke::train::Seed noise = seed ? netsuke::train::Seed{seed->first, seed->second} : netsuke::train::Seed{};
  const netsuke::train::L1NormGradient gradient = {top, groups, seed ? &noise : nullptr};
  float *gated = dz ? floats<float>(*dz, count, "dz") : nullptr, *ranges = floats<float>(sums, 3 * o, "sums");
  float *to = dx ? floats<float>(*dx, inputs(c.conv), "dx") : nullptr, *into = dw ? floats<float>(*dw, weights(c.conv), "dw") : nullptr;
  auto found = netsuke::train::Found::kNothing;
  without_gil([&] { return t.conv_norm_gradient(c, g, out, gradient, gated, ranges + o, ranges + 2 * o, ranges, to, add, into, &found); });
  return static_cast<int>(found);
}

// Operands of a convolution with an L1 normalization behind it.
netsuke::train::ConvNorm operands(const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, float x_scale, int32_t w_top) {
  netsuke::train::ConvNorm c = {};
  c.conv = conv_of(layer);
  c.norm.rows = outputs(c.conv) / c.conv.o, c.norm.columns = c.conv.o;
  c.x = codes(x, inputs(c.conv), x_range, false, "x"), c.x_scale = x_scale, c.w_top = w_top;
  return c;
}

bool conv_l1(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, float x_scale, const Array& weight,
             int32_t w_top, const Array& gamma, const Array& beta, double eps, int32_t top, bool relu, const Out& w, const Out& w_scale, const Out& z,
             const Out& z_codes, const Out& numbers, const Out& statistics, const Out& ends) {
  const auto c = operands(layer, x, x_range, x_scale, w_top);
  const int64_t o = c.conv.o, count = outputs(c.conv);
  const netsuke::train::L1NormLayer norm = {c.norm.rows, o, floats<const float>(gamma, o, "gamma"), floats<const float>(beta, o, "beta"), eps, top, relu};
  const auto* values = floats<const float>(weight, weights(c.conv), "weight");
  auto* made = typed<int8_t>(w, weights(c.conv), "w");
  auto *steps = floats<float>(w_scale, o, "w_scale"), *out = floats<float>(z, count, "z"), *found = floats<float>(statistics, 2 * o, "statistics");
  auto* kept = typed<uint8_t>(z_codes, count, "z_codes");
  auto* forms = typed<double>(numbers, netsuke::train::kNormNumbers * o, "numbers");
  auto* range = floats<float>(ends, 2, "ends");
  bool finite = false;
  without_gil([&] { return t.conv_l1(c, norm, values, made, steps, out, kept, forms, found, range, &finite); });
  return finite;
}

netsuke::train::L1NormLayer l1_of(const Array& codes, const Array& numbers, const Array& beta, bool relu) {
  const auto columns = static_cast<int64_t>(beta.size()), count = static_cast<int64_t>(codes.size());
  if (columns < 1 || count < 1 || count % columns != 0) invalid("codes are not a whole number of rows");
  typed<const double>(numbers, netsuke::train::kNormNumbers * columns, "numbers");
  return {count / columns, columns, nullptr, floats<const float>(beta, columns, "beta"), 0, 0, relu};
}

void l1_apply(Trainer& t, const Array& codes, const Array& numbers, const Array& beta, const Optional& residual, bool relu, const Out& y, const Out& ends) {
  const auto layer = l1_of(codes, numbers, beta, relu && !residual);
  const int64_t count = layer.rows * layer.columns;
  const auto* v = typed<const uint8_t>(codes, count, "codes");
  const auto* n = static_cast<const double*>(numbers.data());
  const float* add = residual ? floats<const float>(*residual, count, "residual") : nullptr;
  auto *to = floats<float>(y, count, "y"), *range = floats<float>(ends, 2, "ends");
  without_gil([&] { return add == nullptr ? t.l1_apply(layer, v, n, to) : t.l1_add(layer, v, n, add, relu, to, range); });
}

void l1_codes(Trainer& t, const Array& codes, const Array& numbers, const Array& beta, bool relu, float scale, int32_t zero, int32_t top, const Out& out) {
  const auto layer = l1_of(codes, numbers, beta, relu);
  const int64_t count = layer.rows * layer.columns;
  const auto* v = typed<const uint8_t>(codes, count, "codes");
  const auto* n = static_cast<const double*>(numbers.data());
  if (zero < 0 || top > 255 || zero > top) invalid("codes do not fit out");
  const netsuke::train::Quantize q = {nullptr, &scale, 1, static_cast<float>(-zero), static_cast<float>(top - zero), zero, nullptr,
                                      typed<uint8_t>(out, count, "out"), false};
  without_gil([&] { return t.l1_codes(layer, v, n, q); });
}

using Noise = std::optional<std::pair<uint64_t, uint64_t>>;

int conv_l1_gradient(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, float x_scale, const Array& w,
                     int32_t w_top, const Array& w_scale, const Array& z_codes, const Array& numbers, const Array& dy, const Optional& y, int32_t norm_top,
                     int32_t norm_groups, const Noise& norm_seed, int32_t top, int32_t groups, const Noise& seed, const std::optional<Out>& dz,
                     const Out& q_codes, const Out& sums, const std::optional<Out>& dx, bool add, const std::optional<Out>& dw) {
  auto c = operands(layer, x, x_range, x_scale, w_top);
  const int64_t count = outputs(c.conv), o = c.conv.o;
  c.w = typed<const int8_t>(w, weights(c.conv), "w"), c.w_scale = floats<const float>(w_scale, o, "w_scale");
  const auto* v = typed<const uint8_t>(z_codes, count, "z_codes");
  const auto* n = typed<const double>(numbers, netsuke::train::kNormNumbers * o, "numbers");
  const auto* g = floats<const float>(dy, count, "dy");
  const float* out = y ? floats<const float>(*y, count, "y") : nullptr;
  const auto noise_of = [](const Noise& from) { return from ? netsuke::train::Seed{from->first, from->second} : netsuke::train::Seed{}; };
  const netsuke::train::Seed norm_noise = noise_of(norm_seed), noise = noise_of(seed);
  const netsuke::train::L1NormGradient first = {norm_top, norm_groups, norm_seed ? &norm_noise : nullptr}, second = {top, groups, seed ? &noise : nullptr};
  float *gated = dz ? floats<float>(*dz, count, "dz") : nullptr, *found = floats<float>(sums, 4 * o, "sums");
  auto* q = typed<uint8_t>(q_codes, count, "q_codes");
  float *to = dx ? floats<float>(*dx, inputs(c.conv), "dx") : nullptr, *into = dw ? floats<float>(*dw, weights(c.conv), "dw") : nullptr;
  auto result = netsuke::train::Found::kNothing;
  without_gil([&] { return t.conv_l1_gradient(c, v, n, g, out, first, second, gated, q, found, found + 3 * o, to, add, into, &result); });
  return static_cast<int>(result);
}

// shape: [n, h, w, c, step, before, after].
netsuke::train::Subsample subsample_of(const std::vector<int64_t>& shape) {
  if (shape.size() != 7) invalid("a shortcut is 7 numbers");
  for (size_t i = 0; i < 7; ++i) {
    if (shape[i] < (i < 5 ? 1 : 0) || shape[i] > (int64_t{1} << 31)) invalid("a size of the shortcut is out of range");
  }
  return {shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6]};
}

void subsample(Trainer& t, const std::vector<int64_t>& shape, const Array& x, const Out& y) {
  const auto s = subsample_of(shape);
  const auto* from = floats<const float>(x, s.n * s.h * s.w * s.c, "x");
  auto* to = floats<float>(y, s.n * s.oh() * s.ow() * (s.before + s.c + s.after), "y");
  without_gil([&] { return t.subsample(s, from, to); });
}

void add_subsampled(Trainer& t, const std::vector<int64_t>& shape, const Array& dy, const Out& dx) {
  const auto s = subsample_of(shape);
  const auto* from = floats<const float>(dy, s.n * s.oh() * s.ow() * (s.before + s.c + s.after), "dy");
  auto* to = floats<float>(dx, s.n * s.h * s.w * s.c, "dx");
  without_gil([&] { return t.add_subsampled(s, from, to); });
}

}  // namespace

void bind_norms(nb::class_<Trainer>& trainer) {
  trainer
      .def("l1_norm", &l1_norm, "x"_a, "weight"_a, "bias"_a, "eps"_a, "top"_a, "relu"_a, "codes"_a, "y"_a, "numbers"_a,
           "statistics"_a, "ends"_a)
      .def("l1_norm_gradient", &l1_norm_gradient, "dy"_a, "codes"_a, "numbers"_a, "top"_a, "groups"_a, "seed"_a.none(), "q_codes"_a, "dx"_a, "sums"_a)
      .def("conv_l1", &conv_l1, "layer"_a, "x"_a, "x_range"_a, "x_scale"_a, "weight"_a, "w_top"_a, "gamma"_a, "beta"_a, "eps"_a, "top"_a, "relu"_a, "w"_a,
           "w_scale"_a, "z"_a, "z_codes"_a, "numbers"_a, "statistics"_a, "ends"_a)
      .def("l1_apply", &l1_apply, "codes"_a, "numbers"_a, "beta"_a, "residual"_a.none(), "relu"_a, "y"_a, "ends"_a)
      .def("l1_codes", &l1_codes, "codes"_a, "numbers"_a, "beta"_a, "relu"_a, "scale"_a, "zero"_a, "top"_a, "out"_a)
      .def("conv_l1_gradient", &conv_l1_gradient, "layer"_a, "x"_a, "x_range"_a, "x_scale"_a, "w"_a, "w_top"_a, "w_scale"_a, "z_codes"_a, "numbers"_a,
           "dy"_a, "y"_a.none(), "norm_top"_a, "norm_groups"_a, "norm_seed"_a.none(), "top"_a, "groups"_a, "seed"_a.none(), "dz"_a.none(), "q_codes"_a,
           "sums"_a, "dx"_a.none(), "add"_a, "dw"_a.none())
      .def("batch_norm", &batch_norm, "x"_a, "residual"_a.none(), "weight"_a.none(), "bias"_a.none(), "eps"_a, "relu"_a, "running_mean"_a.none(),
           "running_var"_a.none(), "share"_a, "y"_a, "affine"_a, "moments"_a, "ends"_a)
      .def("batch_norm_gradient", &batch_norm_gradient, "x"_a, "dy"_a, "y"_a.none(), "weight"_a.none(), "eps"_a, "relu"_a, "affine"_a, "moments"_a,
           "dz"_a.none(), "dx"_a.none(), "dweight"_a, "dbias"_a)
      .def("subsample", &subsample, "shape"_a, "x"_a, "y"_a)
      .def("add_subsampled", &add_subsampled, "shape"_a, "dy"_a, "dx"_a)
      .def("norm_apply", &norm_apply, "x"_a, "residual"_a.none(), "affine"_a, "relu"_a, "y"_a, "ends"_a)
      .def("norm_codes", &norm_codes, "x"_a, "affine"_a, "relu"_a, "scale"_a, "zero"_a, "top"_a, "codes"_a)
      .def("conv_norm", &conv_norm, "layer"_a, "x"_a, "x_range"_a, "x_scale"_a, "weight"_a, "w_top"_a, "gamma"_a.none(), "beta"_a.none(), "eps"_a, "relu"_a,
           "running_mean"_a.none(), "running_var"_a.none(), "share"_a, "w"_a, "w_scale"_a, "z"_a, "affine"_a, "moments"_a, "ends"_a)
      .def("conv_norm_gradient", &conv_norm_gradient, "layer"_a, "x"_a, "x_range"_a, "x_scale"_a, "w"_a, "w_top"_a, "w_scale"_a, "z"_a, "affine"_a,
           "moments"_a, "gamma"_a.none(), "eps"_a, "relu"_a, "dy"_a, "y"_a.none(), "top"_a, "groups"_a, "seed"_a.none(), "dz"_a.none(), "sums"_a,
           "dx"_a.none(), "add"_a, "dw"_a.none());
}
