#define NETSUKE_TABLE portable
#define NETSUKE_GRAMMAR "portable"
#define NETSUKE_PORTABLE_LANES
#include "kernels/signpack/generic.inc"
