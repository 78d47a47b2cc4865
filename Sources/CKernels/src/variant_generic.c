// The generic twin: plain C, any machine. It does the same integer arithmetic and the same float operations in the same order as
// the fast variants, so tests compare bits.
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <math.h>

#define VARIANT generic
#define VARIANT_NAME "generic"
#define TILE_TOKENS 1

#pragma clang diagnostic ignored "-Wpsabi"
typedef float half_lanes __attribute__((vector_size(64)));
typedef int32_t int_lanes __attribute__((vector_size(64)));

ALWAYS_INLINE half_lanes load_half16(const uint16_t *p) {
    half_lanes v;
    for (int i = 0; i < 16; i++) v[i] = half_to_float(p[i]);
    return v;
}

ALWAYS_INLINE void store_half16(uint16_t *p, half_lanes v) {
    for (int i = 0; i < 16; i++) p[i] = float_to_half(v[i]);
}

static void generic_store_result(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, const float *sum);
static void generic_add_low_rank(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int count, int64_t token, int tokens, float *sums);

static int_lanes generic_low_rank_start(int32_t sum) { return (int_lanes){} - 128 * sum; }

static int_lanes generic_low_rank_dot(int_lanes dot, int_lanes line, const uint8_t *q) {
    uint8_t u[64];
    memcpy(u, &line, sizeof u);
    for (int r = 0; r < GRAFT_PANEL_ROWS; r++)
        for (int j = 0; j < 4; j++) dot[r] += u[4 * r + j] * ((const int8_t *)q)[j];
    return dot;
}

static int32_t block_dot(const graft_panels *w, const uint8_t *data, int r, const int8_t *q, int64_t begin, int64_t end) {
    int32_t dot = 0;
    for (int64_t k = begin; k < end; k++) dot += (panel_quant(w, data, r, k) - w->zero) * q[k];
    return dot;
}

static void generic_tile(const int kind, const graft_matmul *m, const graft_matmul_part *part, int64_t panel, const int count, int64_t token,
                         const int tokens, tile_ahead *ahead, int64_t fetch, int64_t fetches) {
    (void)tokens, (void)ahead, (void)fetch, (void)fetches;
    const graft_panels *w = &part->weights;
    const graft_activation_layout a = graft_activation_layout_for(w->cols);
    const uint8_t *x = (const uint8_t *)m->x + token * m->x_stride;
    const int size = panel_sub_block(kind);
    for (int p = 0; p < count; p++) {
        const uint8_t *data = w->data + (panel + p) * w->panel_bytes;
        float sum[GRAFT_PANEL_ROWS] = {};
        for (int64_t b = 0; b < w->cols / size; b++) {
            const float d = ((const float *)(x + a.d))[b * size / GRAFT_BLOCK], ds = ((const float *)(x + (size == 16 ? a.ds16 : a.ds32)))[b];
            for (int r = 0; r < GRAFT_PANEL_ROWS; r++) {
                float scale, offset;
                panel_scale(w, data, r, b * size, &scale, &offset);
                sum[r] = fmaf((float)block_dot(w, data, r, (const int8_t *)x, b * size, (b + 1) * size), scale * d, sum[r]);
                if (panel_has_min(kind)) sum[r] = fmaf(offset, ds, sum[r]);
            }
        }
        if (has_low_rank(m, part)) generic_add_low_rank(m, part, panel + p, 1, token, 1, sum);
        generic_store_result(m, part, panel + p, token, sum);
    }
}

static void generic_panel_dots(const graft_panels *w, int64_t panel, const uint8_t *row, int32_t *dots) {
    const int size = panel_sub_block(w->kind);
    for (int64_t b = 0; b < w->cols / size; b++)
        for (int r = 0; r < GRAFT_PANEL_ROWS; r++)
            dots[b * 16 + r] = block_dot(w, w->data + panel * w->panel_bytes, r, (const int8_t *)row, b * size, (b + 1) * size);
}

#include "variant.h"

static void generic_store_result(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, const float *sum) {
    store_panel_result(m, part, panel, token, load16(sum));
}

const graft_kernels *const graft_variant_generic = &generic_kernels;

// ---------------------------------------------------------------------------------------------------------------- choice

#if defined(__x86_64__)
extern const graft_kernels *const graft_variant_avx512, *const graft_variant_avx2vnni, *const graft_variant_avx2;
#include <cpuid.h>

// __builtin_cpu_supports also asks whether the operating system saves the registers; it does not know AVX-VNNI by every compiler.
static int has_avx_vnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

const graft_kernels *graft_kernels_available(int i) {
    const graft_kernels *found[4];
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
        found[n++] = graft_variant_avx512;
    if (avx2 && has_avx_vnni()) found[n++] = graft_variant_avx2vnni;
    if (avx2) found[n++] = graft_variant_avx2;
#endif
    found[n++] = graft_variant_generic;
    return i >= 0 && i < n ? found[i] : NULL;
}

const graft_kernels *graft_kernels_select(const char *forced) {
    if (!forced || !*forced) return graft_kernels_available(0);
    const graft_kernels *variant;
    for (int i = 0; (variant = graft_kernels_available(i)); i++)
        if (strcmp(variant->name, forced) == 0) return variant;
    return NULL;
}

int64_t graft_attention_tile_tokens(const graft_attention *a) {
    const int64_t tokens = GRAFT_ATTENTION_ROWS / (a->heads / a->layout.kv_heads);
    return tokens > 0 ? tokens : 1;
}

int64_t graft_attention_items(const graft_attention *a, const graft_attention_run *run) {
    const int64_t tile = graft_attention_tile_tokens(a), kv_heads = a->layout.kv_heads;
    return run->partials ? kv_heads * spans_of(a, run->position, run->count).count : (run->count + tile - 1) / tile * kv_heads;
}

int64_t graft_attention_partial_bytes(const graft_attention *a, const graft_attention_run *run) {
    const int64_t spans = spans_of(a, run->position, run->count).count, kv_heads = a->layout.kv_heads;
    if (run->count > graft_attention_tile_tokens(a) || spans < 2) return 0;
    const int64_t rows = run->count * (a->heads / kv_heads);
    return kv_heads * (PARTIAL_HEAD + spans * rows * (a->layout.head_dim + PARTIAL_HEAD)) * (int64_t)sizeof(float);
}

void graft_attention_share(const graft_attention *a, graft_attention_run *run, void *memory) {
    run->partials = memory;
    // The counters of spans that are done.
    memset(memory, 0, (size_t)a->layout.kv_heads * PARTIAL_HEAD * sizeof(float));
}
