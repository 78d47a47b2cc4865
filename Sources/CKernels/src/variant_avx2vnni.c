// AVX2 with the VEX-encoded VNNI instructions.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)

#define VARIANT avx2vnni
#define VARIANT_NAME "avx2vnni"

ALWAYS_INLINE int32_t avx2vnni_start(int kind, int32_t zero, int32_t sum) { return panel_has_min(kind) ? 0 : -zero * sum; }

ALWAYS_INLINE __m256i avx2vnni_dot4(int kind, int32_t zero, __m256i sum, __m256i u, __m256i q) {
    (void)kind, (void)zero;
    return _mm256_dpbusd_avx_epi32(sum, u, q);
}

#include "variant_avx2.h"

const graft_kernels *const graft_variant_avx2vnni = &avx2vnni_kernels;

#pragma clang attribute pop
#endif
