#include "graft_openblas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*cblas_sgemm_function)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                                     int ldb, float beta, float *c, int ldc);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cblas_sgemm_function cblas;
static char failure[256];
static const char *core = "";

static void load(void) {
    static const char *const cleared[] = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_VERBOSE", "OPENBLAS_MAIN_FREE", "OPENBLAS_DEFAULT_NUM_THREADS",
                                          "GOTOBLAS_MAIN_FREE", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"};
    for (unsigned i = 0; i < sizeof cleared / sizeof *cleared; i++) unsetenv(cleared[i]);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(failure, sizeof failure, "%s", dlerror());
        return;
    }
    cblas = (cblas_sgemm_function)dlsym(library, "cblas_sgemm");
    void (*set_threads)(int) = (void (*)(int))dlsym(library, "openblas_set_num_threads");
    char *(*get_core)(void) = (char *(*)(void))dlsym(library, "openblas_get_corename");
    if (!cblas || !set_threads) {
        cblas = NULL;
        snprintf(failure, sizeof failure, "libopenblas.so.0 has no cblas_sgemm or openblas_set_num_threads");
        return;
    }
    set_threads(1);
    if (get_core) core = get_core();
}

static void sgemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                  float beta, float *c, int64_t ldc) {
    enum { row_major = 101, plain = 111, transposed = 112 };
    cblas(row_major, transpose_a ? transposed : plain, transpose_b ? transposed : plain, (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c,
          (int)ldc);
}

graft_openblas_function graft_openblas_sgemm(void) {
    pthread_once(&once, load);
    return cblas ? sgemm : NULL;
}

const char *graft_openblas_failure(void) {
    pthread_once(&once, load);
    return failure;
}

const char *graft_openblas_core(void) {
    pthread_once(&once, load);
    return core;
}
