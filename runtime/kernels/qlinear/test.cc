// qlinear and qlinear_dyadic through the registry on every instruction set; higher ranks; what must be refused.
#include "kernels/qgemm/test_op.h"

namespace netsuke {
namespace qgemm {
namespace {

Case random_linear(Cases* cases) {
  Case c;
  c.g.in_channels = cases->one_in(3) ? cases->pick(1, 8) : cases->pick(1, 300);
  c.g.out_channels = cases->one_in(3) ? 1 : cases->pick(1, 150);
  c.e = {1, 1, cases->one_in(2) ? 1 : cases->pick(0, 40), 0, 0};
  c.e.oh = 1;
  c.e.ow = c.e.w;
  cases->fill(&c);
  return c;
}

// [2, 3, K] gives the rows of [6, K].
void higher_rank() {
  Cases cases(5);
  Case c = random_linear(&cases);
  c.e.w = c.e.ow = 6;
  cases.fill(&c);
  c.q.dyadic = c.q.out_f32 = false;
  c.q.residual = Residual::kNone;
  std::vector<TestTensor> in = tensors_of(c, true);
  in[2] = tensor_of(DType::kF32, {c.g.out_channels}, c.mult, true);
  in[3] = tensor_of(DType::kF32, {c.g.out_channels}, c.bias, true);
  in[5] = TestTensor();
  const std::string attributes = attributes_of(c, true);
  OpRunner runner("qlinear", attributes.c_str(), in, 1, best_isa(), 2);
  std::vector<TestTensor> flat, cube;
  CHECK_OK(runner(in, &flat));
  in[0].shape = make_shape({2, 3, c.g.in_channels});
  CHECK_OK(runner(in, &cube));
  CHECK(cube[0].shape == make_shape({2, 3, c.g.out_channels}));
  CHECK(cube[0].bytes == flat[0].bytes);
  in[0].shape = make_shape({3, 2 * c.g.in_channels});
  check_refused("qlinear", attributes, in, "last dimension of x", true);
  in[0].dtype = DType::kS8;
  check_refused("qlinear", attributes, in, "must be u8", true);
  in[1].shape = make_shape({1, 1, c.g.out_channels, c.g.in_channels});
  check_refused("qlinear", attributes, in, "s8 of rank 2");
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

int main(int argc, char** argv) {
  using namespace netsuke;
  const int count = argc > 1 ? std::atoi(argv[1]) : 120;
  for (Isa isa : testable_isas()) {
    qgemm::Cases cases(3);
    for (int i = 0; i < count; ++i) {
      qgemm::Case c = qgemm::random_linear(&cases);
      qgemm::check_op(&c, true, isa, 1 + i % 2);
    }
  }
  qgemm::higher_rank();
  return check_result();
}
