// One random case through the registry, as the engine runs it: shared by the tests of qconv and qlinear.
#ifndef NETSUKE_KERNELS_QGEMM_TEST_OP_H_
#define NETSUKE_KERNELS_QGEMM_TEST_OP_H_

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/base/op_runner.h"
#include "kernels/qgemm/test_cases.h"

namespace netsuke {
namespace qgemm {

template <typename T>
TestTensor tensor_of(DType dtype, std::initializer_list<int64_t> dims, const std::vector<T>& values, bool constant) {
  TestTensor t(dtype, make_shape(dims), constant);
  if (!t.bytes.empty()) std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
  return t;
}

// x, w, mult, bias, acc_bias, r or x, w, m, e, acc_bias, r. linear: x as [rows, K].
inline std::vector<TestTensor> tensors_of(const Case& c, bool linear) {
  const Geometry& g = c.g;
  std::vector<TestTensor> in(6);
  if (linear) {
    in[0] = tensor_of(DType::kU8, {c.e.w, g.in_channels}, c.x, false);
    in[1] = tensor_of(DType::kS8, {g.out_channels, g.in_channels}, c.w, true);
  } else {
    in[0] = tensor_of(DType::kU8, {c.e.n, c.e.h, c.e.w, g.in_channels}, c.x, false);
    in[1] = tensor_of(DType::kS8, {g.out_channels, g.kh, g.kw, g.in_per_group()}, c.w, true);
  }
  if (c.q.dyadic) {
    in[2] = tensor_of(DType::kI32, {g.out_channels}, c.m, true);
    in[3] = tensor_of(DType::kI32, {g.out_channels}, c.exponent, true);
  } else {
    in[2] = tensor_of(DType::kF32, {g.out_channels}, c.mult, true);
    in[3] = tensor_of(DType::kF32, {g.out_channels}, c.bias, true);
  }
  if (c.with_acc_bias) in[4] = tensor_of(DType::kI32, {g.out_channels}, c.acc_bias, true);
  const DType out = c.q.out_f32 ? DType::kF32 : DType::kU8;
  TestTensor r;
  if (linear) {
    r = c.q.out_f32 ? tensor_of(out, {c.e.w, g.out_channels}, c.r_f32, false) : tensor_of(out, {c.e.w, g.out_channels}, c.r_u8, false);
  } else if (c.q.out_f32) {
    r = tensor_of(out, {c.e.n, c.e.oh, c.e.ow, g.out_channels}, c.r_f32, false);
  } else {
    r = tensor_of(out, {c.e.n, c.e.oh, c.e.ow, g.out_channels}, c.r_u8, false);
  }
  if (c.q.residual != Residual::kNone) in[5] = r;
  return in;
}

inline std::string attributes_of(const Case& c, bool linear) {
  const Geometry& g = c.g;
  const Requant& q = c.q;
  char text[700];
  int n = std::snprintf(text, sizeof(text), "{\"x_hi\":%d,\"x_zero\":%d,\"acc_bound\":2147483647,\"zero\":%d,\"lo\":%d,\"hi\":%d,\"r_zero\":%d", g.x_hi, g.x_zero,
                        q.zero, q.lo, q.hi, q.r_zero);
  std::string json(text, static_cast<size_t>(n));
  if (q.dyadic) {
    n = std::snprintf(text, sizeof(text), ",\"r_m\":%d,\"r_e\":%d", q.r_m, q.r_e);
  } else {
    n = std::snprintf(text, sizeof(text), ",\"r_mult\":%.9g,\"out\":\"%s\"", static_cast<double>(q.r_mult), q.out_f32 ? "f32" : "u8");
  }
  json.append(text, static_cast<size_t>(n));
  if (q.out_f32 && q.has_flo) json += ",\"flo\":-1.5";
  if (q.out_f32 && q.has_fhi) json += ",\"fhi\":6.0";
  if (!linear) {
    n = std::snprintf(text, sizeof(text), ",\"strides\":[%lld,%lld],\"pads\":[%lld,%lld,%lld,%lld],\"dilations\":[%lld,%lld],\"groups\":%lld",
                      (long long)g.stride_h, (long long)g.stride_w, (long long)g.pad_top, (long long)g.pad_left, (long long)g.pad_bottom,
                      (long long)g.pad_right, (long long)g.dil_h, (long long)g.dil_w, (long long)g.groups);
    json.append(text, static_cast<size_t>(n));
  }
  return json + "}";
}

inline void check_op(Case* c, bool linear, Isa isa, int threads) {
  bind(c);
  Weights weights;
  weights.w = c->w.data();
  weights.acc_bias = c->with_acc_bias ? c->acc_bias.data() : nullptr;
  const void* residual = c->q.residual == Residual::kNone ? nullptr : c->q.out_f32 ? static_cast<void*>(c->r_f32.data()) : c->r_u8.data();
  std::vector<uint8_t> want(c->r_u8.size() * (c->q.out_f32 ? 4 : 1));
  reference(c->g, weights, c->q, c->e, c->x.data(), residual, want.data());
  const std::string op = std::string(linear ? "qlinear" : "qconv") + (c->q.dyadic ? "_dyadic" : "");
  const std::vector<TestTensor> in = tensors_of(*c, linear);
  OpRunner runner(op.c_str(), attributes_of(*c, linear).c_str(), in, 1, isa, threads);
  std::vector<TestTensor> out;
  CHECK_OK(runner.status());
  if (!runner.status().ok()) return;
  CHECK_OK(runner(in, &out));
  CHECK(out.size() == 1 && out[0].bytes == want);
  const int64_t macs = static_cast<int64_t>(c->r_u8.size()) * c->g.kh * c->g.kw * c->g.in_per_group();
  CHECK(runner.cost().macs == macs);
  CHECK(std::string(runner.op().kernel_name()).rfind(op + "_a8w8_", 0) == 0);
}

// One broken node: building (or, with infer, giving it shapes) must fail with a text that contains `expected`.
inline void check_refused(const char* op, const std::string& attributes, const std::vector<TestTensor>& in, const char* expected,
                          bool infer = false) {
  OpRunner runner(op, attributes.c_str(), in, 1, Isa::kPortable, 1);
  Status status = runner.status();
  std::vector<TestTensor> out;
  if (infer && status.ok()) status = runner(in, &out);
  const bool good = !status.ok() && status.message().find(expected) != std::string::npos;
  if (!CHECK(good)) std::fprintf(stderr, "expected \"%s\", got \"%s\"\n", expected, status.message().c_str());
}

}  // namespace qgemm
}  // namespace netsuke

#endif  // NETSUKE_KERNELS_QGEMM_TEST_OP_H_
