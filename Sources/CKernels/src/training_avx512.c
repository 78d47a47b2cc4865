// Training kernels in AVX-512, for processors that do not multiply bfloat16.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)

#define VARIANT avx512
#define VARIANT_NAME "avx512"
#define MULTIPLIES_BFLOAT16 0
#define MULTIPLIES_FLOAT32 1
#define MICRO_ROWS 6
#define MICRO_VECTORS 4

#include "training_plain.h"

#include "training.h"

const graft_training_kernels *const graft_training_avx512 = &avx512_training;

#pragma clang attribute pop
#endif
