#define NETSUKE_TABLE bmatmul_kernels_neon
#define NETSUKE_GRAMMAR "arm_neon"
#include "kernels/bmatmul/generic.inc"
