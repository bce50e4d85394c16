// The float environment of the specification: round to nearest even, subnormals kept. A caller may have switched subnormals
// off for its thread (training code does); results must not depend on it.
#ifndef NETSUKE_BASE_FLOAT_ENV_H_
#define NETSUKE_BASE_FLOAT_ENV_H_

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace netsuke {

class FloatEnv {
 public:
  FloatEnv() : saved_(get()) {
    if (saved_ != kDefault) set(kDefault);
  }
  ~FloatEnv() {
    if (saved_ != kDefault) set(saved_);
  }
  FloatEnv(const FloatEnv&) = delete;
  FloatEnv& operator=(const FloatEnv&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kDefault = 0x1f80;  // all exceptions masked, nothing else
  static uint64_t get() { return _mm_getcsr() & ~0x3fu; }  // without the sticky exception flags
  static void set(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kDefault = 0;
  static uint64_t get() {
    uint64_t value;
    __asm__ volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }
#else
  static constexpr uint64_t kDefault = 0;
  static uint64_t get() { return 0; }
  static void set(uint64_t) {}
#endif
  uint64_t saved_;
};

}  // namespace netsuke

#endif  // NETSUKE_BASE_FLOAT_ENV_H_
