// AVX2 without VNNI. vpmaddubsw adds two products of bytes into 16 bits and saturates: weights up to 128 are safe (2 · 128 · 127 =
// 32,512), so full-range bytes (Q8_0, stored with zero point 128) are made signed first and the sign moved to the activation.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define VARIANT avx2
#define VARIANT_NAME "avx2"

ALWAYS_INLINE int32_t avx2_start(int kind, int32_t zero, int32_t sum) {
    return zero == 128 || panel_has_min(kind) ? 0 : -zero * sum;
}

ALWAYS_INLINE __m256i avx2_dot4(int kind, int32_t zero, __m256i sum, __m256i u, __m256i q) {
    if (!panel_is_w4(kind) && zero == 128) {
        u = _mm256_xor_si256(u, _mm256_set1_epi8((char)0x80));
        q = _mm256_sign_epi8(q, u);
        u = _mm256_abs_epi8(u);
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, q), _mm256_set1_epi16(1)));
}

#include "variant_avx2.h"

const graft_kernels *const graft_variant_avx2 = &avx2_kernels;

#pragma clang attribute pop
#endif
