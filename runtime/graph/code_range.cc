#include "graph/code_range.h"

#include <algorithm>
#include <cstring>

namespace netsuke {
namespace {

template <size_t kCount>
bool one_of(const std::string& op, const char* const (&names)[kCount]) {
  return std::any_of(names, names + kCount, [&](const char* name) { return op == name; });
}

// Their u8 outputs are clamped to [lo, hi] as their last step, whatever comes in; hi is 255 where it is not given.
constexpr const char* kClamping[] = {"quantize", "qconv", "qlinear", "qconv_dyadic", "qlinear_dyadic",
                                     "qmatmul",  "qadd",  "qadd_dyadic", "qmul", "qavgpool", "qmean", "qmean_dyadic"};
// They give only codes of their first input. maxpool gives 0 for a window without positions, which is no larger.
constexpr const char* kCopying[] = {"reshape", "transpose", "split",   "slice",   "gather",         "expand",         "tile",
                                    "squeeze", "unsqueeze", "maxpool", "identity", "depth_to_space", "space_to_depth"};

}  // namespace

void CodeRanges::add(const NodeInfo& node, const Tensor* table) {
  int32_t hi = 255;
  if (one_of(node.op, kClamping)) {
    const Json* stated = node.attrs.find("hi");
    if (stated != nullptr && stated->is(Json::Kind::kInt)) hi = static_cast<int32_t>(std::min<int64_t>(std::max<int64_t>(stated->integer, 0), 255));
  } else if (one_of(node.op, kCopying)) {
    hi = input(node, 0);
  } else if (node.op == "concat") {
    hi = 0;
    for (size_t k = 0; k < node.in.size(); ++k) hi = std::max(hi, input(node, k));
  } else if (node.op == "lut" && table != nullptr && table->shape.elements() > 0) {
    const uint8_t* codes = table->as<const uint8_t>();
    hi = *std::max_element(codes, codes + table->shape.elements());
  }
  for (int value : node.out) {
    if (value >= 0) hi_[static_cast<size_t>(value)] = hi;
  }
}

}  // namespace netsuke
