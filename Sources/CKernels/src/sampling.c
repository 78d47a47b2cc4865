// Passes over a row of logits; graft_sampling.h is the manual. The arithmetic is in sampling_impl.h, compiled once per
// level, so that all levels agree bit for bit.
#include "graft_sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A fused multiply-add would round once where the generic level rounds twice.
#pragma STDC FP_CONTRACT OFF
// Vectors are passed only between functions that are inlined, so their calling convention does not matter.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float f32x16 __attribute__((ext_vector_type(16)));
typedef int32_t i32x16 __attribute__((ext_vector_type(16)));

#define LEVEL(name) name##_generic
#include "sampling_impl.h"
#undef LEVEL

#if defined(__x86_64__)

#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define LEVEL(name) name##_avx2
#include "sampling_impl.h"
#undef LEVEL
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#define LEVEL(name) name##_avx512
#include "sampling_impl.h"
#undef LEVEL
#pragma clang attribute pop

#define DISPATCH(name, ...)                                    \
    switch (level) {                                           \
    case GRAFT_LOGITS_AVX512: return name##_avx512(__VA_ARGS__); \
    case GRAFT_LOGITS_AVX2: return name##_avx2(__VA_ARGS__);   \
    default: return name##_generic(__VA_ARGS__);               \
    }

static int processor_level(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return GRAFT_LOGITS_AVX512;
    return __builtin_cpu_supports("avx2") ? GRAFT_LOGITS_AVX2 : GRAFT_LOGITS_GENERIC;
}

#else

#define DISPATCH(name, ...)                    \
    (void)level;                               \
    return name##_generic(__VA_ARGS__);

static int processor_level(void) { return GRAFT_LOGITS_GENERIC; }

#endif

int graft_logits_best_level(void) {
    int level = processor_level();
    const char *forced = getenv("GRAFT_ISA");
    if (!forced) return level;
    if (strcmp(forced, "generic") == 0) return GRAFT_LOGITS_GENERIC;
    if (strncmp(forced, "avx2", 4) == 0 && level > GRAFT_LOGITS_AVX2) return GRAFT_LOGITS_AVX2;
    return level;
}

int graft_logits_maxima(int level, const float *x, size_t n, float *maxima) {
    DISPATCH(maxima, x, n, maxima)
}

size_t graft_logits_index_of(int level, const float *x, size_t n, float value) {
    DISPATCH(index_of, x, n, value)
}

void graft_logits_exp(int level, const float *x, size_t n, float top, float scale, float *y) {
    DISPATCH(exponentials, x, n, top, scale, y)
}

void graft_logits_exp_sums(int level, const float *x, size_t n, float top, float scale, double *sums) {
    DISPATCH(exp_sums, x, n, top, scale, sums)
}

size_t graft_logits_collect(int level, const float *x, size_t n, float cut, int32_t *ids, float *values) {
    DISPATCH(collect, x, n, cut, ids, values)
}
