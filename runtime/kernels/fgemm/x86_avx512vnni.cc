#define NETSUKE_LANES 16
#define NETSUKE_TABLE avx512vnni
#define NETSUKE_ROWS 12
#define NETSUKE_VECTORS 2
#define NETSUKE_PREFETCH
#define NETSUKE_PANEL_FLOATS 32768
#define NETSUKE_NAME "x86_avx512_12x32"
#include "kernels/fgemm/tile.inc"
