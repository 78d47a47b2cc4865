// What training.h needs, with AVX-512's products of bfloat16.
#ifndef GRAFT_TRAINING_BFLOAT16_H
#define GRAFT_TRAINING_BFLOAT16_H

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

#endif
