// netsuke._runtime.Trainer: the products of integer training on the caller's own memory (torch tensors through DLPack), without
// copies and without the GIL. src/netsuke/nn/integer_products.py is the face people use.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "bindings.h"
#include "train_arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using netsuke::train::Trainer;

void forward(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, const Array& w,
             const std::vector<int32_t>& w_range, const Array& mult, const std::optional<Array>& bias, const Out& y) {
  const Conv c = conv_of(layer);
  const Codes xc = codes(x, inputs(c), x_range, false, "x"), wc = codes(w, weights(c), w_range, true, "w");
  const auto* m = floats<const float>(mult, c.o, "mult");
  const float* b = bias ? floats<const float>(*bias, c.o, "bias") : nullptr;
  auto* out = floats<float>(y, outputs(c), "y");
  without_gil([&] { return t.forward(c, xc, wc, m, b, out); });
}

void input_gradient(Trainer& t, const std::vector<int64_t>& layer, const Array& g, const std::vector<int32_t>& g_range,
                    const std::optional<Array>& exponents, const Array& w, const std::vector<int32_t>& w_range, float mult, const Out& dx) {
  const Conv c = conv_of(layer);
  const Codes gc = codes(g, outputs(c), g_range, false, "g"), wc = codes(w, weights(c), w_range, true, "w");
  const uint8_t* e = nullptr;
  if (exponents) {
    if (exponents->dtype() != nb::dtype<uint8_t>() || static_cast<int64_t>(exponents->size()) != c.o) invalid("exponents must be uint8 [o]");
    e = static_cast<const uint8_t*>(exponents->data());
  }
  auto* out = floats<float>(dx, inputs(c), "dx");
  without_gil([&] { return t.input_gradient(c, gc, e, wc, mult, out); });
}

void weight_gradient(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const std::vector<int32_t>& x_range, const Array& g,
                     const std::vector<int32_t>& g_range, const Array& mult, const Out& dw) {
  const Conv c = conv_of(layer);
  const Codes xc = codes(x, inputs(c), x_range, false, "x"), gc = codes(g, outputs(c), g_range, false, "g");
  const auto* m = floats<const float>(mult, c.o, "mult");
  auto* out = floats<float>(dw, weights(c), "dw");
  without_gil([&] { return t.weight_gradient(c, xc, gc, m, out); });
}

void quantize(Trainer& t, const Array& x, const Array& scale, int32_t zero, float lo, float hi,
              const std::optional<std::vector<uint64_t>>& seed, const Out& out) {
  const auto count = static_cast<int64_t>(x.size());
  const auto* values = floats<const float>(x, count, "x");
  const auto* scales = floats<const float>(scale, static_cast<int64_t>(scale.size()), "scale");
  const bool wide = out.dtype() == nb::dtype<int16_t>();
  if (!wide && out.dtype() != nb::dtype<uint8_t>()) invalid("out must be uint8 or int16");
  if (static_cast<int64_t>(out.size()) != count || scale.size() == 0) invalid("out and x differ in size, or scale is empty");
  const float least = wide ? -32767.0f : 0.0f, most = wide ? 32767.0f : 255.0f;
  if (!(lo <= hi) || lo + static_cast<float>(zero) < least || hi + static_cast<float>(zero) > most) invalid("codes do not fit out");
  if (seed && seed->size() != 2) invalid("a seed is (key, stream)");
  const netsuke::train::Seed noise = seed ? netsuke::train::Seed{(*seed)[0], (*seed)[1]} : netsuke::train::Seed{};
  const netsuke::train::Quantize q = {values, scales, static_cast<int64_t>(scale.size()), lo, hi, zero, seed ? &noise : nullptr,
                                      out.data(), wide};
  without_gil([&] { return t.quantize(q, count); });
}

void absmax(Trainer& t, const Array& x, int64_t columns, const Out& top) {
  const auto count = static_cast<int64_t>(x.size());
  const auto most = static_cast<int64_t>(top.size());
  if (columns < 1 || most < columns || most % columns != 0 || count % most != 0) invalid("x is not a whole number of rows for each row of top");
  const int64_t groups = most / columns;
  const auto* values = floats<const float>(x, count, "x");
  auto* out = floats<float>(top, most, "top");
  without_gil([&] { return t.absmax(values, count / most, columns, groups, out); });
}

uint8_t* bools(const Out& y, int64_t count) {
  if (y.dtype() != nb::dtype<uint8_t>() || static_cast<int64_t>(y.size()) != count) invalid("a mask is uint8, one for each value");
  return static_cast<uint8_t*>(y.data());
}

void outside(Trainer& t, const Array& x, float low, float high, const Out& y) {
  const auto count = static_cast<int64_t>(x.size());
  const auto* values = floats<const float>(x, count, "x");
  auto* to = bools(y, count);
  without_gil([&] { return t.outside(values, count, low, high, to); });
}

void settle_gradient(Trainer& t, const Out& dx, const std::optional<Out>& outside, const Array& factor) {
  const auto count = static_cast<int64_t>(dx.size()), samples = static_cast<int64_t>(factor.size());
  if (samples < 1 || count % samples != 0) invalid("dx is not a whole number of values for each factor");
  const auto* factors = floats<const float>(factor, samples, "factor");
  const uint8_t* mask = outside ? bools(*outside, count) : nullptr;
  auto* to = floats<float>(dx, count, "dx");
  without_gil([&] { return t.settle_gradient(to, mask, factors, samples, count / samples); });
}

void minmax(Trainer& t, const Array& x, const Out& out) {
  const auto count = static_cast<int64_t>(x.size());
  const auto* values = floats<const float>(x, count, "x");
  auto* to = floats<float>(out, 2, "out");
  without_gil([&] { return t.minmax(values, count, to); });
}

void weight_codes(Trainer& t, const Array& w, int32_t top, const Out& codes, const Out& scale) {
  const auto count = static_cast<int64_t>(w.size()), rows = static_cast<int64_t>(scale.size());
  if (rows < 1 || count % rows != 0) invalid("weights are not a whole number of rows");
  const auto* values = floats<const float>(w, count, "w");
  auto* to = typed<int8_t>(codes, count, "codes");
  auto* steps = floats<float>(scale, rows, "scale");
  without_gil([&] { return t.weight_codes(values, rows, count / rows, top, to, steps); });
}

int64_t words_of(int64_t channels) { return (channels + 63) / 64; }

template <typename T, typename A>
T* words(const A& array, int64_t size, const char* name) {
  if (array.dtype() != nb::dtype<int64_t>()) invalid(std::string(name) + " must be int64");
  if (static_cast<int64_t>(array.size()) != size) {
    invalid(std::string(name) + " has " + std::to_string(array.size()) + " words, expected " + std::to_string(size));
  }
  return static_cast<T*>(array.data());
}

void bit_conv(Trainer& t, const std::vector<int64_t>& layer, const Array& x, const Array& w, const Array& mult, bool accumulate, const Out& y) {
  const Conv c = conv_of(layer);
  const auto* xs = words<const uint64_t>(x, c.n * c.h * c.w * words_of(c.c), "x");
  const auto* ws = words<const uint64_t>(w, c.o * c.kh * c.kw * words_of(c.c), "w");
  const auto* m = floats<const float>(mult, c.o, "mult");
  auto* out = floats<float>(y, outputs(c), "y");
  without_gil([&] { return t.bit_conv(c, xs, ws, m, accumulate, out); });
}

void pack_signs(Trainer& t, const Array& x, int64_t channels, const Out& y) {
  const auto count = static_cast<int64_t>(x.size());
  if (channels < 1 || count % channels != 0) invalid("x is not a whole number of rows");
  const auto* values = floats<const float>(x, count, "x");
  auto* out = words<uint64_t>(y, count / channels * words_of(channels), "y");
  without_gil([&] { return t.pack_signs(values, count / channels, channels, out); });
}

void pack_planes(Trainer& t, const Array& codes, int64_t channels, int64_t planes, const Out& y) {
  const auto count = static_cast<int64_t>(codes.size());
  if (channels < 1 || count % channels != 0) invalid("codes are not a whole number of rows");
  if (planes < 1 || planes > 8) invalid("planes must be 1 to 8");
  if (codes.dtype() != nb::dtype<uint8_t>()) invalid("codes must be uint8");
  auto* out = words<uint64_t>(y, planes * (count / channels) * words_of(channels), "y");
  without_gil([&] { return t.pack_planes(static_cast<const uint8_t*>(codes.data()), count / channels, channels, planes, out); });
}

void transpose_bits(Trainer& t, const Array& x, int64_t n, int64_t positions, int64_t channels, const Out& y) {
  for (int64_t size : {n, positions, channels}) {
    if (size < 1 || size > (int64_t{1} << 31)) invalid("a size is out of range");
  }
  const auto* from = words<const uint64_t>(x, n * positions * words_of(channels), "x");
  auto* to = words<uint64_t>(y, channels * positions * words_of(n), "y");
  without_gil([&] { return t.transpose_bits(from, n, positions, channels, to); });
}

// Memory of results, kept between steps: fresh pages cost as much as the passes that fill them (16 MB: 3.4 ms of faults, 0.7 ms of
// writing). Sizes repeat from step to step; what is idle never exceeds what was in use at once.
struct Shelf {
  std::mutex mutex;
  std::unordered_multimap<size_t, void*> idle;
  size_t idle_bytes = 0, used_bytes = 0, most_bytes = 0;

  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    used_bytes += bytes;
    most_bytes = std::max(most_bytes, used_bytes);
    const auto found = idle.find(bytes);
    if (found == idle.end()) return aligned_alloc(4096, bytes);
    void* data = found->second;
    idle.erase(found);
    idle_bytes -= bytes;
    return data;
  }
  void give(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    used_bytes -= bytes;
    while (!idle.empty() && idle_bytes + bytes > most_bytes) {
      const auto old = idle.begin();
      idle_bytes -= old->first;
      free(old->second);
      idle.erase(old);
    }
    idle.emplace(bytes, data);
    idle_bytes += bytes;
  }
};
Shelf& shelf() {
  static auto* all = new Shelf;  // tensors may outlive the module
  return *all;
}
struct Borrowed {
  void* data;
  size_t bytes;
};

// last: shape is [n, c, h, w] and its memory [n, h, w, c].
template <typename T, typename Framework = nb::pytorch>
nb::ndarray<Framework, T> tensor_of(const std::vector<size_t>& shape, bool last = false) {
  if (last && shape.size() != 4) invalid("channels come last in tensors of four axes only");
  size_t bytes = sizeof(T);
  for (size_t size : shape) {
    if (size == 0 || bytes > (size_t{1} << 40) / size) invalid("a tensor's size is zero or too large");
    bytes *= size;
  }
  bytes = (bytes + 4095) / 4096 * 4096;
  void* data = shelf().take(bytes);
  if (data == nullptr) netsuke_check(Status(netsuke::Code::kOutOfMemory, "no memory for a result"));
  const nb::capsule owner(new Borrowed{data, bytes}, [](void* p) noexcept {
    auto* b = static_cast<Borrowed*>(p);
    shelf().give(b->data, b->bytes);
    delete b;
  });
  if (!last) return nb::ndarray<Framework, T>(data, shape.size(), shape.data(), owner);
  const auto c = static_cast<int64_t>(shape[1]), row = c * static_cast<int64_t>(shape[3]);
  const int64_t strides[] = {row * static_cast<int64_t>(shape[2]), 1, row, c};
  return nb::ndarray<Framework, T>(data, 4, shape.data(), owner, strides);
}

// GOMP_parallel of an OpenMP library that this process has loaded already; every OpenMP runtime in use exports that name.
netsuke::ThreadPool::Team team_of(const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  void* found = handle != nullptr ? dlsym(handle, "GOMP_parallel") : nullptr;
  if (found == nullptr) invalid("'" + library + "' is not a loaded OpenMP runtime");
  return reinterpret_cast<netsuke::ThreadPool::Team>(found);  // the handle stays open: the library must not go while we hold the pointer
}

std::unique_ptr<Trainer> make(int threads, const std::string& isa, const std::string& openmp) {
  netsuke::Isa chosen = netsuke::best_isa();
  if (!isa.empty() && !netsuke::isa_from_name(isa, &chosen)) invalid("unknown instruction set '" + isa + "'");
  if (!netsuke::isa_available(chosen)) invalid("this CPU lacks '" + isa + "'");
  return std::make_unique<Trainer>(chosen, threads > 0 ? threads : netsuke::default_threads(), openmp.empty() ? nullptr : team_of(openmp));
}

}  // namespace

void bind_training(nb::module_& m) {
  nb::class_<Trainer> trainer(m, "Trainer");
  bind_norms(trainer);
  trainer.def_static("make", &make, "threads"_a, "isa"_a, "openmp"_a = "")
      .def("forward", &forward, "layer"_a, "x"_a, "x_range"_a, "w"_a, "w_range"_a, "mult"_a, "bias"_a.none(), "y"_a)
      .def("input_gradient", &input_gradient, "layer"_a, "g"_a, "g_range"_a, "exponents"_a.none(), "w"_a, "w_range"_a, "mult"_a, "dx"_a)
      .def("weight_gradient", &weight_gradient, "layer"_a, "x"_a, "x_range"_a, "g"_a, "g_range"_a, "mult"_a, "dw"_a)
      .def("quantize", &quantize, "x"_a, "scale"_a, "zero"_a, "lo"_a, "hi"_a, "seed"_a.none(), "out"_a)
      .def("absmax", &absmax, "x"_a, "columns"_a, "top"_a)
      .def("outside", &outside, "x"_a, "low"_a, "high"_a, "y"_a)
      .def("settle_gradient", &settle_gradient, "dx"_a, "outside"_a.none(), "factor"_a)
      .def("empty_f32", [](Trainer&, const std::vector<size_t>& shape, bool last) { return tensor_of<float>(shape, last); }, "shape"_a, "last"_a = false)
      .def("array_f32", [](Trainer&, const std::vector<size_t>& shape) { return tensor_of<float, nb::numpy>(shape); }, "shape"_a)
      .def("array_u8", [](Trainer&, const std::vector<size_t>& shape) { return tensor_of<uint8_t, nb::numpy>(shape); }, "shape"_a)
      .def("empty_u8", [](Trainer&, const std::vector<size_t>& shape) { return tensor_of<uint8_t>(shape); }, "shape"_a)
      .def("minmax", &minmax, "x"_a, "out"_a)
      .def("weight_codes", &weight_codes, "w"_a, "top"_a, "codes"_a, "scale"_a)
      .def("bit_conv", &bit_conv, "layer"_a, "x"_a, "w"_a, "mult"_a, "accumulate"_a, "y"_a)
      .def("pack_signs", &pack_signs, "x"_a, "channels"_a, "y"_a)
      .def("pack_planes", &pack_planes, "codes"_a, "channels"_a, "planes"_a, "y"_a)
      .def("transpose_bits", &transpose_bits, "x"_a, "n"_a, "positions"_a, "channels"_a, "y"_a)
      .def("times",
           [](Trainer& t) {
             int64_t prepare = 0, multiply = 0;
             t.times(&prepare, &multiply);
             return std::make_pair(prepare, multiply);
           })
      .def_prop_ro("kernel", &Trainer::kernel)
      .def_prop_ro("isa", [](const Trainer& t) { return netsuke::isa_name(t.isa()); })
      .def_prop_ro("threads", &Trainer::threads);
}
