#include "base/arena.h"

#include <cstdlib>

#include <sys/mman.h>

namespace netsuke {
namespace {

// From here on memory comes straight from the kernel: it goes back as soon as it is released, and huge pages may back it,
// which spares the TLB (a 25 MB arena is 6,400 small pages or 13 huge ones).
constexpr size_t kMapFrom = size_t{4} << 20;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    data_ = other.data_;
    bytes_ = other.bytes_;
    mapped_ = other.mapped_;
    other.forget();
  }
  return *this;
}

Status Buffer::allocate(size_t bytes) {
  release();
  if (bytes > SIZE_MAX / 2) return error(Code::kOutOfMemory, "cannot allocate %zu bytes", bytes);
  if (bytes >= kMapFrom) {
    const size_t length = (bytes + kHugePage - 1) & ~(kHugePage - 1);
    void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return error(Code::kOutOfMemory, "cannot allocate %zu bytes", bytes);
#ifdef MADV_HUGEPAGE
    madvise(memory, length, MADV_HUGEPAGE);  // advice only: a refusal changes nothing
#endif
    data_ = static_cast<uint8_t*>(memory);
    mapped_ = length;
  } else {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlign, align_up(bytes == 0 ? 1 : bytes)) != 0) {
      return error(Code::kOutOfMemory, "cannot allocate %zu bytes", bytes);
    }
    data_ = static_cast<uint8_t*>(memory);
  }
  bytes_ = bytes;
  return Status();
}

void Buffer::release() {
  if (mapped_ != 0) {
    munmap(data_, mapped_);
  } else {
    std::free(data_);
  }
  forget();
}

}  // namespace netsuke
