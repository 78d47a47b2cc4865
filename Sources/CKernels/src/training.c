// Chooses the training kernels, and tells how their work is divided.
#include "graft_training.h"

#include <string.h>

extern const graft_training_kernels *const graft_training_generic;
#if defined(__x86_64__)
extern const graft_training_kernels *const graft_training_avx2;
extern const graft_training_kernels *const graft_training_avx512;
extern const graft_training_kernels *const graft_training_avx512bf16;
extern const graft_training_kernels *const graft_training_amx;

#include <cpuid.h>
#include <pthread.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static pthread_once_t tiles_once = PTHREAD_ONCE_INIT;
static int has_tiles;

// Linux gives a process the registers of tiles when it asks for them (Documentation/arch/x86/xstate.rst); threads inherit that. It says no where the
// processor or the system does not know them.
static void ask_for_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_STATE = 0x1023, TILE_DATA = 18, TILE_UNIT = 24, BFLOAT16_UNIT = 22 };
    unsigned a, b, c, d;
    has_tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> TILE_UNIT & 1) && (d >> BFLOAT16_UNIT & 1) && syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
#endif
}
#endif

const graft_training_kernels *graft_training_kernels_for(const graft_kernels *kernels, int32_t most) {
#if defined(__x86_64__)
    if (strcmp(kernels->name, "avx512") == 0) {
        if (most < GRAFT_BFLOAT16_VECTORS || !__builtin_cpu_supports("avx512bf16")) return graft_training_avx512;
        if (most >= GRAFT_BFLOAT16_TILES) pthread_once(&tiles_once, ask_for_tiles);
        return most >= GRAFT_BFLOAT16_TILES && has_tiles ? graft_training_amx : graft_training_avx512bf16;
    }
    if (strncmp(kernels->name, "avx2", 4) == 0) return graft_training_avx2;
#else
    (void)most;
#endif
    return graft_training_generic;
}

enum { LIBRARY_BLOCK = 384 };

// The largest: a block of tiles (bfloat16), or one for the library with one expanded panel. Our others are 32 KB.
int64_t graft_product_scratch(void) {
    const int64_t tiles = GRAFT_TILE_PLACES * GRAFT_TILE_COLUMNS * 2, library = (LIBRARY_BLOCK * GRAFT_LIBRARY_COLUMNS + LIBRARY_BLOCK * 16) * 4;
    return tiles > library ? tiles : library;
}

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
