// Reading a safetensors file: an 8-byte little-endian header length, a JSON header, then the tensors without holes.
#ifndef NETSUKE_GRAPH_SAFETENSORS_H_
#define NETSUKE_GRAPH_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/status.h"
#include "kernels/op.h"

namespace netsuke {

// The bytes of a file, mapped read-only, or a copy of bytes in memory.
class FileBytes {
 public:
  FileBytes() = default;
  ~FileBytes() { close(); }
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  Status open(const std::string& path);
  Status copy(const void* bytes, size_t size);
  void close();
  // The caller will not read [begin, end) again: the memory of all whole pages in it goes back.
  void drop(const uint8_t* begin, const uint8_t* end);

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
  Buffer owned_;
};

struct FileTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  const uint8_t* data = nullptr;  // inside the file; may be misaligned for the dtype
  size_t bytes = 0;
};

struct SafeTensors {
  std::vector<FileTensor> tensors;                                // in the order of their bytes
  std::vector<std::pair<std::string, std::string>> metadata;      // the strings of __metadata__
};

// Every rule of the format is checked: header length, JSON, dtypes, shapes, sizes, order, no holes, no overlaps.
Status parse_safetensors(const uint8_t* data, size_t size, SafeTensors* out);

bool dtype_from_name(const std::string& name, DType* out);  // "f32", "bf16", ...

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_SAFETENSORS_H_
