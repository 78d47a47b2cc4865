// What training.h needs, without the hardware's products of bfloat16: pairs are widened and multiplied as float32.
#ifndef GRAFT_TRAINING_PLAIN_H
#define GRAFT_TRAINING_PLAIN_H

#include "vectors.h"

// Round to nearest, ties to even; not a number stays that.
ALWAYS_INLINE uint16_t __attribute__((vector_size(32))) narrow(v16f v) {
    typedef uint32_t words __attribute__((vector_size(64)));
    typedef uint16_t halves __attribute__((vector_size(32)));
    words bits;
    memcpy(&bits, &v, sizeof bits);
    const words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const words is_nan = (words)((bits & 0x7fffffff) > 0x7f800000);
    return __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), halves);
}

ALWAYS_INLINE v16f dot_pair(v16f sum, uint32_t left, uint32_t __attribute__((vector_size(64))) right) {
    typedef uint32_t words __attribute__((vector_size(64)));
    const words even = right << 16, odd = right & 0xffff0000u;
    v16f low, high;
    memcpy(&low, &even, sizeof low);
    memcpy(&high, &odd, sizeof high);
    sum = fma16(low, splat(float_of_bits(left << 16)), sum);
    return fma16(high, splat(float_of_bits(left & 0xffff0000u)), sum);
}

// v [column][row], scaled and narrowed: pairs[i] holds rows 2 i and 2 i + 1 of the 16 columns.
ALWAYS_INLINE void transpose_pairs(const float (*v)[16], float scale, uint32_t __attribute__((vector_size(64))) * pairs) {
    for (int column = 0; column < 16; column++) {
        const uint16_t __attribute__((vector_size(32))) h = narrow(load16(v[column]) * splat(scale));
        for (int i = 0; i < 8; i++) pairs[i][column] = (uint32_t)h[2 * i] | (uint32_t)h[2 * i + 1] << 16;
    }
}

#endif
