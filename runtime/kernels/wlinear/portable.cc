// wlinear in plain C++: 16 bytes, four channels, at a time.
#define NETSUKE_LANES 4
#define NETSUKE_TABLE portable
#include "kernels/wlinear/generic.inc"

namespace netsuke {
namespace {

constexpr int kBytes = 16, kManyRows = 2, kManyCols = 2, kOneCols = 2;

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef vi Total;
typedef vi Sums;
typedef vf Floats;

NK_INLINE Bytes load_codes(const uint8_t* p) {
  Bytes v;
  memcpy(&v, p, 16);
  return v;
}
NK_INLINE Bytes splat_quad(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return (Bytes)splat_int(four);
}

template <int kBits>
NK_INLINE Bytes unfold(const uint8_t* block, int q, int v) {
  const uint8_t* at = block + kBytes * v;
  if (kBits == 8) return load_codes(at + kQuadBytes * q);
  if (kBits == 4) return (load_codes(at + kQuadBytes * (q / 2)) >> (4 * (q % 2))) & 15;
  if (kBits == 2) return (load_codes(at + kQuadBytes * (q / 4)) >> (2 * (q % 4))) & 3;
  if (q < 6) return (load_codes(at + kQuadBytes * (q / 2)) >> (3 * (q % 2))) & 7;
  return load_codes(at + kQuadBytes * (q - 6)) >> 6 | ((load_codes(at + 2 * kQuadBytes) >> (q - 2)) & 4);
}

NK_INLINE Total no_total() { return vi{}; }
NK_INLINE Sums start(Total total) { return total; }
template <int kBits>
NK_INLINE void add_quad(Sums& sums, Bytes w, Bytes x) {
  for (int i = 0; i < 4; ++i) sums += (((vi)w >> (8 * i)) & 255) * ((vi)((vi)x << (24 - 8 * i)) >> 24);
}
template <int kBits>
NK_INLINE Total fold(Sums sums, Total) {
  return sums;
}

NK_INLINE Total splat_total(int32_t v) { return splat_int(v); }
NK_INLINE Total load_total(const int32_t* p) {
  vi v;
  memcpy(&v, p, sizeof(v));
  return v;
}
NK_INLINE Total times(Total v, int32_t factor) { return v * factor; }
NK_INLINE Floats no_floats() { return vf{}; }
NK_INLINE Floats scale_total(Floats acc, Total total, Total off, float x_scale, const float* scale) {
  const vf step = splat(x_scale) * load(scale);
  return acc + __builtin_convertvector(total - off, vf) * step;
}
NK_INLINE void store_floats(float* p, Floats v) { store(p, v); }

}  // namespace
}  // namespace netsuke

#include "kernels/wlinear/dot.inc"

namespace netsuke {
const WlinearKernels wlinear_kernels_portable = {"portable", 128, s8_panel, float_panel<false>, float_panel<kBf16Pairs>, kBf16Pairs, round_row, quantize_row};
}  // namespace netsuke
