#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable
#define NETSUKE_NAME "portable"
#include "kernels/resize/generic.inc"
