// Every instruction set this CPU has, against plain loops.
#include "base/choices.h"
#include "kernels/qgemm/gemm.h"
#include "kernels/qgemm/test_cases.h"

// Where a narrow set exists: the chain of known widths, none for 8 x 8 bits, and no narrow set where one code more would not fit.
static void check_chains(netsuke::Isa isa) {
  using namespace netsuke::qgemm;
  const Kernels& kernels = *kernels_of(isa);
  Geometry g;
  g.in_channels = 8;
  g.out_channels = 2;
  std::vector<int8_t> w(16, 0);
  Weights weights;
  weights.w = w.data();
  const bool has = kernels.narrow_set != nullptr;
  struct Known {
    int hi, zero, w;
    int64_t chain;
  };
  for (const Known& k : {Known{255, 0, 127, 0}, {255, 0, 7, 9}, {255, 0, 31, 2}, {255, 0, 32, 2}, {255, 0, 33, 0}, {63, 0, 7, 37}, {15, 0, 7, 64},
                         {15, 255, 7, 9}, {15, 0, 127, 8}, {127, 0, 64, 2}, {127, 0, 65, 0}, {3, 0, 1, 64}, {255, 0, 0, 64}}) {
    for (int sign : {1, -1}) {
      w[9] = static_cast<int8_t>(sign * k.w);
      g.x_hi = k.hi;
      g.x_zero = k.zero;
      const bool good = narrow_chain(g, weights, kernels) == (has ? k.chain : 0);
      if (!CHECK(good)) std::printf("hi %d zero %d w %d: chain %d\n", k.hi, k.zero, sign * k.w, static_cast<int>(narrow_chain(g, weights, kernels)));
    }
  }
}

int main(int argc, char** argv) {
  using namespace netsuke;
  const int count = argc > 1 ? std::atoi(argv[1]) : 400;
  const uint32_t seed = argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1;
  for (Isa isa : compiled_isas()) {
    if (!isa_available(isa)) continue;
    qgemm::check_many(isa, count, seed);
    if (qgemm::kernels_of(isa)->winograd_set != nullptr) {  // Winograd also where select.cc prefers the direct product
      qgemm::Kernels other = *qgemm::kernels_of(isa);
      other.winograd_least = 1;
      other.winograd2_most = 1 << 20;
      for (int64_t most : {0, 1 << 20}) {
        other.winograd4_most = most;
        qgemm::override_kernels_for_test(isa, &other);
        qgemm::check_many(isa, count / 4, seed + 1);
      }
      qgemm::override_kernels_for_test(isa, nullptr);
    }
    set_choices({{"*", "bits"}});
    qgemm::check_bits(isa, count, seed + 2);
    set_choices({});
    check_chains(isa);
    if (qgemm::kernels_of(isa)->winograd_narrow_set != nullptr) {
      qgemm::Kernels other = *qgemm::kernels_of(isa);
      other.winograd_narrow_least = 1;
      qgemm::override_kernels_for_test(isa, &other);
      other.winograd3_most = 1 << 20;
      for (int out : {2, 3}) qgemm::check_narrow_winograd(out, isa, count, seed + 3);
      set_choices({});
      qgemm::override_kernels_for_test(isa, nullptr);
    }
    std::printf("%s: %d checks so far\n", isa_name(isa), check_count());
  }
  return check_result();
}
