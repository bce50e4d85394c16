#define NETSUKE_TABLE bmatmul_kernels_avx2
#define NETSUKE_GRAMMAR "x86_avx2"
#include "kernels/bmatmul/generic.inc"
