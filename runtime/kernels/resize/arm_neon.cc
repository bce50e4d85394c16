#define NETSUKE_LANES 4
#define NETSUKE_TABLE neon
#define NETSUKE_NAME "arm_neon"
#include "kernels/resize/generic.inc"
