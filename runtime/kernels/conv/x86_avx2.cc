#define NETSUKE_LANES 8
#define NETSUKE_TABLE avx2
#define NETSUKE_NAME "x86_avx2_dw8x8"
#include "kernels/conv/depthwise.inc"
