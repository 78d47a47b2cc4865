// Training kernels in AVX-512 with BF16: vdpbf16ps multiplies 32 pairs of bfloat16 and adds them to 16 float32 sums.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c"))), apply_to = function)

#define VARIANT avx512bf16
#define VARIANT_NAME "avx512bf16"
#define MULTIPLIES_BFLOAT16 1
#define MULTIPLIES_FLOAT32 1
#define MICRO_ROWS 6
#define MICRO_VECTORS 4

#include "vectors.h"

typedef uint16_t narrowed __attribute__((vector_size(32)));
typedef uint32_t words __attribute__((vector_size(64)));

ALWAYS_INLINE narrowed narrow(v16f v) { return (narrowed)_mm512_cvtneps_pbh((__m512)v); }

ALWAYS_INLINE v16f dot_pair(v16f sum, uint32_t left, words right) {
    return (v16f)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)left), (__m512bh)right);
}

// v [column][row], scaled and narrowed: pairs[i] holds rows 2 i and 2 i + 1 of the 16 columns. A column is 8 words; three rounds of permutations put
// 4, 8 and 16 columns side by side.
ALWAYS_INLINE void transpose_pairs(const float (*v)[16], float scale, words *pairs) {
    const v16f factor = splat(scale);
    __m512i two[8], four[4][2], eight[2][2][2];
    for (int i = 0; i < 8; i++)
        two[i] = (__m512i)_mm512_cvtne2ps_pbh((__m512)(load16(v[2 * i + 1]) * factor), (__m512)(load16(v[2 * i]) * factor));
    const __m512i low = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27), high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
    for (int m = 0; m < 4; m++) {
        four[m][0] = _mm512_permutex2var_epi32(two[2 * m], low, two[2 * m + 1]);
        four[m][1] = _mm512_permutex2var_epi32(two[2 * m], high, two[2 * m + 1]);
    }
    const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23), back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
    for (int m = 0; m < 2; m++) {
        for (int h = 0; h < 2; h++) {
            eight[m][h][0] = _mm512_permutex2var_epi32(four[2 * m][h], front, four[2 * m + 1][h]);
            eight[m][h][1] = _mm512_permutex2var_epi32(four[2 * m][h], back, four[2 * m + 1][h]);
        }
    }
    for (int h = 0; h < 2; h++) {
        for (int k = 0; k < 2; k++) {
            pairs[4 * h + 2 * k] = (words)_mm512_shuffle_i32x4(eight[0][h][k], eight[1][h][k], 0x44);
            pairs[4 * h + 2 * k + 1] = (words)_mm512_shuffle_i32x4(eight[0][h][k], eight[1][h][k], 0xee);
        }
    }
}

#include "training.h"

const graft_training_kernels *const graft_training_avx512bf16 = &avx512bf16_training;

#pragma clang attribute pop
#endif
