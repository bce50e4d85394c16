#define NETSUKE_LANES 16
#define NETSUKE_TABLE avx512vnni
#define NETSUKE_PIXELS 6
#define NETSUKE_NAME "x86_avx512_dw6x64"
#include "kernels/conv/depthwise.inc"
