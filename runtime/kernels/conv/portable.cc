#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable
#define NETSUKE_PIXELS 2
#define NETSUKE_NAME "portable_dw2x16"
#include "kernels/conv/depthwise.inc"
