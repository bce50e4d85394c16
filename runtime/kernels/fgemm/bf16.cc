#include "kernels/fgemm/bf16.h"

#include <cmath>
#include <cstring>

namespace netsuke {
namespace {

uint32_t flush(uint32_t b) { return (b & 0x7f80) == 0 ? b & 0x8000 : b; }

float float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof(v));
  return v;
}

uint32_t bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  return bits;
}

// fma with a result that is tiny after rounding to 24 bits flushed to zero.
float fma_flush(float x, float w, float acc) {
  const float y = std::fma(x, w, acc);
  if (!(std::fabs(y) <= 0x1p-126f)) return y;  // also NaN
  const float large = std::fma(x * 0x1p64f, w, acc * 0x1p64f);
  return std::fabs(large) < 0x1p-62f ? std::copysign(0.0f, y) : y;
}

// Numbers for bf16_follows: random ones, and ones that meet just above and below 2^-126, cancel, or tie.
struct Probe {
  uint64_t state = 0x9e3779b97f4a7c15ull;
  uint32_t next() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state >> 33);
  }
  uint32_t half(uint32_t exponent) { return (next() & 0x807f) | exponent << 7; }
  // A bfloat16 whose products with another of the same range fall around the given scale of acc.
  uint32_t pair(uint32_t base) { return half(base + next() % 12) << 16 | (next() % 8 == 0 ? 0 : half(base + next() % 12)); }
};

}  // namespace

uint32_t bf16_pairs(const uint16_t* x, int64_t rows, int64_t channels, uint32_t* out) {
  uint32_t least = 255;
  for (int64_t i = 0; i < rows * channels; ++i) {
    const uint32_t exponent = (x[i] >> 7) & 255;
    if (exponent != 0 && exponent < least) least = exponent;
  }
  for (int64_t r = 0; r < rows; ++r, x += channels) {
    int64_t i = 0;
    for (; i + 1 < channels; i += 2) *out++ = flush(x[i]) | flush(x[i + 1]) << 16;
    if (i < channels) *out++ = flush(x[i]);
  }
  return least;
}

size_t fgemm_pack_bf16_bytes(const FgemmKernels& kernels, int64_t k, bool trans_b) {
  return trans_b ? static_cast<size_t>(kernels.lanes * kernels.vectors * ((k + 1) / 2)) * sizeof(uint32_t) : 0;
}

uint32_t fgemm_pack_bf16(const FgemmKernels& kernels, const float* b, int64_t n, int64_t k, bool trans_b, float* packed, int64_t panel,
                         int64_t panel_end, void* scratch) {
  const int64_t nr = static_cast<int64_t>(kernels.lanes) * kernels.vectors, depth = (k + 1) / 2;
  uint32_t least = 255;
  packed += panel * nr * depth;
  for (; panel < panel_end; ++panel) {
    const int64_t col = panel * nr, width = fgemm_panel_vectors(kernels, n, panel) * kernels.lanes;
    const int64_t cols = n - col < width ? n - col : width;
    if (trans_b) {
      const uint32_t exponent = kernels.to_bf16(b + col * k, cols, k, static_cast<uint32_t*>(scratch));
      least = exponent < least ? exponent : least;
      kernels.pack_columns(static_cast<const float*>(scratch), cols, width, depth, depth, packed);
    } else {
      memset(packed, 0, static_cast<size_t>(depth * width) * sizeof(float));
      for (int64_t i = 0; i < depth; ++i) {
        const float* even = b + 2 * i * n + col;
        const float* odd = 2 * i + 1 < k ? even + n : nullptr;
        const uint32_t exponent = kernels.pair_rows(even, odd, cols, reinterpret_cast<uint32_t*>(packed + i * width));
        least = exponent < least ? exponent : least;
      }
    }
    packed += width * depth;
  }
  return least;
}

float bf16_multiply_add(uint32_t x, uint32_t w, float acc) {
  acc = fma_flush(float_of(x & 0xffff0000u), float_of(w & 0xffff0000u), acc);
  return fma_flush(float_of(x << 16), float_of(w << 16), acc);
}

bool bf16_follows(const FgemmKernels& kernels) {
  constexpr int kMost = 64;
  const int width = kernels.lanes * kernels.vectors;
  if (width > kMost) return false;
  Probe probe;
  for (int round = 0; round < 256; ++round) {
    // Exponent fields of x and w near 64 put products near 2^-126; near 127 they are ordinary numbers.
    const uint32_t base = round % 2 ? 122 : 56;
    uint32_t x, w[kMost];
    float c[kMost], expected[kMost];
    x = probe.pair(base);
    const float* row = reinterpret_cast<const float*>(&x);
    for (int j = 0; j < width; ++j) {
      w[j] = probe.pair(base);
      const float product = float_of(x & 0xffff0000u) * float_of(w[j] & 0xffff0000u);
      const uint32_t kind = probe.next() % 4;  // acc: zero, cancelling, a neighbour of cancelling, anything normal
      c[j] = kind == 0 ? 0.0f : (kind == 3 ? float_of((probe.next() & 0x807fffff) | (base * 2 - 127 + 2 + probe.next() % 24) << 23) : -product);
      if (kind == 2) c[j] = float_of(bits_of(c[j]) ^ (probe.next() & 7));
      if ((bits_of(c[j]) & 0x7f800000) == 0) c[j] = 0.0f;
      expected[j] = bf16_multiply_add(x, w[j], c[j]);
    }
    FgemmTile tile = {};
    tile.a = &row;
    tile.a_step = tile.taps = tile.channels = 1;
    tile.b = reinterpret_cast<const float*>(w);
    tile.c = c;
    tile.ldc = tile.cols = width;
    tile.rows = tile.panels = 1;
    tile.vectors = kernels.vectors;
    tile.flush = true;
    kernels.tile_bf16(tile);
    if (memcmp(c, expected, static_cast<size_t>(width) * sizeof(float)) != 0) return false;
  }
  return true;
}

#if defined(__x86_64__)
extern const FgemmKernels fgemm_kernels_avx512bf16;
#endif

const FgemmKernels& fgemm_bf16_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Vnni && cpu_features().avx512_bf16) {
    static const bool follows = bf16_follows(fgemm_kernels_avx512bf16);
    if (follows) return fgemm_kernels_avx512bf16;
  }
#endif
  return fgemm_kernels(isa);
}

}  // namespace netsuke
