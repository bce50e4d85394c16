#include "kernels/base/codes.h"

#include <cmath>

namespace netsuke {
namespace {

Status check_code(const char* key, int64_t value) {
  if (value >= 0 && value <= 255) return Status();
  return error(Code::kInvalidArgument, "attribute %s is %lld, allowed 0 to 255", key, static_cast<long long>(value));
}

}  // namespace

Status read_zero(const Attrs& attrs, const char* key, int32_t* out) {
  int64_t value = 0;
  NETSUKE_TRY(attrs.get(key, &value));
  NETSUKE_TRY(check_code(key, value));
  *out = static_cast<int32_t>(value);
  return Status();
}

Status read_zero_or(const Attrs& attrs, const char* key, int32_t fallback, int32_t* out) {
  int64_t value = 0;
  NETSUKE_TRY(attrs.get_or(key, static_cast<int64_t>(fallback), &value));
  NETSUKE_TRY(check_code(key, value));
  *out = static_cast<int32_t>(value);
  return Status();
}

Status read_codes(const Attrs& attrs, bool zero_optional, Codes* out) {
  NETSUKE_TRY(zero_optional ? read_zero_or(attrs, "zero", 0, &out->zero) : read_zero(attrs, "zero", &out->zero));
  NETSUKE_TRY(read_zero_or(attrs, "lo", 0, &out->lo));
  NETSUKE_TRY(read_zero_or(attrs, "hi", 255, &out->hi));
  if (out->lo <= out->hi) return Status();
  return error(Code::kInvalidArgument, "attribute lo is %d and hi is %d, allowed lo <= hi", out->lo, out->hi);
}

Status read_finite(const Attrs& attrs, const char* key, bool positive, float* out) {
  NETSUKE_TRY(attrs.get(key, out));
  if (std::isfinite(*out) && (!positive || *out > 0.0f)) return Status();
  return error(Code::kInvalidArgument, "attribute %s is %g, allowed: a finite%s number", key, static_cast<double>(*out),
               positive ? " positive" : "");
}

Status read_dyadic(const Attrs& attrs, const char* m_key, const char* e_key, int64_t* m, int64_t* e) {
  NETSUKE_TRY(attrs.get(m_key, m));
  NETSUKE_TRY(attrs.get(e_key, e));
  if (*m != 0 && (*m < (int64_t{1} << 30) || *m >= (int64_t{1} << 31))) {
    return error(Code::kInvalidArgument, "attribute %s is %lld, allowed 0 or 2^30 to 2^31 - 1", m_key, static_cast<long long>(*m));
  }
  if (*e >= 1 && *e <= 62) return Status();
  return error(Code::kInvalidArgument, "attribute %s is %lld, allowed 1 to 62", e_key, static_cast<long long>(*e));
}

Status check_operands(const char* op, const Tensor* in, int n_in, std::initializer_list<DType> dtypes) {
  if (n_in != static_cast<int>(dtypes.size())) {
    return error(Code::kInvalidArgument, "%s has %d inputs, allowed %d", op, n_in, static_cast<int>(dtypes.size()));
  }
  int i = 0;
  for (DType dtype : dtypes) {
    if (!in[i].present) return error(Code::kInvalidArgument, "%s: input %d is absent, allowed %s", op, i, dtype_name(dtype));
    if (in[i].dtype != dtype) {
      return error(Code::kInvalidArgument, "%s: input %d is %s, allowed %s", op, i, dtype_name(in[i].dtype), dtype_name(dtype));
    }
    ++i;
  }
  return Status();
}

uint8_t requantize_one(float t, const Codes& codes) {
  const float lo = static_cast<float>(codes.lo - codes.zero), hi = static_cast<float>(codes.hi - codes.zero);
  float v = t > lo ? t : lo;
  v = v < hi ? v : hi;
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyintf(v)) + codes.zero);
}

}  // namespace netsuke
