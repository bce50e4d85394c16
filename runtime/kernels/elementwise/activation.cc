// Names and attributes of the unary functions.
#include <cmath>

#include "kernels/elementwise/unary.h"

namespace netsuke {
namespace {

struct Row {
  const char* name;
  bool alpha, beta;
  float default_alpha, default_beta;
};
constexpr Row kRows[] = {
#define X(name, alpha, beta, default_alpha, default_beta) {#name, alpha, beta, default_alpha, default_beta},
    NETSUKE_UNARY_FNS(X)
#undef X
};

}  // namespace

bool Activation::clamp(float* lo, float* hi) const {
  const float inf = __builtin_inff();
  if (fn == UnaryFn::identity || fn == UnaryFn::relu || fn == UnaryFn::clip) {
    *lo = fn == UnaryFn::identity ? -inf : (fn == UnaryFn::relu ? 0.0f : alpha);
    *hi = fn == UnaryFn::clip ? beta : inf;
    return true;
  }
  return false;
}

Status read_activation(const Attrs& attrs, const char* key, Activation* out) {
  std::string name;
  const bool fused = std::string(key) == "act";
  if (fused) NETSUKE_TRY(attrs.get_or(key, "none", &name));
  else NETSUKE_TRY(attrs.get(key, &name));
  if (fused && name == "none") name = "identity";
  std::string names;
  for (int i = 0; i < static_cast<int>(UnaryFn::count); ++i) {
    names += (i ? " " : "") + std::string(kRows[i].name);
    if (name != kRows[i].name) continue;
    out->fn = static_cast<UnaryFn>(i);
    if (kRows[i].alpha) NETSUKE_TRY(attrs.get_or("alpha", kRows[i].default_alpha, &out->alpha));
    if (kRows[i].beta) NETSUKE_TRY(attrs.get_or("beta", kRows[i].default_beta, &out->beta));
    return Status();
  }
  return error(Code::kUnsupported, "%s is %s, expected one of %s%s", key, name.c_str(), names.c_str(), fused ? " none" : " not isnan");
}

Status read_output_quant(const Attrs& attrs, OutputQuant* out) {
  out->on = attrs.has("quant_scale") || attrs.has("quant_zero");
  if (!out->on) return Status();
  int64_t zero = 0;
  NETSUKE_TRY(attrs.get("quant_scale", &out->scale));
  NETSUKE_TRY(attrs.get("quant_zero", &zero));
  if (!(out->scale > 0) || !std::isfinite(out->scale)) return error(Code::kInvalidArgument, "quant_scale is %g, expected a positive number", static_cast<double>(out->scale));
  if (zero < 0 || zero > 255) return error(Code::kInvalidArgument, "quant_zero is %lld, expected 0 ... 255", static_cast<long long>(zero));
  out->zero = static_cast<int32_t>(zero);
  return Status();
}

}  // namespace netsuke
