// wlinear with VDPBF16PS: two multiply-adds a lane and instruction. This table is only used for bf16, after bf16_follows() (fgemm/bf16.cc).
#include "kernels/base/avx512.h"

#define NETSUKE_LANES 16
#ifndef NETSUKE_TABLE
#define NETSUKE_TABLE avx512bf16
#endif
#define NETSUKE_BF16_INSTRUCTION
#include "kernels/wlinear/generic.inc"

namespace netsuke {
extern const WlinearKernels NK_TABLE(wlinear_kernels);
const WlinearKernels NK_TABLE(wlinear_kernels) = {"x86_avx512bf16", 128, nullptr, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
