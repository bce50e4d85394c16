// The counter-based generator of stochastic rounding: Philox 4x32 with 7 rounds (Salmon et al. 2011, "Parallel Random Numbers: As Easy
// as 1, 2, 3": 7 rounds pass BigCrush). The noise of element i depends on (seed, stream, i) alone, so any split over threads and
// any vector width gives the same bits.
//
// Elements come in blocks of 64. Element e of block s takes half (e / 8) % 2 (0: low) of word e / 16 of counter s * 8 + e % 8: eight
// neighbours are the eight lanes of one register. Noise is (half + 0.5) / 65536: in (0, 1), mean exactly 1/2.
#ifndef NETSUKE_TRAIN_RANDOM_H_
#define NETSUKE_TRAIN_RANDOM_H_

#include <cstdint>

namespace netsuke {
namespace train {

constexpr int64_t kNoiseBlock = 64;
constexpr int kPhiloxRounds = 7;
constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u, kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

struct Seed {
  uint64_t key = 0;     // the run's seed
  uint64_t stream = 0;  // one a tensor and step
};

inline void philox(const Seed& seed, uint64_t counter, uint32_t out[4]) {
  uint32_t x0 = static_cast<uint32_t>(counter), x1 = static_cast<uint32_t>(counter >> 32);
  uint32_t x2 = static_cast<uint32_t>(seed.stream), x3 = static_cast<uint32_t>(seed.stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed.key), k1 = static_cast<uint32_t>(seed.key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxM0) * x0, p1 = static_cast<uint64_t>(kPhiloxM1) * x2;
    x0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
    x1 = static_cast<uint32_t>(p1);
    x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
    x3 = static_cast<uint32_t>(p0);
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

// The noise of the 64 elements of a block.
inline void noise_block(const Seed& seed, int64_t block, float out[kNoiseBlock]) {
  for (int lane = 0; lane < 8; ++lane) {
    uint32_t words[4];
    philox(seed, static_cast<uint64_t>(block) * 8 + static_cast<uint64_t>(lane), words);
    for (int k = 0; k < 8; ++k) {
      const uint32_t half = (words[k / 2] >> (16 * (k % 2))) & 0xFFFFu;
      out[k * 8 + lane] = (static_cast<float>(half) + 0.5f) * (1.0f / 65536.0f);
    }
  }
}

}  // namespace train
}  // namespace netsuke

#endif  // NETSUKE_TRAIN_RANDOM_H_
