#define NETSUKE_LANES 8
#define NETSUKE_TABLE avx2
#include "kernels/elementwise/unary.inc"
#include "kernels/elementwise/binary.inc"
