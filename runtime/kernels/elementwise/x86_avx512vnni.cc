#define NETSUKE_LANES 16
#define NETSUKE_TABLE avx512vnni
#include "kernels/elementwise/unary.inc"
#include "kernels/elementwise/binary.inc"
