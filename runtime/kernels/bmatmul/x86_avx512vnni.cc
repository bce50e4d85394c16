#define NETSUKE_TABLE bmatmul_kernels_avx512vnni
#define NETSUKE_GRAMMAR "x86_avx512vnni"
#include "kernels/bmatmul/generic.inc"
