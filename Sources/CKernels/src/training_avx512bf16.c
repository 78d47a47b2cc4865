// Training kernels in AVX-512 with BF16: vdpbf16ps multiplies 32 pairs of bfloat16 and adds them to 16 float32 sums.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c"))), apply_to = function)

#define VARIANT avx512bf16
#define VARIANT_NAME "avx512bf16"
#define MULTIPLIES_BFLOAT16 1
#define MULTIPLIES_FLOAT32 1
#define MICRO_ROWS 6
#define MICRO_VECTORS 4

#include "training_bfloat16.h"

#include "training.h"

const graft_training_kernels *const graft_training_avx512bf16 = &avx512bf16_training;

#pragma clang attribute pop
#endif
