#include "base/arena.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <vector>

#include <sys/mman.h>

namespace netsuke {
namespace {

// From here on memory comes straight from the kernel: it goes back as soon as it is released, and huge pages may back it,
// which spares the TLB (a 25 MB arena is 6,400 small pages or 13 huge ones).
constexpr size_t kMapFrom = size_t{1} << 20;
constexpr size_t kHugePage = size_t{2} << 20;

// Memory for shared buffers: address space that is filled from its start and goes back when no buffer is left in it. The end that was never
// touched takes no memory.
struct Slab {
  uint8_t* base;
  size_t top;   // used
  size_t live;  // buffers
};
constexpr size_t kSlab = size_t{32} << 20;
constexpr size_t kSharedMost = kSlab / 4;

std::mutex slab_mutex;
// Never destroyed: buffers may outlive static objects.
std::vector<Slab>& slabs() {
  static auto* all = new std::vector<Slab>;
  return *all;
}

uint8_t* map_slab() {
  void* memory = mmap(nullptr, kSlab + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  uint8_t* start = static_cast<uint8_t*>(memory);
  uint8_t* base = start + (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
  if (base != start) munmap(start, static_cast<size_t>(base - start));
  if (base + kSlab != start + kSlab + kHugePage) munmap(base + kSlab, static_cast<size_t>(start + kHugePage - base));
#ifdef MADV_HUGEPAGE
  madvise(base, kSlab, MADV_HUGEPAGE);
#endif
  return base;
}

// Null: no memory.
uint8_t* take_shared(size_t bytes) {
  const std::lock_guard<std::mutex> lock(slab_mutex);
  std::vector<Slab>& all = slabs();
  if (all.empty() || all.back().top + bytes > kSlab) {
    uint8_t* base = map_slab();
    if (base == nullptr) return nullptr;
    all.push_back(Slab{base, 0, 0});
  }
  Slab& slab = all.back();
  uint8_t* data = slab.base + slab.top;
  slab.top += bytes;
  ++slab.live;
  return data;
}

std::vector<Slab>::iterator slab_of(const uint8_t* data) {
  return std::find_if(slabs().begin(), slabs().end(), [data](const Slab& s) { return data >= s.base && data < s.base + kSlab; });
}

void give_shared(const uint8_t* data, size_t bytes) {
  const std::lock_guard<std::mutex> lock(slab_mutex);
  const auto slab = slab_of(data);
  if (data + bytes == slab->base + slab->top) slab->top -= bytes;
  if (--slab->live != 0) return;
  munmap(slab->base, kSlab);
  slabs().erase(slab);
}

void trim_shared(const uint8_t* data, size_t bytes, size_t kept) {
  const std::lock_guard<std::mutex> lock(slab_mutex);
  const auto slab = slab_of(data);
  if (data + bytes == slab->base + slab->top) slab->top -= bytes - kept;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kShares = false;  // reads behind a buffer shall be seen
#else
constexpr bool kShares = true;
#endif

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    data_ = other.data_;
    bytes_ = other.bytes_;
    mapped_ = other.mapped_;
    shared_ = other.shared_;
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

Status Buffer::allocate_shared(size_t bytes) {
  if (!kShares || bytes == 0 || bytes > kSharedMost) return allocate(bytes);
  release();
  data_ = take_shared(align_up(bytes));
  if (data_ == nullptr) return error(Code::kOutOfMemory, "cannot allocate %zu bytes", bytes);
  bytes_ = bytes;
  shared_ = true;
  return Status();
}

void Buffer::trim(size_t bytes) {
  if (bytes == 0 || bytes >= bytes_) return;
  if (shared_) trim_shared(data_, align_up(bytes_), align_up(bytes));
  bytes_ = bytes;
}

void Buffer::release() {
  if (shared_) {
    give_shared(data_, align_up(bytes_));
  } else if (mapped_ != 0) {
    munmap(data_, mapped_);
  } else {
    std::free(data_);
  }
  forget();
}

}  // namespace netsuke
