// Training kernels in AVX2.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define VARIANT avx2
#define VARIANT_NAME "avx2"
#define MULTIPLIES_BFLOAT16 0
#define MULTIPLIES_FLOAT32 0
#define MICRO_ROWS 2
#define MICRO_VECTORS 2

#include "training_plain.h"

#include "training.h"

const graft_training_kernels *const graft_training_avx2 = &avx2_training;

#pragma clang attribute pop
#endif
