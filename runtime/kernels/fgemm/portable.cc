#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable
#define NETSUKE_ROWS 2
#define NETSUKE_VECTORS 2
#define NETSUKE_NAME "portable_2x8"
#include "kernels/fgemm/tile.inc"
