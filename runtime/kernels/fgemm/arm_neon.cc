#define NETSUKE_LANES 4
#define NETSUKE_TABLE neon
#define NETSUKE_ROWS 6
#define NETSUKE_VECTORS 4
#define NETSUKE_NAME "arm_neon_6x16"
#include "kernels/fgemm/tile.inc"
