#include "kernels/fgemm/weights.h"

#include <atomic>
#include <cstring>

#include "kernels/base/shapes.h"
#include "kernels/fgemm/bf16.h"

namespace netsuke {
namespace {

constexpr int64_t kConvertChunk = 4096;  // floats converted in one task, about

}  // namespace

Status FgemmWeights::build(const Tensor& w, const Tensor* bias, int64_t groups, int64_t cols, int64_t taps, int64_t channels,
                           const Activation& act, Isa isa, const char* op) {
  bf16_ = w.dtype == DType::kBF16;
  kernels_ = bf16_ ? &fgemm_bf16_kernels(isa) : &fgemm_kernels(isa);
  act_ = act;
  float lo, hi;
  act_row_ = act.clamp(&lo, &hi) ? nullptr : unary_kernels(isa).rows[static_cast<int>(act.fn)];
  groups_ = groups;
  cols_ = cols;
  taps_ = taps;
  input_channels_ = channels;
  channels_ = bf16_ ? (channels + 1) / 2 : channels;
  name_ = std::string(op) + (bf16_ ? "_bf16_" : "_f32_") + kernels_->name;
  NETSUKE_TRY(pack(w));
  return bias != nullptr && bias->present ? pack_bias(*bias) : Status();
}

Status FgemmWeights::pack(const Tensor& w) {
  const int64_t k = taps_ * channels_;
  const size_t group_floats = fgemm_packed_floats(*kernels_, cols_, k);
  NETSUKE_TRY(packed_.allocate_shared(group_floats * static_cast<size_t>(groups_) * sizeof(float)));
  Buffer pairs;  // one group of bf16 weights as pairs
  if (bf16_) NETSUKE_TRY(pairs.allocate(static_cast<size_t>(cols_ * k) * sizeof(float)));
  for (int64_t g = 0; g < groups_; ++g) {
    const int64_t offset = g * cols_ * taps_ * input_channels_;
    const float* from = w.as<float>() + (bf16_ ? 0 : offset);
    if (bf16_) {
      const uint32_t least = bf16_pairs(w.as<uint16_t>() + offset, cols_ * taps_, input_channels_, reinterpret_cast<uint32_t*>(pairs.data()));
      least_exponent_ = least < least_exponent_ ? least : least_exponent_;
      from = reinterpret_cast<const float*>(pairs.data());
    }
    float* to = reinterpret_cast<float*>(packed_.data()) + group_floats * static_cast<size_t>(g);
    fgemm_pack(*kernels_, from, cols_, k, k, 1, to, 0, fgemm_panels(*kernels_, cols_));
  }
  return Status();
}

Status FgemmWeights::pack_bias(const Tensor& bias) {
  NETSUKE_TRY(expect_dtype(bias, "bias", {DType::kF32}));
  if (bias.data == nullptr || bias.shape.elements() != groups_ * cols_) {
    return error(Code::kInvalidArgument, "bias must be a constant of %lld elements, got shape %s",
                 static_cast<long long>(groups_ * cols_), shape_text(bias.shape).c_str());
  }
  const size_t padded = fgemm_padded_cols(*kernels_, cols_);
  NETSUKE_TRY(bias_.allocate(padded * static_cast<size_t>(groups_) * sizeof(float)));
  memset(bias_.data(), 0, bias_.bytes());
  for (int64_t g = 0; g < groups_; ++g) {
    memcpy(reinterpret_cast<float*>(bias_.data()) + padded * static_cast<size_t>(g), bias.as<float>() + g * cols_, static_cast<size_t>(cols_) * sizeof(float));
  }
  return Status();
}

Status FgemmWeights::check_residual(const Tensor* r, const Shape& out) {
  if (r == nullptr || !r->present) return Status();
  NETSUKE_TRY(expect_dtype(*r, "r", {DType::kF32}));
  if (r->shape == out) return Status();
  return error(Code::kInvalidArgument, "r has shape %s, the output %s", shape_text(r->shape).c_str(), shape_text(out).c_str());
}

size_t FgemmWeights::input_bytes(const Tensor& x, int64_t pixels) const {
  return bf16_ && x.dtype != DType::kBF16 ? align_up(static_cast<size_t>(pixels * pixel_floats()) * sizeof(float)) : 0;
}

const float* FgemmWeights::input(const Tensor& x, int64_t pixels, void* scratch, ThreadPool& pool, bool* flush) const {
  *flush = false;
  if (!bf16_) return x.as<float>();
  if (x.dtype == DType::kBF16) {
    if (!kernels_->always_flushes) *flush = bf16_may_flush(kernels_->least_bf16(x.as<uint16_t>(), x.shape.elements()), least_exponent_);
    return x.as<float>();
  }
  uint32_t* out = static_cast<uint32_t*>(scratch);
  const int64_t rows = pixels * groups_, row = input_channels_ > 0 ? input_channels_ : 1;
  const int64_t chunk = kConvertChunk / row + 1;
  std::atomic<bool> may_flush{false};
  pool.parallel_for((rows + chunk - 1) / chunk, [&](int64_t task, int) {
    const int64_t begin = task * chunk, count = rows - begin < chunk ? rows - begin : chunk;
    const uint32_t least = kernels_->to_bf16(x.as<float>() + begin * input_channels_, count, input_channels_, out + begin * channels_);
    if (bf16_may_flush(least, least_exponent_)) may_flush.store(true, std::memory_order_relaxed);
  });
  *flush = may_flush.load();
  return static_cast<const float*>(scratch);
}

FgemmJob FgemmWeights::job(int64_t rows) const {
  FgemmJob job;
  job.kernels = kernels_;
  job.rows = rows;
  job.cols = cols_;
  job.taps = taps_;
  job.channels = channels_;
  job.groups = groups_;
  job.b = reinterpret_cast<const float*>(packed_.data());
  job.bias = reinterpret_cast<const float*>(bias_.data());
  job.act = act_;
  job.act_row = act_row_;
  job.bf16 = bf16_;
  return job;
}

FgemmJob FgemmWeights::job(int64_t rows, const Tensor& y) const {
  FgemmJob job = this->job(rows);
  if (y.dtype == DType::kBF16) job.halves = y.as<uint16_t>();
  else job.c = y.as<float>();
  job.ldc = groups_ * cols_;
  return job;
}

size_t FgemmWeights::thread_scratch(int64_t rows, int64_t taps, bool halves) const {
  const size_t sums = halves ? fgemm_sums_bytes(*kernels_, rows, cols_, taps_ * channels_, act_row_ != nullptr) : 0;
  return align_up(fgemm_scratch_bytes(rows, taps)) + align_up(sums);
}

size_t FgemmWeights::scratch_bytes(int64_t rows, int64_t taps, int threads) {
  return align_up(fgemm_scratch_bytes(rows, taps)) * static_cast<size_t>(threads);
}

size_t FgemmWeights::scratch_bytes(int64_t rows, int64_t taps, const Tensor& y, int threads) const {
  return thread_scratch(rows, taps, y.dtype == DType::kBF16) * static_cast<size_t>(threads);
}

void FgemmWeights::run(FgemmJob* job, void* scratch, ThreadPool& pool) const {
  const size_t stride = thread_scratch(job->rows, job->taps, job->halves != nullptr);
  const int64_t tasks = fgemm_plan(job, pool.threads());
  pool.parallel_for(tasks, [&](int64_t task, int thread) {
    fgemm_task(*job, task, static_cast<uint8_t*>(scratch) + stride * static_cast<size_t>(thread));
  });
}

}  // namespace netsuke
