// lut: y = table[x], or table[c][x] with one table for each channel of the last axis; tables of u8 or f32.
#ifndef NETSUKE_KERNELS_LUT_LUT_H_
#define NETSUKE_KERNELS_LUT_LUT_H_

#include <cstdint>

#include "kernels/base/codes.h"
#include "kernels/base/isa.h"

namespace netsuke {

struct LutKernels {
  const char* name;
  // y[i] = table[x[i]]; y may be x.
  void (*map)(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);
};

extern const LutKernels lut_kernels_portable;
#if defined(__x86_64__)
extern const LutKernels lut_kernels_avx2, lut_kernels_avx512vnni, lut_kernels_avx512vbmi;
#elif defined(__aarch64__)
extern const LutKernels lut_kernels_neon;
#endif
const LutKernels& lut_kernels(Isa isa, const CpuFeatures& features);

// Plain loops. The channel forms and those of f32 are also what every instruction set runs: a gather of 8 floats is no faster
// than 8 loads on any CPU seen, and a table of its own for each channel leaves nothing to share.
void lut_reference(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);
void lut_f32(const uint8_t* x, float* y, int64_t n, const float* table);
void lut_channels(const uint8_t* x, uint8_t* y, int64_t rows, int64_t channels, const uint8_t* tables);
void lut_channels_f32(const uint8_t* x, float* y, int64_t rows, int64_t channels, const float* tables);

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_LUT_LUT_H_
