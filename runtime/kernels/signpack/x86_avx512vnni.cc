#ifndef NETSUKE_TABLE  // test_simde.cc names its own
#define NETSUKE_TABLE avx512vnni
#endif
#define NETSUKE_GRAMMAR "x86_avx512vnni"
#include "kernels/signpack/generic.inc"
