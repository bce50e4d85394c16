#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable
#define NETSUKE_NAME "portable_dw8x4"
#include "kernels/conv/depthwise.inc"
