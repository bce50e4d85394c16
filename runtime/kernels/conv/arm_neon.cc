#define NETSUKE_LANES 4
#define NETSUKE_TABLE neon
#define NETSUKE_NAME "arm_neon_dw8x4"
#include "kernels/conv/depthwise.inc"
