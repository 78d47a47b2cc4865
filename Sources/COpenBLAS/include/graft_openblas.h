// OpenBLAS, opened at run time.
//
// It is not linked, because its kernels are chosen while it is loaded, from environment variables that people set for other programs: they are
// cleared first. Its own threads are not used either: Graft's pool calls it from each of its threads, one small product at a time.
#ifndef GRAFT_OPENBLAS_H
#define GRAFT_OPENBLAS_H

#include <stdint.h>

// C [m][ldc] = alpha · op(A) op(B) + beta · C, row-major; op(A) is m × k, op(B) is k × n; transposed ones are stored the other way round.
typedef void (*graft_openblas_function)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                            int64_t ldb, float beta, float *c, int64_t ldc);

// Opens the library at the first call. NULL if it cannot be; `graft_openblas_failure` says why.
graft_openblas_function graft_openblas_sgemm(void);
const char *graft_openblas_failure(void);
// The kernels that it chose (`openblas_get_corename`); "" if it is not there.
const char *graft_openblas_core(void);

#endif
