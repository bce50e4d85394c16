#include "kernels/qgemm/gemm_op.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace netsuke {
namespace qgemm {
namespace {

constexpr int kX = 0, kW = 1, kMult = 2, kBias = 3, kAccBias = 4, kResidual = 5;

bool present(const std::vector<Tensor>& inputs, int i) { return i < static_cast<int>(inputs.size()) && inputs[i].present; }

// A constant vector with one value per output channel.
Status check_vector(const char* op, const char* what, const std::vector<Tensor>& inputs, int i, DType dtype, int64_t channels) {
  if (!present(inputs, i)) return error(Code::kInvalidArgument, "%s: input %d (%s) is missing", op, i, what);
  const Tensor& t = inputs[i];
  if (t.data == nullptr) return error(Code::kUnsupported, "%s: input %d (%s) must be a constant", op, i, what);
  if (t.dtype != dtype || t.shape.rank != 1 || t.shape.dim[0] != channels) {
    return error(Code::kInvalidArgument, "%s: input %d (%s) is %s of rank %d, length %lld; it must be %s[%lld]", op, i, what,
                 dtype_name(t.dtype), t.shape.rank, static_cast<long long>(t.shape.rank == 1 ? t.shape.dim[0] : t.shape.elements()),
                 dtype_name(dtype), static_cast<long long>(channels));
  }
  return Status();
}

Status check_range(const char* op, const char* key, int64_t value, int64_t lo, int64_t hi) {
  if (value >= lo && value <= hi) return Status();
  return error(Code::kInvalidArgument, "%s: %s is %lld, allowed are %lld to %lld", op, key, static_cast<long long>(value),
               static_cast<long long>(lo), static_cast<long long>(hi));
}

bool valid_multiplier(int64_t m) { return m == 0 || (m >= (int64_t{1} << 30) && m < (int64_t{1} << 31)); }

Status get_code(const Attrs& attrs, const char* op, const char* key, int64_t fallback, int32_t* out) {
  int64_t value = 0;
  NETSUKE_TRY(attrs.get_or(key, fallback, &value));
  NETSUKE_TRY(check_range(op, key, value, 0, 255));
  *out = static_cast<int32_t>(value);
  return Status();
}

// docs/numerics.md section 3 with the widest code range: the sum of one sign plus |acc_bias| must stay below 2^31.
Status prove_bound(const char* op, const Geometry& g, const Weights& weights) {
  const int64_t taps = g.kh * g.kw * g.in_per_group();
  for (int64_t o = 0; o < g.out_channels; ++o) {
    const int8_t* w = weights.w + o * taps;
    int64_t sum = 0, magnitude = 0;  // plain reductions, so that the compiler vectorises them
    for (int64_t start = 0; start < taps; start += 1 << 20) {
      int32_t s = 0, a = 0;
      for (int64_t k = start; k < taps && k < start + (1 << 20); ++k) {
        s += w[k];
        a += w[k] < 0 ? -w[k] : w[k];
      }
      sum += s;
      magnitude += a;
    }
    const int64_t positive = (magnitude + sum) / 2, negative = (magnitude - sum) / 2;
    const int64_t up = 255 - g.x_zero, down = g.x_zero;
    const int64_t bias = weights.acc_bias == nullptr ? 0 : std::llabs(static_cast<long long>(weights.acc_bias[o]));
    const int64_t bound = std::max(positive * up + negative * down, negative * up + positive * down) + bias;
    if (bound > 0x7fffffff) {
      return error(Code::kUnsupported, "%s: channel %lld can reach a sum of %lld, more than int32 holds", op, static_cast<long long>(o),
                   static_cast<long long>(bound));
    }
  }
  return Status();
}

}  // namespace

Status check_weights(const char* op, const std::vector<Tensor>& inputs, int rank) {
  if (!present(inputs, kX) || !present(inputs, kW)) return error(Code::kInvalidArgument, "%s needs the inputs x and w", op);
  const Tensor& w = inputs[kW];
  if (w.data == nullptr) return error(Code::kUnsupported, "%s: the weights (input 1) must be a constant", op);
  if (w.dtype != DType::kS8 || w.shape.rank != rank) {
    return error(Code::kInvalidArgument, "%s: the weights are %s of rank %d; they must be s8 of rank %d", op, dtype_name(w.dtype),
                 w.shape.rank, rank);
  }
  for (int i = 0; i < rank; ++i) {
    const long long size = w.shape.dim[i];
    if (size < 1) return error(Code::kInvalidArgument, "%s: dimension %d of the weights is %lld", op, i, size);
  }
  return Status();
}

Status GemmOp::read_vectors(const BuildArgs& args, int64_t channels, Requant* q) {
  const char* op = op_.c_str();
  const size_t padded = static_cast<size_t>((channels + kChannelPad - 1) / kChannelPad + 1) * kChannelPad;
  vectors_.assign(2 * padded, 0.0f);
  float* first = vectors_.data();
  float* second = first + padded;
  const size_t count = static_cast<size_t>(channels);
  if (dyadic_) {
    NETSUKE_TRY(check_vector(op, "m", args.inputs, kMult, DType::kI32, channels));
    NETSUKE_TRY(check_vector(op, "e", args.inputs, kBias, DType::kI32, channels));
    int32_t* m = reinterpret_cast<int32_t*>(first);
    int32_t* e = reinterpret_cast<int32_t*>(second);
    std::memcpy(m, args.inputs[kMult].data, count * 4);
    for (size_t i = 0; i < padded; ++i) e[i] = 1;
    std::memcpy(e, args.inputs[kBias].data, count * 4);
    for (size_t i = 0; i < count; ++i) {
      if (!valid_multiplier(m[i]) || e[i] < 1 || e[i] > 62) {
        return error(Code::kInvalidArgument, "%s: channel %zu has m = %d, e = %d; allowed are m = 0 or 2^30 <= m < 2^31, 1 <= e <= 62", op, i,
                     m[i], e[i]);
      }
    }
    q->m = m;
    q->e = e;
    return Status();
  }
  NETSUKE_TRY(check_vector(op, "mult", args.inputs, kMult, DType::kF32, channels));
  std::memcpy(first, args.inputs[kMult].data, count * 4);
  for (size_t i = 0; i < padded; ++i) second[i] = -0.0f;
  if (present(args.inputs, kBias)) {
    NETSUKE_TRY(check_vector(op, "bias", args.inputs, kBias, DType::kF32, channels));
    std::memcpy(second, args.inputs[kBias].data, count * 4);
  }
  for (size_t i = 0; i < count; ++i) {
    if (!std::isfinite(first[i]) || !std::isfinite(second[i])) {
      return error(Code::kInvalidArgument, "%s: channel %zu has mult %g and bias %g; both must be finite", op, i, first[i], second[i]);
    }
  }
  q->mult = first;
  q->bias = second;
  return Status();
}

Status GemmOp::read_requant(const BuildArgs& args, Requant* q) const {
  const char* op = op_.c_str();
  const Attrs& attrs = args.attrs;
  q->dyadic = dyadic_;
  std::string out = "u8";
  if (!dyadic_) NETSUKE_TRY(attrs.get_or("out", "u8", &out));
  if (out != "u8" && out != "f32") return error(Code::kInvalidArgument, "%s: out is \"%s\", allowed are \"u8\" and \"f32\"", op, out.c_str());
  q->out_f32 = out == "f32";
  NETSUKE_TRY(get_code(attrs, op, "zero", 0, &q->zero));
  NETSUKE_TRY(get_code(attrs, op, "lo", 0, &q->lo));
  NETSUKE_TRY(get_code(attrs, op, "hi", 255, &q->hi));
  NETSUKE_TRY(get_code(attrs, op, "r_zero", 0, &q->r_zero));
  if (q->lo > q->hi) return error(Code::kInvalidArgument, "%s: lo is %d, above hi, %d", op, q->lo, q->hi);
  q->code_lo = static_cast<float>(q->lo - q->zero);
  q->code_hi = static_cast<float>(q->hi - q->zero);
  if (has_residual_) q->residual = q->out_f32 ? Residual::kF32 : Residual::kU8;
  if (dyadic_) {
    int64_t r_m = 0, r_e = 1;
    NETSUKE_TRY(attrs.get_or("r_m", int64_t{0}, &r_m));
    NETSUKE_TRY(attrs.get_or("r_e", int64_t{1}, &r_e));
    if (!valid_multiplier(r_m)) {
      return error(Code::kInvalidArgument, "%s: r_m is %lld, allowed are 0 and 2^30 to 2^31 - 1", op, static_cast<long long>(r_m));
    }
    NETSUKE_TRY(check_range(op, "r_e", r_e, 1, 62));
    q->r_m = static_cast<int32_t>(r_m);
    q->r_e = static_cast<int32_t>(r_e);
    return Status();
  }
  NETSUKE_TRY(attrs.get_or("r_mult", 0.0f, &q->r_mult));
  q->has_flo = attrs.has("flo");
  q->has_fhi = attrs.has("fhi");
  if (q->has_flo) NETSUKE_TRY(attrs.get("flo", &q->flo));
  if (q->has_fhi) NETSUKE_TRY(attrs.get("fhi", &q->fhi));
  if ((q->has_flo || q->has_fhi) && !q->out_f32) return error(Code::kInvalidArgument, "%s: flo and fhi belong to out = \"f32\"", op);
  if (!std::isfinite(q->r_mult) || !std::isfinite(q->flo) || !std::isfinite(q->fhi)) {
    return error(Code::kInvalidArgument, "%s: r_mult, flo and fhi must be finite", op);
  }
  return Status();
}

Status GemmOp::build_layer(const BuildArgs& args, Geometry g) {
  const char* op = op_.c_str();
  if (args.n_outputs != 1) return error(Code::kInvalidArgument, "%s has one output, the node names %d", op, args.n_outputs);
  if (args.inputs.size() > 6) return error(Code::kInvalidArgument, "%s has at most 6 inputs, the node names %zu", op, args.inputs.size());
  int64_t x_zero = 0, acc_bound = 0;
  NETSUKE_TRY(args.attrs.get("x_zero", &x_zero));
  NETSUKE_TRY(check_range(op, "x_zero", x_zero, 0, 255));
  NETSUKE_TRY(args.attrs.get("acc_bound", &acc_bound));
  NETSUKE_TRY(check_range(op, "acc_bound", acc_bound, 0, 0x7fffffff));
  g.x_zero = static_cast<int32_t>(x_zero);
  int64_t x_hi = 255;  // not of the file: the engine adds what the producer of x states
  NETSUKE_TRY(args.attrs.get_or("x_hi", int64_t{255}, &x_hi));
  NETSUKE_TRY(check_range(op, "x_hi", x_hi, 0, 255));
  g.x_hi = static_cast<int32_t>(std::max(x_hi, x_zero));
  has_residual_ = present(args.inputs, kResidual);
  Requant q;
  NETSUKE_TRY(read_requant(args, &q));
  NETSUKE_TRY(read_vectors(args, g.out_channels, &q));
  Weights weights;
  weights.w = args.inputs[kW].as<const int8_t>();
  if (present(args.inputs, kAccBias)) {
    NETSUKE_TRY(check_vector(op, "acc_bias", args.inputs, kAccBias, DType::kI32, g.out_channels));
    weights.acc_bias = args.inputs[kAccBias].as<const int32_t>();
  }
  NETSUKE_TRY(prove_bound(op, g, weights));
  NETSUKE_TRY(layer_.build(g, weights, q, args.isa, args.threads));
  name_ = op_ + "_a8w8_" + layer_.kernel_name();
  return Status();
}

Status GemmOp::check_inputs(const Tensor* in, int n_in, int n_out) const {
  if (n_in < 3 || n_out != 1) return error(Code::kInvalidArgument, "%s takes 3 to 6 inputs and gives 1 output", op_.c_str());
  if (in[kX].dtype != DType::kU8) return error(Code::kInvalidArgument, "%s: x is %s, it must be u8", op_.c_str(), dtype_name(in[kX].dtype));
  return Status();
}

Status GemmOp::check_residual(const Tensor* in, int n_in, const Tensor& out) const {
  const bool given = n_in > kResidual && in[kResidual].present;
  if (given != has_residual_) {
    return error(Code::kInternal, "%s: the residual was %s at load", op_.c_str(), has_residual_ ? "present" : "absent");
  }
  if (!given) return Status();
  const Tensor& r = in[kResidual];
  if (r.dtype != out.dtype) {
    return error(Code::kInvalidArgument, "%s: the residual is %s, the output %s; they must agree", op_.c_str(), dtype_name(r.dtype),
                 dtype_name(out.dtype));
  }
  if (!(r.shape == out.shape)) return error(Code::kInvalidArgument, "%s: the residual's shape differs from the output's", op_.c_str());
  return Status();
}

size_t GemmOp::scratch_bytes(const Tensor* in, int, const Tensor* out, int, int threads) const {
  return layer_.scratch_bytes(extent(in[kX], out[0]), threads);
}

Status GemmOp::run(const RunArgs& args) const {
  const void* residual = has_residual_ ? args.in[kResidual].data : nullptr;
  layer_.run(extent(args.in[kX], args.out[0]), args.in[kX].as<const uint8_t>(), residual, args.out[0].data, args.scratch, args.pool);
  return Status();
}

Cost GemmOp::cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const {
  Cost cost = Op::cost(in, n_in, out, n_out);
  const Geometry& g = layer_.geometry();
  cost.macs = out[0].shape.elements() * g.kh * g.kw * g.in_per_group();
  return cost;
}

}  // namespace qgemm
}  // namespace netsuke
