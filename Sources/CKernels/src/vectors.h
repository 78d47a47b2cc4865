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

ALWAYS_INLINE v16f max16(v16f a, v16f b) { return __builtin_elementwise_max(a, b); }

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
    const v8f eight = __builtin_elementwise_max(LOW_HALF8(v), HIGH_HALF8(v));
    const v4f four = __builtin_elementwise_max(LOW_HALF4(eight), HIGH_HALF4(eight));
    const float a = four[0] > four[2] ? four[0] : four[2], b = four[1] > four[3] ? four[1] : four[3];
    return a > b ? a : b;
}

// eˣ, relative error below 2e-7; 0 below -87.3 (so that masked keys weigh nothing), capped above 88.
// x = n ln 2 + r with |r| ≤ ln 2 / 2; a degree-6 polynomial in r, scaled by 2ⁿ.
ALWAYS_INLINE v16f exp16(v16f x) {
    const v16f shift = splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to an integer
    v16i tiny = x < splat(-87.3f);
    x = max16(__builtin_elementwise_min(x, splat(88.0f)), splat(-87.3f));
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

ALWAYS_INLINE float exp1(float x) { return exp16(splat(x))[0]; }

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
