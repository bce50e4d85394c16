// Plain loops: the definition of every kernel of this folder, and what runs where there is no vector file.
#include <cmath>
#include <cstring>

#include "train/kernels.h"

namespace netsuke {
namespace train {
namespace {

// |a| <= 255, |b| <= 128: exact in int32 because the caller proves the bound of the whole sum (modulo 2^32 in between).
void tile_u8(const Tile& t) {
  for (int r = 0; r < t.rows; ++r) {
    int32_t* acc = static_cast<int32_t*>(t.acc) + r * t.acc_stride;
    uint32_t sum[kWidth] = {};
    if (!t.first) {
      for (int n = 0; n < kWidth; ++n) sum[n] = static_cast<uint32_t>(acc[n]);
    }
    const auto* b = reinterpret_cast<const int8_t*>(t.b);
    for (int64_t q = 0; q < t.runs; ++q) {
      if (t.run_shift != nullptr) {
        for (uint32_t& s : sum) s <<= t.run_shift[q];
      }
      const uint8_t* a = t.a[r] + t.run_offset[q];
      for (int64_t g = 0; g < t.run_groups[q]; ++g, a += 4, b += kGroupBytes) {
        for (int n = 0; n < kWidth; ++n) {
          for (int i = 0; i < 4; ++i) sum[n] += static_cast<uint32_t>(a[i] * b[n * 4 + i]);
        }
      }
    }
    for (int n = 0; n < kWidth; ++n) acc[n] = static_cast<int32_t>(sum[n]);
  }
  if (t.b_next != nullptr) {
    Tile next = t;
    next.b = t.b_next, next.b_next = nullptr;
    next.acc = static_cast<int32_t*>(t.acc) + kWidth;
    tile_u8(next);
  }
}

void tile_s16(const Tile& t) {
  for (int r = 0; r < t.rows; ++r) {
    int32_t* whole = static_cast<int32_t*>(t.acc) + r * t.acc_stride;
    float* real = static_cast<float*>(t.acc) + r * t.acc_stride;
    uint32_t sum[kWidth] = {};
    float total[kWidth] = {};
    for (int n = 0; n < kWidth && !t.first; ++n) {
      if (t.flush > 0) {
        total[n] = real[n];
      } else {
        sum[n] = static_cast<uint32_t>(whole[n]);
      }
    }
    const uint8_t* b = t.b;
    int64_t left = t.flush;
    for (int64_t q = 0; q < t.runs; ++q) {
      if (t.run_shift != nullptr) {
        for (uint32_t& s : sum) s <<= t.run_shift[q];
      }
      const uint8_t* a = t.a[r] + t.run_offset[q];
      for (int64_t g = 0; g < t.run_groups[q]; ++g, a += t.a_step, b += kGroupBytes) {
        int16_t x[2], w[2 * kWidth];
        memcpy(x, a, sizeof x);
        memcpy(w, b, sizeof w);
        for (int n = 0; n < kWidth; ++n) sum[n] += static_cast<uint32_t>(x[0] * w[2 * n]) + static_cast<uint32_t>(x[1] * w[2 * n + 1]);
        if (t.flush > 0 && --left == 0) {
          for (int n = 0; n < kWidth; ++n) total[n] += static_cast<float>(static_cast<int32_t>(sum[n]));
          memset(sum, 0, sizeof sum);
          left = t.flush;
        }
      }
    }
    for (int n = 0; n < kWidth; ++n) {
      if (t.flush > 0) {
        real[n] = total[n] + static_cast<float>(static_cast<int32_t>(sum[n]));
      } else {
        whole[n] = static_cast<int32_t>(sum[n]);
      }
    }
  }
}

void finish(const Finish& f) {
  for (int r = 0; r < f.rows; ++r) {
    for (int n = 0; n < f.columns; ++n) {
      const auto acc = static_cast<int32_t>(static_cast<uint32_t>(f.acc[r * f.acc_stride + n]) + static_cast<uint32_t>(f.corr[n]));
      float y = static_cast<float>(acc) * f.mult[n];
      if (f.bias != nullptr) y = y + f.bias[n];
      f.out[r][n] = f.add ? f.out[r][n] + y : y;
    }
  }
}

void streamed() {}

void quantize(const Quantize& q, int64_t begin, int64_t end) {
  float noise[kNoiseBlock];
  for (int64_t i = begin; i < end; ++i) {
    if (q.seed != nullptr && i % kNoiseBlock == 0) noise_block(*q.seed, (q.start + i) / kNoiseBlock, noise);
    float v = q.x[i] / q.scale[q.period == 1 ? 0 : (q.start + i) % q.period];
    if (q.seed != nullptr) {
      v = std::floor(v + noise[i % kNoiseBlock]);
      v = v > q.lo ? v : q.lo;
      v = v < q.hi ? v : q.hi;
    } else {
      v = v > q.lo ? v : q.lo;
      v = std::nearbyint(v < q.hi ? v : q.hi);
    }
    const int32_t code = static_cast<int32_t>(v) + q.zero;
    if (q.wide) {
      static_cast<int16_t*>(q.out)[i] = static_cast<int16_t>(code);
    } else {
      static_cast<uint8_t*>(q.out)[i] = static_cast<uint8_t>(code);
    }
  }
}

void absmax(const float* x, int64_t rows, int64_t columns, uint32_t* top) {
  for (int64_t r = 0; r < rows; ++r, x += columns) {
    for (int64_t c = 0; c < columns; ++c) {
      uint32_t bits;
      memcpy(&bits, x + c, 4);
      bits &= 0x7FFFFFFFu;
      top[c] = top[c] > bits ? top[c] : bits;
    }
  }
}

void transpose16(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) dst[j * dst_stride + i] = src[i * src_stride + j];
  }
}

void interleave4(const uint8_t* const src[4], uint8_t zero, uint8_t* dst) {
  for (int n = 0; n < kWidth; ++n) {
    for (int i = 0; i < 4; ++i) dst[n * 4 + i] = static_cast<uint8_t>(src[i][n] - zero);
  }
}

// xh in steps of its scale: at most `top` and a little for rounding, which the nearest integer takes away (norm.cc).
inline float norm_code(uint8_t code, uint8_t floor, float slope, float offset) {
  return __builtin_nearbyintf(static_cast<float>(code - floor) * slope + offset);
}

void norm_apply(const uint8_t* __restrict codes, int64_t rows, const NormColumns& n, float* __restrict y) {
  for (int64_t r = 0; r < rows; ++r, codes += n.columns, y += n.columns) {
    for (int64_t c = 0; c < n.columns; ++c) {
      const float v = norm_code(codes[c], n.floor[c], n.slope[c], n.offset[c]) * n.gain[c] + n.shift[c];
      y[c] = v < n.least ? n.least : v;
    }
  }
}

void norm_dot(const uint8_t* __restrict gradient, const uint8_t* __restrict codes, int64_t rows, const NormColumns& n, int32_t zero,
              int32_t* __restrict total, int32_t* __restrict dot) {
  for (int64_t r = 0; r < rows; ++r, codes += n.columns, gradient += n.columns) {
    for (int64_t c = 0; c < n.columns; ++c) {
      const int32_t unit = gradient[c] - zero;
      total[c] += unit;
      dot[c] += unit * static_cast<int32_t>(norm_code(codes[c], n.floor[c], n.slope[c], n.offset[c]));
    }
  }
}

void norm_gradient(const uint8_t* __restrict gradient, const uint8_t* __restrict codes, int64_t rows, const NormGradient& n,
                   float* __restrict dx) {
  for (int64_t r = 0; r < rows; ++r, codes += n.columns, gradient += n.columns, dx += n.columns) {
    for (int64_t c = 0; c < n.columns; ++c) {
      const float rest = codes[c] > n.floor[c] ? n.above[c] : codes[c] < n.floor[c] ? n.below[c] : n.at[c];
      dx[c] = static_cast<float>(gradient[c] - n.zero) * n.slope[c] - rest;
    }
  }
}

#define NT_WINOGRAD_INLINE inline
#define NT_WINOGRAD_UNROLL
#include "train/winograd.inc"
#include "train/norm.inc"
#include "train/batch_norm.inc"

}  // namespace

const Table train_kernels_portable = {"portable", 6, 2, 6, false, true, tile_u8, tile_s16, finish, streamed, quantize, absmax, transpose16, interleave4,
                                      kNorm, kBatchNorm, kWinograd, kWinogradTwo};

}  // namespace train
}  // namespace netsuke
