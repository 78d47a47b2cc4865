// Training kernels in AVX-512 with the matrix unit of Intel's server processors (AMX): a tile is 16 rows of 64 bytes, and tdpbf16ps multiplies 16 rows of
// 32 numbers of bfloat16 with 16 columns of them.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c,amx-tile,amx-bf16"))), apply_to = function)

#define VARIANT amx
#define VARIANT_NAME "amx"
#define MULTIPLIES_BFLOAT16 1
#define MULTIPLIES_FLOAT32 1
#define MULTIPLIES_TILES 1
#define MICRO_ROWS 6
#define MICRO_VECTORS 4

#include "training_bfloat16.h"

#include "training.h"

const graft_training_kernels *const graft_training_amx = &amx_training;

#pragma clang attribute pop
#endif
