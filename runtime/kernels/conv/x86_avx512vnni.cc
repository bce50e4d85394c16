#define NETSUKE_LANES 16
#define NETSUKE_TABLE avx512vnni
#define NETSUKE_NAME "x86_avx512_dw8x16"
#include "kernels/conv/depthwise.inc"
