// Depthwise runs with VCVTNEPS2BF16 at the end: only used where fgemm_bf16_kernels() takes the instructions.
#define NETSUKE_LANES 16
#define NETSUKE_TABLE avx512bf16
#define NETSUKE_NAME "x86_avx512bf16_dw8x16"
#define NETSUKE_BF16_INSTRUCTION
#include "kernels/conv/depthwise.h"
namespace netsuke {
extern const DepthwiseKernels depthwise_kernels_avx512bf16;
}
#include "kernels/conv/depthwise.inc"
