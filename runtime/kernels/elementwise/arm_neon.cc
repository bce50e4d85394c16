#define NETSUKE_LANES 4
#define NETSUKE_TABLE neon
#include "kernels/elementwise/unary.inc"
#include "kernels/elementwise/binary.inc"
