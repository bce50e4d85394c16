#include "graph/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "graph/json.h"

namespace netsuke {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr int kHeaderDepth = 4;               // {name: {shape: [n]}}

struct FileType {
  const char* name;
  DType dtype;
};

constexpr FileType kFileTypes[] = {{"F32", DType::kF32}, {"BF16", DType::kBF16}, {"U8", DType::kU8},    {"I8", DType::kS8},
                                   {"I32", DType::kI32}, {"I64", DType::kI64},   {"BOOL", DType::kBool}};

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kU8, DType::kS8, DType::kI32, DType::kI64, DType::kBool};

Status bad(const std::string& tensor, const char* what) {
  return error(Code::kCorruptFile, "tensor '%.200s': %s", tensor.c_str(), what);
}

Status read_type(const Json& entry, FileTensor* out) {
  const Json* dtype = entry.find("dtype");
  if (dtype == nullptr || !dtype->is(Json::Kind::kString)) return bad(out->name, "no dtype");
  for (const FileType& type : kFileTypes) {
    if (dtype->text == type.name) {
      out->dtype = type.dtype;
      return Status();
    }
  }
  return error(Code::kCorruptFile, "tensor '%.200s': dtype '%.20s'; allowed: F32 BF16 U8 I8 I32 I64 BOOL", out->name.c_str(),
               dtype->text.c_str());
}

Status read_shape(const Json& entry, FileTensor* out) {
  const Json* shape = entry.find("shape");
  if (shape == nullptr || !shape->is(Json::Kind::kArray)) return bad(out->name, "no shape");
  if (shape->items.size() > kMaxRank) return bad(out->name, "more than 8 dimensions");
  int64_t bytes = static_cast<int64_t>(dtype_size(out->dtype));
  int64_t bound = bytes;  // with empty dimensions counted as 1, so that partial products are bounded too
  for (const Json& dim : shape->items) {
    if (!dim.is(Json::Kind::kInt) || dim.integer < 0) return bad(out->name, "a dimension is not a non-negative integer");
    out->shape.dim[out->shape.rank++] = dim.integer;
    bytes *= dim.integer == 0 ? 0 : 1;
    if (!checked_mul(bound, std::max<int64_t>(dim.integer, 1), &bound)) return bad(out->name, "the shape overflows");
  }
  out->bytes = bytes == 0 ? 0 : static_cast<size_t>(bound);
  return Status();
}

Status read_offsets(const Json& entry, const uint8_t* data, uint64_t data_size, FileTensor* out) {
  const Json* offsets = entry.find("data_offsets");
  if (offsets == nullptr || !offsets->is(Json::Kind::kArray) || offsets->items.size() != 2 ||
      !offsets->items[0].is(Json::Kind::kInt) || !offsets->items[1].is(Json::Kind::kInt)) {
    return bad(out->name, "data_offsets is not a pair of integers");
  }
  const int64_t begin = offsets->items[0].integer, end = offsets->items[1].integer;
  if (begin < 0 || end < begin || static_cast<uint64_t>(end) > data_size) return bad(out->name, "data_offsets outside the file");
  if (static_cast<uint64_t>(end - begin) != out->bytes) return bad(out->name, "data_offsets do not fit dtype and shape");
  out->data = data + begin;
  return Status();
}

Status check_booleans(const FileTensor& tensor) {
  if (tensor.dtype != DType::kBool) return Status();
  for (size_t i = 0; i < tensor.bytes; ++i) {
    if (tensor.data[i] > 1) return bad(tensor.name, "a boolean is neither 0 nor 1");
  }
  return Status();
}

Status read_metadata(const Json& entry, SafeTensors* out) {
  if (!entry.is(Json::Kind::kObject)) return error(Code::kCorruptFile, "__metadata__ is not an object");
  for (size_t i = 0; i < entry.items.size(); ++i) {
    if (!entry.items[i].is(Json::Kind::kString)) return error(Code::kCorruptFile, "__metadata__ holds something that is not a string");
    out->metadata.emplace_back(entry.keys[i], entry.items[i].text);
  }
  return Status();
}

// Tensors follow each other from the first data byte to the last: no hole, no overlap, no trailing bytes.
Status check_layout(const uint8_t* data, uint64_t data_size, std::vector<FileTensor>* tensors) {
  std::stable_sort(tensors->begin(), tensors->end(), [](const FileTensor& a, const FileTensor& b) {
    return a.data != b.data ? a.data < b.data : a.bytes < b.bytes;
  });
  const uint8_t* expected = data;
  for (const FileTensor& tensor : *tensors) {
    if (tensor.data != expected) return bad(tensor.name, tensor.data < expected ? "overlaps another tensor" : "a hole before it");
    expected += tensor.bytes;
  }
  if (expected != data + data_size) return error(Code::kCorruptFile, "bytes after the last tensor");
  return Status();
}

}  // namespace

bool dtype_from_name(const std::string& name, DType* out) {
  for (DType dtype : kDTypes) {
    if (name == dtype_name(dtype)) {
      *out = dtype;
      return true;
    }
  }
  return false;
}

Status FileBytes::open(const std::string& path) {
  close();
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return error(Code::kInvalidArgument, "cannot open '%s': %s", path.c_str(), std::strerror(errno));
  struct stat info;
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(file);
    return error(Code::kInvalidArgument, "'%s' is not a regular file", path.c_str());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) {
    ::close(file);
    return error(Code::kCorruptFile, "'%s' is empty", path.c_str());
  }
  void* memory = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  const int reason = errno;
  ::close(file);
  if (memory == MAP_FAILED) {
    size_ = 0;
    return error(Code::kOutOfMemory, "cannot map '%s': %s", path.c_str(), std::strerror(reason));
  }
  data_ = static_cast<uint8_t*>(memory);
  mapped_ = true;
  return Status();
}

Status FileBytes::copy(const void* bytes, size_t size) {
  close();
  NETSUKE_TRY(owned_.allocate(size));
  if (size != 0) std::memcpy(owned_.data(), bytes, size);
  data_ = owned_.data();
  size_ = size;
  return Status();
}

void FileBytes::close() {
  if (mapped_) munmap(data_, size_);
  owned_.release();
  data_ = nullptr;
  size_ = 0;
  mapped_ = false;
}

void FileBytes::drop(const uint8_t* begin, const uint8_t* end) {
  // A small copy comes from the heap, where neighbours share its pages.
  if (!mapped_ && !owned_.mapped()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) & ~(page - 1);
  const uintptr_t last = reinterpret_cast<uintptr_t>(end) & ~(page - 1);
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

Status parse_safetensors(const uint8_t* data, size_t size, SafeTensors* out) {
  *out = SafeTensors();
  if (size < 8) return error(Code::kCorruptFile, "the file has %zu bytes; a safetensors file has at least 10", size);
  uint64_t header = 0;
  for (int i = 0; i < 8; ++i) header |= static_cast<uint64_t>(data[i]) << (8 * i);
  if (header > kMaxHeader || header > size - 8) {
    return error(Code::kCorruptFile, "not a .nsk file or cut short: header of %llu bytes in a file of %zu",
                 static_cast<unsigned long long>(header), size);
  }
  if (header == 0 || data[8] != '{') return error(Code::kCorruptFile, "not a .nsk file: no safetensors header");
  Json root;
  NETSUKE_TRY(parse_json(reinterpret_cast<const char*>(data + 8), header, kHeaderDepth, &root));
  const uint8_t* tensors = data + 8 + header;
  const uint64_t tensor_bytes = size - 8 - header;
  out->tensors.reserve(root.items.size());
  for (size_t i = 0; i < root.items.size(); ++i) {
    if (root.keys[i] == "__metadata__") {
      NETSUKE_TRY(read_metadata(root.items[i], out));
      continue;
    }
    FileTensor tensor;
    tensor.name = root.keys[i];
    const Json& entry = root.items[i];
    if (!entry.is(Json::Kind::kObject) || entry.keys.size() != 3) return bad(tensor.name, "not an object of dtype, shape, data_offsets");
    NETSUKE_TRY(read_type(entry, &tensor));
    NETSUKE_TRY(read_shape(entry, &tensor));
    NETSUKE_TRY(read_offsets(entry, tensors, tensor_bytes, &tensor));
    NETSUKE_TRY(check_booleans(tensor));
    out->tensors.push_back(std::move(tensor));
  }
  return check_layout(tensors, tensor_bytes, &out->tensors);
}

}  // namespace netsuke
