// The compute pool. A job is published as one 64-bit word, generation << 32 | next item: a worker that claims a chunk by
// compare-and-swap thereby proves that the job it read is still the current one, so a late riser can never touch a finished job's
// context. Workers spin for about 20 µs after a job (the next phase of a step follows at once), then sleep on a futex: with more
// threads than free cores, spinning longer costs far more than it gains (llama.cpp's pull request 13079 measured a factor of 80).
#define _GNU_SOURCE
#include "panels.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NANOSECONDS = 20000 };

struct graft_pool {
    _Alignas(64) _Atomic uint64_t ticket;  // generation << 32 | next unclaimed item
    _Alignas(64) _Atomic uint32_t generation;
    _Atomic uint32_t sleepers;
    _Alignas(64) _Atomic uint32_t remaining;
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic(graft_job) job;
    _Atomic(void *) context;
    _Atomic uint32_t count, grain;
    _Atomic int stopping;
    int threads;
    pthread_t *handles;
};

typedef struct {
    graft_pool *pool;
    int index;
} worker_argument;

static void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// A thread takes its share of half of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987): long runs of items at first, at the end short
// ones, after which no thread waits long for another.
static uint32_t chunk(uint32_t left, uint32_t grain, int threads) {
    const uint32_t share = left / (2 * (uint32_t)threads) / grain * grain;
    return share > grain ? share : grain;
}

// Claims and runs chunks of generation `generation` until none is left.
static void work(graft_pool *pool, uint32_t generation, int thread) {
    for (;;) {
        uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
        if ((uint32_t)(ticket >> 32) != generation) return;
        graft_job job = atomic_load_explicit(&pool->job, memory_order_acquire);
        void *context = atomic_load_explicit(&pool->context, memory_order_acquire);
        uint32_t count = atomic_load_explicit(&pool->count, memory_order_acquire);
        uint32_t grain = atomic_load_explicit(&pool->grain, memory_order_acquire);
        uint32_t begin = (uint32_t)ticket;
        if (begin >= count) return;
        const uint32_t size = chunk(count - begin, grain, pool->threads);
        uint32_t end = count - begin < size ? count : begin + size;
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, (uint64_t)generation << 32 | end, memory_order_acq_rel,
                                                   memory_order_relaxed))
            continue;
        job(context, begin, end, thread);
        if (atomic_fetch_sub_explicit(&pool->remaining, end - begin, memory_order_seq_cst) == end - begin &&
            atomic_load_explicit(&pool->caller_sleeps, memory_order_seq_cst))
            futex_wake(&pool->remaining, 1);
    }
}

static void *worker(void *argument) {
    graft_pool *pool = ((worker_argument *)argument)->pool;
    int index = ((worker_argument *)argument)->index;
    free(argument);
    uint32_t seen = 0;
    for (;;) {
        uint32_t generation;
        uint64_t deadline = 0;
        for (int spins = 0; (generation = atomic_load_explicit(&pool->generation, memory_order_acquire)) == seen; spins++) {
            if (spins < 64) {
                relax();
                continue;
            }
            spins = 0;
            uint64_t time = now();
            if (deadline == 0) deadline = time + SPIN_NANOSECONDS;
            if (time < deadline) continue;
            atomic_fetch_add_explicit(&pool->sleepers, 1, memory_order_seq_cst);
            futex_wait(&pool->generation, seen);
            atomic_fetch_sub_explicit(&pool->sleepers, 1, memory_order_relaxed);
            deadline = 0;
        }
        seen = generation;
        if (atomic_load_explicit(&pool->stopping, memory_order_acquire)) return NULL;
        work(pool, generation, index);
    }
}

graft_pool *graft_pool_create(int threads) {
    graft_pool *pool = aligned_alloc(64, (sizeof(graft_pool) + 63) / 64 * 64);
    if (!pool) return NULL;
    *pool = (graft_pool){.threads = 1};
    pool->handles = calloc((size_t)threads, sizeof(pthread_t));
    if (!pool->handles) {
        free(pool);
        return NULL;
    }
    for (int i = 1; i < threads; i++) {
        worker_argument *argument = malloc(sizeof *argument);
        if (!argument) {
            graft_pool_destroy(pool);
            return NULL;
        }
        *argument = (worker_argument){pool, i};
        if (pthread_create(&pool->handles[i], NULL, worker, argument) != 0) {
            free(argument);
            graft_pool_destroy(pool);
            return NULL;
        }
        pthread_setname_np(pool->handles[i], "graft-compute");
        pool->threads = i + 1;
    }
    return pool;
}

// Announces a new generation and wakes whoever sleeps.
static uint32_t announce(graft_pool *pool) {
    uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_relaxed) + 1;
    atomic_store_explicit(&pool->generation, generation, memory_order_seq_cst);
    if (atomic_load_explicit(&pool->sleepers, memory_order_seq_cst)) futex_wake(&pool->generation, pool->threads);
    return generation;
}

void graft_pool_destroy(graft_pool *pool) {
    if (!pool) return;
    atomic_store_explicit(&pool->stopping, 1, memory_order_release);
    announce(pool);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->handles[i], NULL);
    free(pool->handles);
    free(pool);
}

int graft_pool_threads(const graft_pool *pool) { return pool->threads; }

int graft_processor_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

void graft_pool_run(graft_pool *pool, graft_job job, void *context, size_t count, size_t grain) {
    if (count == 0) return;
    if (pool->threads == 1 || count <= grain) {
        job(context, 0, count, 0);
        return;
    }
    uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_relaxed) + 1;
    // Nobody can claim while the fields change: the old ticket must not be paired with the new job.
    atomic_store_explicit(&pool->ticket, (uint64_t)generation << 32 | UINT32_MAX, memory_order_seq_cst);
    atomic_store_explicit(&pool->job, job, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->count, (uint32_t)count, memory_order_release);
    atomic_store_explicit(&pool->grain, (uint32_t)grain, memory_order_release);
    atomic_store_explicit(&pool->remaining, (uint32_t)count, memory_order_relaxed);
    atomic_store_explicit(&pool->ticket, (uint64_t)generation << 32, memory_order_release);
    announce(pool);
    work(pool, generation, 0);
    uint64_t deadline = 0;
    uint32_t left;
    for (int spins = 0; (left = atomic_load_explicit(&pool->remaining, memory_order_acquire)) != 0; spins++) {
        if (spins < 64) {
            relax();
            continue;
        }
        spins = 0;
        uint64_t time = now();
        if (deadline == 0) deadline = time + SPIN_NANOSECONDS;
        if (time < deadline) continue;
        atomic_store_explicit(&pool->caller_sleeps, 1, memory_order_seq_cst);
        left = atomic_load_explicit(&pool->remaining, memory_order_seq_cst);
        if (left != 0) futex_wait(&pool->remaining, left);
        atomic_store_explicit(&pool->caller_sleeps, 0, memory_order_relaxed);
    }
}
