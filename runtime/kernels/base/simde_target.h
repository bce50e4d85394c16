// First include of every test_simde.cc: emulated AVX-512 on top of whatever the compiler targets (AVX2 by pragma on x86, so that
// 256-bit halves are native and the test is quick).
#ifndef NETSUKE_KERNELS_BASE_SIMDE_TARGET_H_
#define NETSUKE_KERNELS_BASE_SIMDE_TARGET_H_

#if !__has_include(<simde/x86/avx512.h>)
#error "test_simde.cc executes the AVX-512 kernels without AVX-512 and needs SIMDe 0.7 or later (Debian: libsimde-dev)"
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#define NETSUKE_SIMDE 1

#endif  // NETSUKE_KERNELS_BASE_SIMDE_TARGET_H_
