// Owned, 64-byte aligned memory and the checked arithmetic that sizes it.
#ifndef NETSUKE_BASE_ARENA_H_
#define NETSUKE_BASE_ARENA_H_

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace netsuke {

constexpr size_t kAlign = 64;  // one cache line and one AVX-512 register

inline size_t align_up(size_t bytes) { return (bytes + (kAlign - 1)) & ~(kAlign - 1); }

// a * b and a + b, false when the result leaves int64 or is negative.
inline bool checked_mul(int64_t a, int64_t b, int64_t* out) { return !__builtin_mul_overflow(a, b, out) && *out >= 0; }
inline bool checked_add(int64_t a, int64_t b, int64_t* out) { return !__builtin_add_overflow(a, b, out) && *out >= 0; }

class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_), mapped_(other.mapped_), shared_(other.shared_) {
    other.forget();
  }
  Buffer& operator=(Buffer&& other) noexcept;

  // Contents are undefined; a previous allocation is released. Zero bytes give a valid, non-null pointer.
  Status allocate(size_t bytes);
  // For what lives as long as an engine and is read in every run, packed weights: such buffers lie behind each other on huge pages.
  // Short-lived ones would leave holes there.
  Status allocate_shared(size_t bytes);
  // Gives back what lies behind the first `bytes`, if that is possible.
  void trim(size_t bytes);
  void release();
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool mapped() const { return mapped_ != 0; }  // whole pages of its own

 private:
  void forget() {
    data_ = nullptr;
    bytes_ = 0;
    mapped_ = 0;
    shared_ = false;
  }
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_ = 0;  // bytes of the mapping when the memory came from mmap, else 0
  bool shared_ = false;
};

}  // namespace netsuke

#endif  // NETSUKE_BASE_ARENA_H_
