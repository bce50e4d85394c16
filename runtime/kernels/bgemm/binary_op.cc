#include "kernels/bgemm/binary_op.h"

#include <cmath>
#include <cstring>

#include "kernels/base/codes.h"

namespace netsuke {
namespace bgemm {
namespace {

constexpr int kW = 1, kMult = 2, kBias = 3, kSlope = 4, kShift = 5, kResidual = 6, kThreshold = 7, kFlip = 8;
constexpr int64_t kMostProducts = 1 << 24;

bool present(const std::vector<Tensor>& inputs, int i) { return i < static_cast<int>(inputs.size()) && inputs[static_cast<size_t>(i)].present; }

Status check_vector(const char* op, const char* what, const Tensor& t, DType dtype, int64_t channels) {
  if (t.data == nullptr) return error(Code::kUnsupported, "%s: %s must be a constant", op, what);
  if (t.dtype == dtype && t.shape.rank == 1 && t.shape.dim[0] == channels) return Status();
  return error(Code::kInvalidArgument, "%s: %s is %s of rank %d; it must be %s[%lld]", op, what, dtype_name(t.dtype), t.shape.rank,
               dtype_name(dtype), static_cast<long long>(channels));
}

}  // namespace

Status check_words(const char* op, const BuildArgs& args, int rank, int64_t groups, int64_t* channels) {
  if (!present(args.inputs, 0) || !present(args.inputs, kW)) return error(Code::kInvalidArgument, "%s needs the inputs x and w", op);
  const Tensor& w = args.inputs[kW];
  if (w.data == nullptr) return error(Code::kUnsupported, "%s: the weights (input 1) must be a constant", op);
  if (w.dtype != DType::kI64 || w.shape.rank != rank) {
    return error(Code::kInvalidArgument, "%s: the weights are %s of rank %d; they must be i64 of rank %d", op, dtype_name(w.dtype), w.shape.rank,
                 rank);
  }
  NETSUKE_TRY(args.attrs.get("channels", channels));
  int64_t products = 1;
  for (int i = 0; i < rank; ++i) {
    if (w.shape.dim[i] < 1) return error(Code::kInvalidArgument, "%s: dimension %d of the weights is %lld", op, i, static_cast<long long>(w.shape.dim[i]));
    if (i > 0 && i + 1 < rank && !checked_mul(products, w.shape.dim[i], &products)) products = kMostProducts + 1;
  }
  if (*channels < 1 || *channels > kMostProducts || groups < 1 || *channels % groups != 0 || w.shape.dim[0] % groups != 0) {
    return error(Code::kInvalidArgument, "%s: %lld channels in and %lld out do not fit %lld groups", op, static_cast<long long>(*channels),
                 static_cast<long long>(w.shape.dim[0]), static_cast<long long>(groups));
  }
  const int64_t each = *channels / groups, words = words_of(each), last = w.shape.dim[rank - 1];
  if (last != words || products > kMostProducts / each) {
    return error(Code::kInvalidArgument, "%s: the weights have %lld words for %lld channels of a group, or more than 2^24 products in a sum", op,
                 static_cast<long long>(last), static_cast<long long>(each));
  }
  if (each % 64 != 0) {
    const uint64_t* bits = w.as<const uint64_t>();
    for (int64_t i = words - 1; i < w.shape.elements(); i += words) {
      if (bits[i] >> (each % 64) != 0) return error(Code::kInvalidArgument, "%s: a bit of the weights behind the last channel is not 0", op);
    }
  }
  return Status();
}

Status BinaryOp::read_vectors(const BuildArgs& args, Finish* f) {
  const char* op = op_.c_str();
  const int64_t channels = args.inputs[kW].shape.dim[0];
  const size_t padded = static_cast<size_t>(channels) + 2 * kBlock;
  vectors_.assign(5 * padded, 0.0f);
  const float** const places[] = {&f->mult, &f->bias, &f->slope, &f->shift};
  const char* const names[] = {"mult", "bias", "slope", "shift"};
  for (int i = 0; i < 4; ++i) {
    if (!present(args.inputs, kMult + i)) continue;
    const Tensor& t = args.inputs[static_cast<size_t>(kMult + i)];
    NETSUKE_TRY(check_vector(op, names[i], t, DType::kF32, channels));
    float* to = vectors_.data() + static_cast<size_t>(i) * padded;
    std::memcpy(to, t.data, static_cast<size_t>(channels) * 4);
    for (int64_t c = 0; c < channels; ++c) {
      if (!std::isfinite(to[c])) return error(Code::kInvalidArgument, "%s: %s of channel %lld is not finite", op, names[i], static_cast<long long>(c));
    }
    *places[i] = to;
  }
  if (!present(args.inputs, kThreshold)) return Status();
  const Tensor& t = args.inputs[kThreshold];
  NETSUKE_TRY(check_vector(op, "threshold", t, f->out_f32 ? DType::kF32 : DType::kI32, channels));
  float* to = vectors_.data() + 4 * padded;
  std::memcpy(to, t.data, static_cast<size_t>(channels) * 4);
  f->threshold_f32 = to;
  f->threshold = reinterpret_cast<const int32_t*>(to);
  return Status();
}

Status BinaryOp::read_attributes(const BuildArgs& args, Finish* f) const {
  const char* op = op_.c_str();
  std::string out;
  NETSUKE_TRY(args.attrs.get("out", &out));
  if (out != "u8" && out != "f32" && out != "bits") return error(Code::kInvalidArgument, "%s: out is \"%s\", allowed are u8, f32, bits", op, out.c_str());
  f->out_bits = out == "bits";
  f->out_f32 = out == "f32";
  f->with_bits = args.n_outputs == 2;
  f->residual = present(args.inputs, kResidual) ? 1 : 0;
  if (args.n_outputs < 1 || args.n_outputs > (f->out_bits ? 1 : 2)) return error(Code::kInvalidArgument, "%s: %d outputs with out \"%s\"", op, args.n_outputs, out.c_str());
  const bool threshold = f->out_bits || f->with_bits;
  if (present(args.inputs, kThreshold) != threshold || present(args.inputs, kMult) == f->out_bits || (f->out_bits && f->residual != 0) ||
      (present(args.inputs, kFlip) && !threshold)) {
    return error(Code::kInvalidArgument, "%s: a threshold belongs to packed outputs, mult to the others", op);
  }
  for (int i = kBias; i <= kShift; ++i) {
    if (f->out_bits && present(args.inputs, i)) return error(Code::kInvalidArgument, "%s: packed signs are made from the sums alone", op);
  }
  std::string levels;
  NETSUKE_TRY(args.attrs.get_or("levels", "sign", &levels));
  if (levels != "sign" && levels != "bool") return error(Code::kInvalidArgument, "%s: levels is \"%s\", allowed are sign, bool", op, levels.c_str());
  f->zero_one = levels == "bool";
  Codes codes;
  NETSUKE_TRY(read_codes(args.attrs, true, &codes));
  f->zero = codes.zero;
  f->lo = codes.lo;
  f->hi = codes.hi;
  NETSUKE_TRY(read_zero_or(args.attrs, "r_zero", 0, &f->r_zero));
  NETSUKE_TRY(args.attrs.get_or("r_mult", 0.0f, &f->r_mult));
  if (!std::isfinite(f->r_mult)) return error(Code::kInvalidArgument, "%s: r_mult must be finite", op);
  return Status();
}

Status BinaryOp::build_layer(const BuildArgs& args, const Geometry& g, int pad_value, int rank) {
  const char* op = op_.c_str();
  if (args.inputs.size() > 9) return error(Code::kInvalidArgument, "%s has at most 9 inputs, the node names %zu", op, args.inputs.size());
  Finish f;
  n_outputs_ = args.n_outputs;
  NETSUKE_TRY(read_attributes(args, &f));
  NETSUKE_TRY(read_vectors(args, &f));
  if (f.zero_one && pad_value != 0) return error(Code::kInvalidArgument, "%s: levels \"bool\" are padded with 0, pad_value is %d", op, pad_value);
  const uint8_t* flip = nullptr;
  if (present(args.inputs, kFlip)) {
    NETSUKE_TRY(check_vector(op, "flip", args.inputs[kFlip], DType::kBool, g.out_channels));
    flip = args.inputs[kFlip].as<const uint8_t>();
  }
  NETSUKE_TRY(layer_.build(g, pad_value, args.inputs[kW].as<const uint64_t>(), flip, f, args.isa, rank == 4));
  name_ = op_ + "_a1w1_" + layer_.kernel_name();
  return Status();
}

Status BinaryOp::finish_infer(const Tensor* in, int n_in, Tensor* out, int n_out, int rank) const {
  const Finish& f = layer_.finish();
  const int64_t channels = layer_.geometry().out_channels;
  if (n_out != n_outputs_) return error(Code::kInternal, "%s: %d outputs, %d at load", op_.c_str(), n_out, n_outputs_);
  out[0].shape.rank = rank;
  out[0].shape.dim[rank - 1] = f.out_bits ? words_of(channels) : channels;
  out[0].dtype = f.out_bits ? DType::kI64 : f.out_f32 ? DType::kF32 : DType::kU8;
  if (n_out == 2) {
    out[1].shape = out[0].shape;
    out[1].shape.dim[rank - 1] = words_of(channels);
    out[1].dtype = DType::kI64;
  }
  const bool given = n_in > kResidual && in[kResidual].present;
  if (given != (f.residual != 0)) return error(Code::kInternal, "%s: the residual was %s at load", op_.c_str(), given ? "absent" : "present");
  if (given && (in[kResidual].dtype != out[0].dtype || !(in[kResidual].shape == out[0].shape))) {
    return error(Code::kInvalidArgument, "%s: the residual must have the type and shape of the output", op_.c_str());
  }
  return Status();
}

size_t BinaryOp::scratch_bytes(const Tensor* in, int, const Tensor* out, int, int threads) const {
  return layer_.scratch_bytes(extent(in[0], out[0]), threads);
}

Status BinaryOp::run(const RunArgs& args) const {
  const void* residual = layer_.finish().residual != 0 ? args.in[kResidual].data : nullptr;
  uint64_t* bits = args.n_out == 2 ? args.out[1].as<uint64_t>() : nullptr;
  layer_.run(extent(args.in[0], args.out[0]), args.in[0].as<const uint64_t>(), residual, args.out[0].data, bits, args.scratch, args.pool);
  return Status();
}

Cost BinaryOp::cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const {
  Cost cost = Op::cost(in, n_in, out, n_out);
  const Geometry& g = layer_.geometry();
  const Extent e = extent(in[0], out[0]);
  cost.macs = e.n * e.oh * e.ow * g.out_channels * g.kh * g.kw * g.in_per_group();
  return cost;
}

}  // namespace bgemm
}  // namespace netsuke
