// Every instruction set this CPU has, against plain loops.
#include "base/choices.h"
#include "kernels/bgemm/test_cases.h"

namespace netsuke {
namespace {

// 65,536 products and more: kNibbles would overflow its 16-bit sums, so another kernel must be taken.
void deep_sums(Isa isa) {
  constexpr int64_t kChannels = 70000;
  bgemm::Geometry g;
  g.in_channels = kChannels;
  g.out_channels = 3;
  bgemm::Extent e{1, 2, 1, 2, 1};
  const size_t words = static_cast<size_t>(bgemm::words_of(kChannels));
  std::vector<uint64_t> w(3 * words, 0), x(2 * words, ~uint64_t{0});
  x[words - 1] = x[2 * words - 1] = (uint64_t{1} << (kChannels % 64)) - 1;
  std::vector<float> mult(3 + 128, 1.0f), y(6);
  bgemm::Finish f;
  f.out_f32 = true;
  f.mult = mult.data();
  bgemm::Layer layer;
  CHECK_OK(layer.build(g, 0, w.data(), nullptr, f, isa, true));
  ThreadPool pool(1);
  Buffer scratch;
  CHECK_OK(scratch.allocate(layer.scratch_bytes(e, 1)));
  layer.run(e, x.data(), nullptr, y.data(), nullptr, scratch.data(), pool);
  for (float v : y) CHECK(v == -70000.0f);
}

}  // namespace
}  // namespace netsuke

int main(int argc, char** argv) {
  using namespace netsuke;
  const int count = argc > 1 ? std::atoi(argv[1]) : 600;
  for (Isa isa : test_isas()) {
    bgemm::check_many(isa, count, 1);
    deep_sums(isa);
    set_choices({{"*", "tree"}});
    bgemm::check_many(isa, count / 2, 3);
    deep_sums(isa);
    set_choices({});
  }
  return check_result();
}
