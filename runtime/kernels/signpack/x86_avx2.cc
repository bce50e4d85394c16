#define NETSUKE_TABLE avx2
#define NETSUKE_GRAMMAR "x86_avx2"
#include "kernels/signpack/generic.inc"
