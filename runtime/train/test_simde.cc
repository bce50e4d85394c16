// The AVX-512 file of this folder, executed through SIMDe and compared with the plain loops.
#include "kernels/base/simde_target.h"

#define NETSUKE_TRAIN_TABLE train_kernels_simde
#include "train/x86_avx512vnni.cc"

#include "train/test_batch_norm.h"
#include "train/test_norm.h"
#include "train/test_quantize.h"
#include "train/test_tiles.h"
#include "train/test_winograd.h"

int main() {
  if (netsuke::isa_available(netsuke::Isa::kAvx2)) {
    netsuke::train::compare_tiles(netsuke::train::train_kernels_simde);
    netsuke::train::compare_batch_norm(netsuke::train::train_kernels_simde);
    netsuke::train::compare_norm(netsuke::train::train_kernels_simde);
    netsuke::train::compare_quantize(netsuke::train::train_kernels_simde);
    netsuke::train::compare_near_ties(netsuke::train::train_kernels_simde);
    netsuke::train::compare_winograd(netsuke::train::train_kernels_simde);
  }
  return netsuke::check_count() == 0 ? 0 : netsuke::check_result();
}
