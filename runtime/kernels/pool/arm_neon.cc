#define NETSUKE_TABLE neon
#define NETSUKE_GRAMMAR "arm_neon"
#include "kernels/pool/generic.inc"
