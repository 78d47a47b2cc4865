// Vectors of 16 floats and what the variants of the kernels compute with them, written once in clang's vector extension: it compiles to 512-bit,
// 256-bit or scalar code with the same operations in the same order. Included by a variant's source file, which defines VARIANT, a name prefix.
#ifndef GRAFT_VECTORS_H
#define GRAFT_VECTORS_H

#include "panels.h"

// Vectors wider than the target's registers are split by the compiler; nothing here crosses a call that is not inlined.
#pragma clang diagnostic ignored "-Wpsabi"

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(VARIANT, x)

#include <math.h>

typedef float v16f __attribute__((vector_size(64)));
typedef float v8f __attribute__((vector_size(32)));
typedef float v4f __attribute__((vector_size(16)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef uint32_t v16u32 __attribute__((vector_size(64)));
typedef int8_t v16b __attribute__((vector_size(16)));
typedef uint8_t v16u __attribute__((vector_size(16)));

ALWAYS_INLINE v16f load16(const float *p) {
    v16f v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE void store16(float *p, v16f v) { memcpy(p, &v, sizeof v); }

ALWAYS_INLINE v16f splat(float x) { return (v16f){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

ALWAYS_INLINE v16f fma16(v16f a, v16f b, v16f c) { return __builtin_elementwise_fma(a, b, c); }

// a > b ? a : b, which is one instruction; the compiler's own maximum takes four to look for numbers that are none.
ALWAYS_INLINE v16f max16(v16f a, v16f b) {
    const v16i more = a > b;
    return (v16f)(((v16i)a & more) | ((v16i)b & ~more));
}
ALWAYS_INLINE v16f min16(v16f a, v16f b) {
    const v16i less = a < b;
    return (v16f)(((v16i)a & less) | ((v16i)b & ~less));
}

// Lanes are added as a fixed tree: i with i + 8, then i + 4, i + 2, i + 1.
#define LOW_HALF8(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define HIGH_HALF8(v) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#define LOW_HALF4(v) __builtin_shufflevector(v, v, 0, 1, 2, 3)
#define HIGH_HALF4(v) __builtin_shufflevector(v, v, 4, 5, 6, 7)
ALWAYS_INLINE float sum_lanes(v16f v) {
    const v8f eight = LOW_HALF8(v) + HIGH_HALF8(v);
    const v4f four = LOW_HALF4(eight) + HIGH_HALF4(eight);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

ALWAYS_INLINE float max_lanes(v16f v) {
    v = max16(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    v = max16(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7));
    const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
}

// The highest and the sum of each of four vectors, in the four lanes of its place: pairs join as in sum_lanes.
#define PLACED_LOW8(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define PLACED_HIGH8(a, b) __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define PLACED_LOW4(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define PLACED_HIGH4(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#define SWAPPED2(v) __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define SWAPPED1(v) __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
ALWAYS_INLINE v16f max_of_four(v16f a, v16f b, v16f c, v16f d) {
    const v16f ab = max16(PLACED_LOW8(a, b), PLACED_HIGH8(a, b)), cd = max16(PLACED_LOW8(c, d), PLACED_HIGH8(c, d));
    const v16f four = max16(PLACED_LOW4(ab, cd), PLACED_HIGH4(ab, cd)), two = max16(four, SWAPPED2(four));
    return max16(two, SWAPPED1(two));
}
ALWAYS_INLINE v16f sum_of_four(v16f a, v16f b, v16f c, v16f d) {
    const v16f ab = PLACED_LOW8(a, b) + PLACED_HIGH8(a, b), cd = PLACED_LOW8(c, d) + PLACED_HIGH8(c, d);
    const v16f four = PLACED_LOW4(ab, cd) + PLACED_HIGH4(ab, cd), two = four + SWAPPED2(four);
    return two + SWAPPED1(two);
}

ALWAYS_INLINE v16i integer_sum_of_four(v16i a, v16i b, v16i c, v16i d) {
    const v16i ab = PLACED_LOW8(a, b) + PLACED_HIGH8(a, b), cd = PLACED_LOW8(c, d) + PLACED_HIGH8(c, d);
    const v16i four = PLACED_LOW4(ab, cd) + PLACED_HIGH4(ab, cd), two = four + SWAPPED2(four);
    return two + SWAPPED1(two);
}
// The four lanes of place i, four times.
#define QUARTER(v, i) \
    __builtin_shufflevector(v, v, 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3, 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3, 4 * (i), 4 * (i) + 1, \
                            4 * (i) + 2, 4 * (i) + 3, 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3)

// 2ˣ for x ≤ 0, relative error below 2e-7, 2⁰ = 1; 0 below -126 (so that masked keys weigh nothing).
// x = n + r with |r| ≤ ½; a polynomial of degree 5 in r, fitted to the least relative error, scaled by 2ⁿ.
ALWAYS_INLINE v16f power_of_two(v16f x) {
    const v16f shift = splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to an integer, whose low bits it then ends with
    const v16f shifted = x + shift, r = x - (shifted - shift);
    v16f p = fma16(r, splat(0x1.5bba14p-10f), splat(0x1.3cea88p-7f));
    p = fma16(p, r, splat(0x1.c6b752p-5f));
    p = fma16(p, r, splat(0x1.ebf9bcp-3f));
    p = fma16(p, r, splat(0x1.62e42ap-1f));
    p = fma16(p, r, splat(1.0f));
    const v16i tiny = x < splat(-126.0f);
    return (v16f)(((v16u32)p + ((v16u32)shifted << 23)) & ~(v16u32)tiny);
}

#define LOG2_E 0x1.715476p+0f

// eˣ, relative error below 2e-7; 0 below -87.3 (so that masked keys weigh nothing), capped above 88.
// x = n ln 2 + r with |r| ≤ ln 2 / 2; a degree-6 polynomial in r, scaled by 2ⁿ.
ALWAYS_INLINE v16f exp16(v16f x) {
    const v16f shift = splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to an integer
    v16i tiny = x < splat(-87.3f);
    x = max16(min16(x, splat(88.0f)), splat(-87.3f));
    v16f n = fma16(x, splat(0x1.715476p+0f), shift) - shift;
    v16f r = fma16(n, splat(-0x1.62e400p-1f), x);
    r = fma16(n, splat(-0x1.7f7d1cp-20f), r);
    v16f p = fma16(r, splat(0x1.6c16c2p-10f), splat(0x1.111112p-7f));
    p = fma16(p, r, splat(0x1.555556p-5f));
    p = fma16(p, r, splat(0x1.555556p-3f));
    p = fma16(p, r, splat(0.5f));
    p = fma16(p, r, splat(1.0f));
    p = fma16(p, r, splat(1.0f));
    v16i bits;
    memcpy(&bits, &p, sizeof p);
    bits += __builtin_convertvector(n, v16i) << 23;
    bits &= ~tiny;
    memcpy(&p, &bits, sizeof p);
    return p;
}

// silu(x) = x / (1 + e⁻ˣ); gelu(x) ≈ x / (1 + e⁻²ᵘ), u = √(2/π) (x + 0.044715 x³), which is the tanh form.
ALWAYS_INLINE v16f activate(const int activation, v16f x) {
    v16f z = -x;
    if (activation == GRAFT_GELU_TANH) {
        v16f cubic = fma16(x * x * x, splat(0.044715f), x);
        z = cubic * splat(-1.5957691216057308f);
    }
    return x / (splat(1.0f) + exp16(z));
}

#endif
