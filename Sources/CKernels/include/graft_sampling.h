#ifndef GRAFT_SAMPLING_H
#define GRAFT_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

/// Passes over one row of logits (one float per vocabulary entry), for sampling and log-probabilities.
///
/// Every function gives the same bits at every level: the arithmetic is written for 16 lanes, lanes are folded in lane
/// order, and multiply and add are never fused. A level only says which instructions carry it out. No alignment is
/// asked for, any n >= 0 is allowed, inputs and outputs must not overlap, nothing is allocated, nothing fails.

/// Elements per group of `graft_logits_maxima` and `graft_logits_exp_sums`.
#define GRAFT_LOGITS_GROUP 1024
/// Lanes per group of `graft_logits_maxima`.
#define GRAFT_LOGITS_LANES 16

enum {
    GRAFT_LOGITS_GENERIC = 0,
    GRAFT_LOGITS_AVX2 = 1,
    GRAFT_LOGITS_AVX512 = 2,
};

/// The highest level that this processor and operating system run. `GRAFT_ISA=generic` and `GRAFT_ISA=avx2…` lower it.
int graft_logits_best_level(void);

/// maxima[g][l] = max x[i] over the i of group g with i % 16 == l; -inf where there is none.
/// maxima: [(n + 1023) / 1024][16]. NaN is skipped. Returns 1 if x holds a NaN, else 0.
int graft_logits_maxima(int level, const float *x, size_t n, float *maxima);

/// The first i with x[i] == value; n if there is none.
size_t graft_logits_index_of(int level, const float *x, size_t n, float value);

/// y[i] = exp((x[i] - top) * scale), exactly 0 below exp(-87.3); relative error below 5e-7.
/// top is finite and not below any x[i], scale is finite and > 0. A -inf gives 0.
void graft_logits_exp(int level, const float *x, size_t n, float top, float scale, float *y);

/// sums[g] = sum of exp((x[i] - top) * scale) over group g: float32 per lane, the lanes added in double in lane order.
/// sums: [(n + 1023) / 1024].
void graft_logits_exp_sums(int level, const float *x, size_t n, float top, float scale, double *sums);

/// Writes index and value of every x[i] >= cut, by rising i, and returns how many there are.
/// ids and values: [n + 16]; the entries after those counted are overwritten with unspecified values.
size_t graft_logits_collect(int level, const float *x, size_t n, float cut, int32_t *ids, float *values);

#endif
