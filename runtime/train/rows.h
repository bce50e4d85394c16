// Rows of few channels taken together, and the order of f32 as integers: what the loops of both normalizations share.
#ifndef NETSUKE_TRAIN_ROWS_H_
#define NETSUKE_TRAIN_ROWS_H_
#include <cstdint>
#include <cstring>
#include <vector>

namespace netsuke {
namespace train {

// Loops over few channels are all overhead: rows of 16 are taken four at a time, as rows of 64 whose numbers repeat.
constexpr int64_t kWide = 64;

// Elements, 24 MB: what reads a result finds less of it in a cache than writing it there costs.
constexpr int64_t kPastCaches = int64_t{6} << 20;

inline int64_t together(int64_t columns) { return columns < kWide && kWide % columns == 0 ? kWide / columns : 1; }

// The numbers of a row's channels, as often as rows are taken together.
template <typename T>
std::vector<T> repeated(const T* from, int64_t columns) {
  std::vector<T> out;
  for (int64_t i = 0; from != nullptr && i < together(columns); ++i) out.insert(out.end(), from, from + columns);
  return out;
}

// The integer that in_order (norm.inc) makes of a number, and back.
inline int32_t to_order(float v) {
  int32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}
inline float from_order(int32_t v) {
  const int32_t bits = v ^ ((v >> 31) & 0x7FFFFFFF);
  float out;
  memcpy(&out, &bits, sizeof out);
  return out;
}

}  // namespace train
}  // namespace netsuke
#endif  // NETSUKE_TRAIN_ROWS_H_
