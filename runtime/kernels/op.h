// What an operator is: the contract between the executor (runtime/graph) and the kernels (runtime/kernels).
//
// One Op object stands for one node of the program. It is built once at load (constants are packed, a kernel is chosen),
// asked for output shapes once per set of input shapes, and run many times, possibly from several threads at once and with
// several sets of shapes in turn: only build() may change the object. Nothing that depends on a shape is kept in it.
#ifndef NETSUKE_KERNELS_OP_H_
#define NETSUKE_KERNELS_OP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/status.h"
#include "base/threads.h"

namespace netsuke {

enum class DType : uint8_t { kF32, kBF16, kU8, kS8, kI32, kI64, kBool };
size_t dtype_size(DType dtype);
const char* dtype_name(DType dtype);

constexpr int kMaxRank = 8;

struct Shape {
  int rank = 0;
  int64_t dim[kMaxRank] = {};
  int64_t elements() const;  // overflow is excluded by the executor before any kernel runs
  bool operator==(const Shape& other) const;
};

// A dense row-major tensor. data is null while shapes are being inferred, unless the contents are already known (constants and
// integer tensors computed from shapes). A tensor with data == nullptr and present == false is an absent optional input.
struct Tensor {
  DType dtype = DType::kF32;
  Shape shape;
  void* data = nullptr;
  bool present = true;
  template <typename T> T* as() const { return static_cast<T*>(data); }
};

// Attributes of one node, already checked to be finite JSON scalars or lists. A missing attribute without a default, a wrong
// type, or an attribute nobody read (checked after build) is an error naming node and attribute.
class Attrs {
 public:
  virtual ~Attrs() = default;
  virtual Status get(const char* key, int64_t* out) const = 0;                         // required
  virtual Status get(const char* key, float* out) const = 0;
  virtual Status get(const char* key, std::string* out) const = 0;
  virtual Status get(const char* key, std::vector<int64_t>* out) const = 0;
  virtual Status get_or(const char* key, int64_t fallback, int64_t* out) const = 0;    // optional
  virtual Status get_or(const char* key, float fallback, float* out) const = 0;
  virtual Status get_or(const char* key, const char* fallback, std::string* out) const = 0;
  virtual Status get_or(const char* key, std::vector<int64_t> fallback, std::vector<int64_t>* out) const = 0;
  virtual bool has(const char* key) const = 0;
};

struct BuildArgs {
  const Attrs& attrs;
  const std::vector<Tensor>& inputs;  // constants have data; others have present = true, data = null and an unknown shape (rank -1)
  int n_outputs;
  Isa isa;      // best instruction set that may be used (forced or detected)
  int threads;  // threads of the engine, for choosing tiles; results never depend on it
};

struct RunArgs {
  const Tensor* in;
  int n_in;
  Tensor* out;
  int n_out;
  void* scratch;  // scratch_bytes() bytes, 64-byte aligned
  ThreadPool& pool;
};

// For the profile: what one run costs at these shapes.
struct Cost {
  int64_t macs = 0;
  int64_t bytes_read = 0;  // weights included
  int64_t bytes_written = 0;
};

class Op {
 public:
  virtual ~Op() = default;
  virtual Status build(const BuildArgs& args) = 0;
  // in[i].shape/dtype are known; in[i].data is non-null where the contents are known. Fills out[j].shape and dtype. Must reject every
  // shape that run() could not handle: run() does not check again. Called again for every new set of input shapes.
  virtual Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const = 0;
  virtual size_t scratch_bytes(const Tensor* in, int n_in, const Tensor* out, int n_out, int threads) const { return 0; }
  virtual Status run(const RunArgs& args) const = 0;

  virtual Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const;  // default: bytes of tensors, no macs
  // The kernel chosen, by the naming grammar op_formats_isa_tile, e.g. "qconv_a8w8_x86_avx2_4x16".
  virtual const char* kernel_name() const = 0;
  // Where the operator has several ways to compute it (base/choices.h): the layer's key, and their names, the rule's own first.
  virtual std::string choice_key() const { return ""; }
  virtual std::vector<std::string> ways() const { return {}; }
  // True when the constant input i was copied into a packed form in build(), so the executor may drop the file's pages.
  virtual bool packed_constant(int i) const { return false; }
  // Bytes held in packed form.
  virtual size_t packed_bytes() const { return 0; }
  // True when output 0 is the same bytes as input 0 (reshape and kin): the executor then aliases, run() is not called.
  virtual bool is_view() const { return false; }
  // Storage of intermediate tensors, chosen by the executor: input i is rounded to bfloat16 (subnormals to zero) before anything else is done
  // with it, so it may come as kBF16 although infer() sees kF32; output 0 may be asked for as kBF16, rounded in this way.
  virtual bool reads_bf16(int i) const { return false; }
  virtual bool writes_bf16() const { return false; }
  // True when output 0 may be written over input i (same size elementwise operators).
  virtual bool in_place(int i) const { return false; }
};

// The list of operators: runtime/kernels/ops.inc holds one line NETSUKE_OP(qconv, make_qconv) for each.
using OpFactory = std::unique_ptr<Op> (*)();
OpFactory find_op(const std::string& name);  // null when unknown
std::vector<std::string> op_names();         // sorted

}  // namespace netsuke

#endif  // NETSUKE_KERNELS_OP_H_
