// Plain loops over docs/numerics.md section 10, what every kernel is compared with.
#ifndef NETSUKE_KERNELS_BGEMM_REFERENCE_H_
#define NETSUKE_KERNELS_BGEMM_REFERENCE_H_

#include "kernels/bgemm/layer.h"

namespace netsuke {
namespace bgemm {

// As Layer::run; flip may be null.
void reference(const Geometry& g, int pad_value, const uint64_t* w, const uint8_t* flip, const Finish& f, const Extent& e, const uint64_t* x,
               const void* residual, void* out, uint64_t* bits);

}  // namespace bgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_BGEMM_REFERENCE_H_
