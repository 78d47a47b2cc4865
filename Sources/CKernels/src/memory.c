// Reading memory as fast as it comes: what bounds a product that uses each weight once.
#include "graft_kernels.h"

typedef uint64_t lanes __attribute__((vector_size(64)));

void graft_read_memory(void *context, size_t begin, size_t end, int thread) {
    graft_memory_reading *reading = context;
    const lanes *from = (const lanes *)(reading->base + begin * GRAFT_READING_BYTES), *to = (const lanes *)(reading->base + end * GRAFT_READING_BYTES);
    // Several sums, so that none waits for another.
    lanes sums[4] = {};
    for (; from < to; from += 4)
        for (int i = 0; i < 4; i++) sums[i] ^= from[i];
    const lanes sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    // Kept, or the compiler would read nothing.
    reading->sums[thread & 255] ^= sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}
