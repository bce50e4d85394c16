#define NETSUKE_LANES 8
#define NETSUKE_TABLE avx2
#define NETSUKE_NAME "x86_avx2"
#include "kernels/resize/generic.inc"
