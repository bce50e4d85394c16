// VDPBF16PS: two multiply-adds a lane and instruction. This table is only used after bf16_follows() (bf16.cc).
#define NETSUKE_LANES 16
#define NETSUKE_TABLE avx512bf16
#define NETSUKE_ROWS 12
#define NETSUKE_VECTORS 2
#define NETSUKE_PREFETCH
#define NETSUKE_PANEL_FLOATS 32768
#define NETSUKE_NAME "x86_avx512bf16_12x32"
#define NETSUKE_BF16_INSTRUCTION
#include "kernels/fgemm/fgemm.h"
namespace netsuke {
extern const FgemmKernels fgemm_kernels_avx512bf16;
}
#include "kernels/fgemm/tile.inc"
