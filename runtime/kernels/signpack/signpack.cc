#include "kernels/signpack/signpack.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/base/codes.h"

namespace netsuke {
namespace {

// Inputs: x [..., C], threshold [C], flip [C] or absent.
class SignPack final : public Op {
 public:
  Status build(const BuildArgs& args) override {
    if (args.inputs.size() < 2 || args.inputs.size() > 3 || !args.inputs[0].present || !args.inputs[1].present) {
      return error(Code::kInvalidArgument, "sign_pack takes x, threshold and flip");
    }
    const Tensor& t = args.inputs[1];
    if (t.data == nullptr) return error(Code::kUnsupported, "sign_pack: the threshold must be a constant");
    if ((t.dtype != DType::kF32 && t.dtype != DType::kI32) || t.shape.rank != 1 || t.shape.dim[0] < 1) {
      return error(Code::kInvalidArgument, "sign_pack: the threshold must be f32 or i32 with one value a channel");
    }
    channels_ = t.shape.dim[0];
    wanted_ = t.dtype == DType::kF32 ? DType::kF32 : DType::kU8;
    const size_t words = static_cast<size_t>((channels_ + 63) / 64);
    threshold_.assign(words * 64, 0.0f);
    std::memcpy(threshold_.data(), t.data, static_cast<size_t>(channels_) * 4);
    for (int64_t c = 0; wanted_ == DType::kF32 && c < channels_; ++c) {
      if (std::isnan(threshold_[static_cast<size_t>(c)])) return error(Code::kInvalidArgument, "sign_pack: a threshold is NaN");
    }
    flip_.assign(words, 0);
    if (args.inputs.size() == 3 && args.inputs[2].present) {
      const Tensor& f = args.inputs[2];
      if (f.data == nullptr || f.dtype != DType::kBool || f.shape.rank != 1 || f.shape.dim[0] != channels_) {
        return error(Code::kInvalidArgument, "sign_pack: flip must be a constant bool[%lld]", static_cast<long long>(channels_));
      }
      for (int64_t c = 0; c < channels_; ++c) {
        flip_[static_cast<size_t>(c / 64)] |= static_cast<uint64_t>(f.as<const uint8_t>()[c] != 0) << (c % 64);
      }
    }
    kernels_ = &sign_pack_kernels(args.isa);
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    const Shape& x = in[0].shape;
    if (n_in < 2 || n_out != 1 || in[0].dtype != wanted_ || x.rank < 1 || x.dim[x.rank - 1] != channels_) {
      return error(Code::kInvalidArgument, "sign_pack: x must be %s [..., %lld]", dtype_name(wanted_), static_cast<long long>(channels_));
    }
    out[0].dtype = DType::kI64;
    out[0].shape = x;
    out[0].shape.dim[x.rank - 1] = (channels_ + 63) / 64;
    return Status();
  }

  Status run(const RunArgs& args) const override {
    const int64_t words = (channels_ + 63) / 64, rows = args.in[0].shape.elements() / channels_;
    uint64_t* y = args.out[0].as<uint64_t>();
    for_ranges(args.pool, rows, kElementsPerTask / channels_ + 1, 1, [&](int64_t begin, int64_t end) {
      if (wanted_ == DType::kF32) {
        const float* x = args.in[0].as<const float>() + begin * channels_;
        kernels_->f32(x, end - begin, channels_, threshold_.data(), flip_.data(), y + begin * words);
      } else {
        const uint8_t* x = args.in[0].as<const uint8_t>() + begin * channels_;
        kernels_->u8(x, end - begin, channels_, reinterpret_cast<const int32_t*>(threshold_.data()), flip_.data(), y + begin * words);
      }
    });
    return Status();
  }

  const char* kernel_name() const override { return kernels_->name; }
  bool packed_constant(int i) const override { return i >= 1; }
  size_t packed_bytes() const override { return threshold_.size() * 4 + flip_.size() * 8; }

 private:
  int64_t channels_ = 0;
  DType wanted_ = DType::kF32;
  std::vector<float> threshold_;  // or the bits of i32
  std::vector<uint64_t> flip_;
  const SignPackKernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_sign_pack() { return std::make_unique<SignPack>(); }

}  // namespace netsuke
