// The caller's arrays as the kernels of training take them: types and sizes checked, no copies.
#ifndef NETSUKE_BINDINGS_TRAIN_ARRAYS_H_
#define NETSUKE_BINDINGS_TRAIN_ARRAYS_H_
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "train/products.h"

namespace nb = nanobind;
using namespace nb::literals;

using netsuke::Status;
using netsuke::train::Codes;
using netsuke::train::Conv;
using netsuke::train::Trainer;
using Array = nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig>;
using Out = nb::ndarray<nb::device::cpu, nb::c_contig>;

inline void invalid(const std::string& message) { netsuke_check(Status(netsuke::Code::kInvalidArgument, message)); }

template <typename T, typename A>
T* floats(const A& array, int64_t size, const char* name) {
  if (array.dtype() != nb::dtype<float>()) invalid(std::string(name) + " must be float32");
  if (static_cast<int64_t>(array.size()) != size) {
    invalid(std::string(name) + " has " + std::to_string(array.size()) + " values, expected " + std::to_string(size));
  }
  return static_cast<T*>(array.data());
}

// Codes with (zero, lo, hi): u8 or s8, or s16.
inline Codes codes(const Array& array, int64_t size, const std::vector<int32_t>& range, bool weights, const char* name) {
  const bool wide = array.dtype() == nb::dtype<int16_t>();
  const bool narrow = weights ? array.dtype() == nb::dtype<int8_t>() : array.dtype() == nb::dtype<uint8_t>();
  if (!wide && !narrow) invalid(std::string(name) + (weights ? " must be int8 or int16" : " must be uint8 or int16"));
  if (static_cast<int64_t>(array.size()) != size) {
    invalid(std::string(name) + " has " + std::to_string(array.size()) + " values, expected " + std::to_string(size));
  }
  if (range.size() != 3) invalid(std::string(name) + " needs (zero, lo, hi)");
  return {array.data(), range[0], range[1], range[2], wide};
}

// [n, h, w, c, o, kh, kw, stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, groups]
inline Conv conv_of(const std::vector<int64_t>& v) {
  if (v.size() != 16) invalid("a layer is 16 numbers");
  for (int64_t i : v) {
    if (i < 0 || i > (int64_t{1} << 31)) invalid("a size of the layer is out of range");
  }
  for (int i : {7, 8, 13, 14, 15}) {
    if (v[static_cast<size_t>(i)] < 1) invalid("strides, dilations and groups must be positive");
  }
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]};
}

inline int64_t inputs(const Conv& c) { return c.n * c.h * c.w * c.c; }
inline int64_t outputs(const Conv& c) { return c.n * c.oh() * c.ow() * c.o; }
inline int64_t weights(const Conv& c) { return c.o * c.kh * c.kw * (c.c / c.groups); }

template <typename Body>
void without_gil(const Body& body) {
  Status status;
  {
    const nb::gil_scoped_release release;
    status = body();
  }
  netsuke_check(status);
}

template <typename T, typename A>
T* typed(const A& array, int64_t size, const char* name) {
  if (array.dtype() != nb::dtype<std::remove_const_t<T>>()) invalid(std::string(name) + " has the wrong element type");
  if (static_cast<int64_t>(array.size()) != size) {
    invalid(std::string(name) + " has " + std::to_string(array.size()) + " values, expected " + std::to_string(size));
  }
  return static_cast<T*>(array.data());
}

// Methods of netsuke._runtime.Trainer for normalizations (train_norms.cc).
void bind_norms(nb::class_<Trainer>& trainer);

#endif  // NETSUKE_BINDINGS_TRAIN_ARRAYS_H_
