#define NETSUKE_TABLE neon
#define NETSUKE_GRAMMAR "arm_neon"
#include "kernels/signpack/generic.inc"
