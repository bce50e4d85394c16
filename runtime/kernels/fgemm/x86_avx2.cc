#define NETSUKE_LANES 8
#define NETSUKE_TABLE avx2
#define NETSUKE_ROWS 6
#define NETSUKE_VECTORS 2
#define NETSUKE_PAIR_ROWS 4
#define NETSUKE_NAME "x86_avx2_6x16"
#include "kernels/fgemm/tile.inc"
