#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable
#include "kernels/elementwise/unary.inc"
#include "kernels/elementwise/binary.inc"
