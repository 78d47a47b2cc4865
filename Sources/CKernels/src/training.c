// Chooses the training kernels, and tells how their work is divided.
#include "graft_training.h"

#include <string.h>

extern const graft_training_kernels *const graft_training_generic;
#if defined(__x86_64__)
extern const graft_training_kernels *const graft_training_avx2;
extern const graft_training_kernels *const graft_training_avx512;
extern const graft_training_kernels *const graft_training_avx512bf16;
#endif

const graft_training_kernels *graft_training_kernels_for(const graft_kernels *kernels, int without_bfloat16) {
#if defined(__x86_64__)
    if (strcmp(kernels->name, "avx512") == 0)
        return __builtin_cpu_supports("avx512bf16") && !without_bfloat16 ? graft_training_avx512bf16 : graft_training_avx512;
    if (strncmp(kernels->name, "avx2", 4) == 0) return graft_training_avx2;
#else
    (void)without_bfloat16;
#endif
    return graft_training_generic;
}

enum { LIBRARY_BLOCK = 384 };

// The largest: a block for the library with one expanded panel. Our own are 32 KB.
int64_t graft_product_scratch(void) { return (LIBRARY_BLOCK * GRAFT_LIBRARY_COLUMNS + LIBRARY_BLOCK * 16) * 4; }

int64_t graft_product_items(const graft_product *p) {
    return (p->columns + p->column_block - 1) / p->column_block * ((p->rows + p->row_block - 1) / p->row_block);
}

double graft_product_item_work(const graft_product *p) {
    double places = 0;
    for (int i = 0; i < p->term_count; i++) places += (double)p->terms[i].k;
    const int64_t columns = p->columns < p->column_block ? p->columns : p->column_block, rows = p->rows < p->row_block ? p->rows : p->row_block;
    return places * (double)columns * (double)rows;
}

int64_t graft_train_attention_scratch(int64_t longest, int32_t head_dim) {
    const int64_t keys = (longest + 15) / 16 * 16 + 16;
    const int64_t forward = 64 * (keys + head_dim), backward = 64 * 2 * keys;
    return ((forward > backward ? forward : backward) * 4 + 63) / 64 * 64;
}
