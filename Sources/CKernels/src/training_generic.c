// The generic training kernels: plain C, any machine.
#pragma STDC FP_CONTRACT OFF
#include "panels.h"


#define VARIANT generic
#define VARIANT_NAME "generic"
#define MULTIPLIES_BFLOAT16 0
#define MULTIPLIES_FLOAT32 0
#define MICRO_ROWS 2
#define MICRO_VECTORS 2

#include "training_plain.h"

#include "training.h"

const graft_training_kernels *const graft_training_generic = &generic_training;

