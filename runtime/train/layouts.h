// Byte-level preparation of operands: everything between quantized tensors as torch holds them (NHWC, no padding) and what the tiles
// read. One pass over bytes each; no float is touched twice.
#ifndef NETSUKE_TRAIN_LAYOUTS_H_
#define NETSUKE_TRAIN_LAYOUTS_H_

#include <cstdint>
#include <vector>

#include "base/threads.h"
#include "train/kernels.h"

namespace netsuke {
namespace train {

// A quantized activation or gradient: u8 codes (value = code - zero), or s16 values (zero ignored), [n][h][w][c].
struct Image {
  const void* data;
  int64_t n, h, w, c;
  int64_t stride;  // elements from one pixel to the next: c, or more when c is one group of the channels
  int32_t zero;
  bool wide;       // s16
};

// A copy with borders: [n][hp][wp][cp] in the lane's element. kU8 keeps codes and fills with the zero point; kS16 stores
// code - zero and fills with 0. channels: position -> channel, -1 for a filler; null: the channels in order, then fillers.
struct Padded {
  int64_t top, left, hp, wp, cp;
  const int32_t* channels;
  Lane lane;
};
inline int64_t element_bytes(Lane lane) { return lane == Lane::kU8 ? 1 : 2; }
inline int64_t padded_bytes(const Image& x, const Padded& p) { return x.n * p.hp * p.wp * p.cp * element_bytes(p.lane) + kSlackBytes; }
void pad_image(const Image& x, const Padded& p, void* dst, ThreadPool& pool);

// The batch innermost: [hp][wp][c][np] with np = n rounded up; the weight gradient's A.
inline int64_t batch_pad(int64_t n) { return (n + 3) / 4 * 4; }
inline int64_t planar_bytes(const Image& x, const Padded& p) {
  return p.hp * p.wp * x.c * batch_pad(x.n) * element_bytes(p.lane) + kSlackBytes;
}
void planar_image(const Image& x, const Padded& p, const Table& table, void* dst, ThreadPool& pool);

// The weight gradient's B: dY as [panel][h * w][group][16][...], columns are channels.
inline int64_t groups_of(int64_t k, Lane lane) { return lane == Lane::kU8 ? (k + 3) / 4 : (k + 1) / 2; }
inline int64_t panels_of(int64_t columns) { return (columns + kWidth - 1) / kWidth; }
inline int64_t gradient_bytes(const Image& g, Lane lane) {
  return panels_of(g.c) * g.h * g.w * groups_of(batch_pad(g.n), lane) * kGroupBytes + kSlackBytes;
}
void pack_gradient(const Image& g, Lane lane, const Table& table, uint8_t* dst, ThreadPool& pool);

// Weights as B: run q takes the k values data[base[q] + index * k_stride + column * column_stride], index = channels[q][i] or i.
struct Weights {
  const void* data;
  bool wide;                           // s16
  int64_t runs;
  const int64_t* base;
  const int32_t* k;                    // values of run q
  const int32_t* groups;               // and its groups
  const uint8_t* shift;                // null, or as Tile::run_shift
  const int32_t* const* channels;      // null: the identity
  int64_t k_stride, columns, column_stride;
};
int64_t weight_bytes(const Weights& w);
// sums[column]: its values' sum, each run's part shifted left by the shifts of all later runs (kU8 only).
void pack_weights(const Weights& w, Lane lane, uint8_t* dst, int32_t* sums, ThreadPool& pool);

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_LAYOUTS_H_
