#define NETSUKE_LANES 4
#define NETSUKE_TABLE neon
#define NETSUKE_PIXELS 6
#define NETSUKE_NAME "arm_neon_dw6x16"
#include "kernels/conv/depthwise.inc"
