#define NETSUKE_TABLE bmatmul_kernels_portable
#define NETSUKE_GRAMMAR "portable"
#include "kernels/bmatmul/generic.inc"
