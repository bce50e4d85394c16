// conv_transpose against a plain scatter in double; bits equal on every instruction set.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

namespace {

using namespace netsuke;

struct Case {
  int64_t n, h, w, c, og, kh, kw, sh, sw, pad[4], dh, dw, groups, extra[2];
  const char* act;
};

void check_case(const Case& c, uint64_t seed) {
  TestRandom random(seed);
  const int64_t ig = c.c / c.groups, o = c.og * c.groups;
  const int64_t fh = (c.h - 1) * c.sh + (c.kh - 1) * c.dh + 1 + c.extra[0], fw = (c.w - 1) * c.sw + (c.kw - 1) * c.dw + 1 + c.extra[1];
  const int64_t oh = fh - c.pad[0] - c.pad[2], ow = fw - c.pad[1] - c.pad[3];
  std::vector<TestTensor> in = {random.floats(make_shape({c.n, c.h, c.w, c.c})), random.floats(make_shape({c.c, c.kh, c.kw, c.og}), true),
                                seed % 2 ? random.floats(make_shape({o}), true) : TestTensor()};
  std::vector<double> y(static_cast<size_t>(c.n * oh * ow * o)), size(y.size());
  for (int64_t i = 0; i < c.n * c.h * c.w * c.c; ++i) {
    const int64_t ch = i % c.c, x = i / c.c % c.w, row = i / c.c / c.w % c.h, n = i / c.c / c.w / c.h;
    for (int64_t k = 0; k < c.kh * c.kw * c.og; ++k) {
      const int64_t oy = row * c.sh + k / c.og / c.kw * c.dh - c.pad[0], ox = x * c.sw + k / c.og % c.kw * c.dw - c.pad[1];
      if (oy < 0 || oy >= oh || ox < 0 || ox >= ow) continue;
      const double p = (double)in[0].data<float>()[i] * in[1].data<float>()[ch * c.kh * c.kw * c.og + k];
      const size_t at = static_cast<size_t>(((n * oh + oy) * ow + ox) * o + ch / ig * c.og + k % c.og);
      y[at] += p;
      size[at] += std::fabs(p);
    }
  }
  char attrs[300];
  std::snprintf(attrs, sizeof(attrs), "{\"strides\":[%d,%d],\"pads\":[%d,%d,%d,%d],\"dilations\":[%d,%d],\"groups\":%d,\"output_padding\":[%d,%d],\"act\":\"%s\"}", (int)c.sh, (int)c.sw,
                (int)c.pad[0], (int)c.pad[1], (int)c.pad[2], (int)c.pad[3], (int)c.dh, (int)c.dw, (int)c.groups, (int)c.extra[0], (int)c.extra[1], c.act);
  std::vector<TestTensor> first;
  CHECK_OK(OpRunner("conv_transpose", attrs, in, 1, Isa::kPortable, 1)(in, &first));
  if (first.empty() || !CHECK(first[0].shape == make_shape({c.n, oh, ow, o}))) return;
  int64_t bad = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    double exact = y[i] + (in[2].present ? in[2].data<float>()[static_cast<int64_t>(i) % o] : 0);
    if (std::string(c.act) == "relu" && exact < 0) exact = 0;
    if (!(std::fabs(first[0].data<float>()[i] - exact) <= static_cast<double>(c.kh * c.kw * ig + 2) * 0x1p-24 * (size[i] + 1))) ++bad;
  }
  if (!CHECK(bad == 0)) std::fprintf(stderr, "  %s: %lld wrong\n", attrs, (long long)bad);
  for (Isa isa : testable_isas()) {
    for (int threads : {1, 3}) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner("conv_transpose", attrs, in, 1, isa, threads)(in, &out));
      CHECK(!out.empty() && same_floats(first[0], out[0]));
    }
  }
}

}  // namespace

int main() {
  uint64_t seed = 1;
  const Case cases[] = {
      {2, 5, 6, 8, 12, 2, 2, 2, 2, {0, 0, 0, 0}, 1, 1, 1, {0, 0}, "none"},   // U-Net up-convolution
      {1, 4, 4, 20, 33, 4, 4, 2, 2, {1, 1, 1, 1}, 1, 1, 1, {0, 0}, "relu"},  // DCGAN
      {1, 5, 3, 6, 5, 3, 3, 2, 2, {1, 1, 1, 1}, 1, 1, 1, {1, 1}, "none"},
      {1, 3, 4, 4, 7, 3, 2, 1, 1, {0, 1, 2, 0}, 1, 1, 1, {0, 0}, "none"},
      {1, 4, 5, 6, 4, 3, 3, 3, 2, {2, 1, 0, 1}, 2, 3, 2, {0, 1}, "relu"},    // dilated, grouped
      {1, 4, 4, 5, 3, 1, 1, 3, 3, {0, 0, 0, 0}, 1, 1, 1, {2, 0}, "none"},    // phases without any tap
      {1, 1, 9, 4, 4, 1, 8, 1, 4, {0, 2, 0, 2}, 1, 1, 4, {0, 0}, "none"},    // one-dimensional
      {1, 3, 3, 2, 2, 5, 5, 2, 2, {3, 4, 3, 4}, 1, 1, 1, {1, 0}, "none"},    // padding beyond the stride
      {1, 2, 1, 3, 4, 2, 2, 1, 3, {1, 1, 1, 0}, 1, 1, 1, {0, 0}, "relu"},    // fewer outputs than phases, the phase not the first
  };
  for (const Case& c : cases) {
    check_case(c, seed++);
    check_case(c, seed++);
  }
  // a fused activation that is no clamp equals the operator after
  TestRandom random(3);
  const std::vector<TestTensor> in = {random.floats(make_shape({1, 4, 4, 6})), random.floats(make_shape({6, 3, 3, 9}), true)};
  std::vector<TestTensor> fused, plain, after;
  CHECK_OK(OpRunner("conv_transpose", "{\"strides\":[2,2],\"pads\":[1,1,1,1],\"act\":\"tanh\"}", in, 1, best_isa(), 1)(in, &fused));
  CHECK_OK(OpRunner("conv_transpose", "{\"strides\":[2,2],\"pads\":[1,1,1,1]}", in, 1, best_isa(), 1)(in, &plain));
  CHECK_OK(OpRunner("unary", "{\"fn\":\"tanh\"}", plain, 1, best_isa(), 1)(plain, &after));
  CHECK(same_floats(fused[0], after[0]));
  std::vector<TestTensor> out;
  CHECK(!OpRunner("conv_transpose", "{\"strides\":[1,1],\"pads\":[3,3,3,3]}", in, 1, Isa::kPortable, 1)(in, &out).ok());  // nothing left
  return check_result();
}
