// AVX-512 with VNNI: 16 rows are the 16 lanes of a register, vpdpbusd multiplies unsigned weights with signed activations.
#if defined(__x86_64__)
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), apply_to = function)

#define VARIANT avx512
#define VARIANT_NAME "avx512"
#define TILE_TOKENS 6
#define SCORE_ROWS 8
// Of many rows, so many at once are what weights are expanded for.
#define SLAB_TOKENS 128

#pragma clang diagnostic ignored "-Wpsabi"
typedef float half_lanes __attribute__((vector_size(64)));
typedef int32_t int_lanes __attribute__((vector_size(64)));

ALWAYS_INLINE half_lanes load_half16(const uint16_t *p) { return (half_lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

ALWAYS_INLINE void store_half16(uint16_t *p, half_lanes v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static void store_result_avx512(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, __m512 sum);
static void avx512_add_low_rank(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int count, int64_t token, int tokens, float *sums);

ALWAYS_INLINE __m512i broadcast4(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

// Σ (u - 128) q over an adapter's B, four columns of 16 rows at a time; the start takes Σ q.
ALWAYS_INLINE int_lanes avx512_low_rank_start(int32_t sum) { return (int_lanes)_mm512_set1_epi32(-128 * sum); }
ALWAYS_INLINE int_lanes avx512_low_rank_dot(int_lanes dot, int_lanes line, const uint8_t *q) {
    return (int_lanes)_mm512_dpbusd_epi32((__m512i)dot, (__m512i)line, broadcast4(q));
}

// Scale and (negated where the format subtracts it) minimum of 16 rows for the block or sub-block `sub`.
ALWAYS_INLINE void scales_avx512(const int kind, const graft_panels *w, const uint8_t *panel, int64_t sub, __m512 *scale, __m512 *offset) {
    if (!panel_is_k(kind)) {
        *scale = (__m512)load_half16((const uint16_t *)(panel + w->scale) + sub * 16);
        if (panel_has_min(kind)) *offset = (__m512)load_half16((const uint16_t *)(panel + w->minimum) + sub * 16);
        return;
    }
    const int64_t super = sub / (GRAFT_SUPERBLOCK / panel_sub_block(kind));
    const __m128i s = _mm_load_si128((const __m128i *)(panel + w->sub_scale + sub * 16));
    const __m512i wide = kind == GRAFT_PANEL_W8_K16 ? _mm512_cvtepi8_epi32(s) : _mm512_cvtepu8_epi32(s);
    *scale = _mm512_mul_ps((__m512)load_half16((const uint16_t *)(panel + w->scale) + super * 16), _mm512_cvtepi32_ps(wide));
    if (panel_has_min(kind)) {
        const __m512i m = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(panel + w->sub_min + sub * 16)));
        const __m512 product = _mm512_mul_ps((__m512)load_half16((const uint16_t *)(panel + w->minimum) + super * 16), _mm512_cvtepi32_ps(m));
        *offset = (__m512)_mm512_xor_si512((__m512i)product, _mm512_set1_epi32((int)0x80000000));
    }
}

// `tokens` rows against `count` panels: the sums of a block stay integers in registers, then join the float sums with one fused
// multiply-add (two with a minimum).
//
// The tile fetches share `fetch` of `fetches` of the panels that come next: a panel is too short for the hardware to find its streams.
ALWAYS_INLINE void avx512_tile(const int kind, const graft_matmul *m, const graft_matmul_part *part, int64_t panel, const int count, int64_t token,
                               const int tokens, tile_ahead *ahead, int64_t fetch, int64_t fetches) {
    const graft_panels *w = &part->weights;
    const graft_activation_layout a = graft_activation_layout_for(w->cols);
    const uint8_t *data[2], *x[TILE_TOKENS];
    for (int p = 0; p < count; p++) data[p] = w->data + (panel + p) * w->panel_bytes;
    for (int t = 0; t < tokens; t++) x[t] = (const uint8_t *)m->x + (token + t) * m->x_stride;
    const uint8_t *next = ahead->panels ? ahead->panels : data[0];
    const int64_t scale_lines = w->quants / 64;
    for (int p = 0; p < count; p++)
        for (int64_t line = scale_lines * fetch / fetches; line < scale_lines * (fetch + 1) / fetches; line++)
            __builtin_prefetch(next + p * w->panel_bytes + 64 * line);
    const int64_t blocks = w->cols / GRAFT_BLOCK, block_bytes = panel_is_w4(kind) ? 256 : 512;
    int64_t fetched = blocks * fetch, due = 0;
    __m512 sum[2][TILE_TOKENS];
    for (int p = 0; p < count; p++)
        for (int t = 0; t < tokens; t++) sum[p][t] = _mm512_setzero_ps();
    const int halves = panel_is_k16(kind) ? 2 : 1;
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t b = 0; b < blocks; b++) {
        // Block (blocks · fetch + b) / fetches of the next panels, as soon as that is a new one.
        if (due-- == 0) {
            due = fetches - 1;
            for (int p = 0; p < count; p++)
                for (int64_t line = 0; line < block_bytes; line += 64)
                    __builtin_prefetch(next + p * w->panel_bytes + w->quants + fetched / fetches * block_bytes + line);
        }
        fetched++;
        low_rank_fetch_lines(&ahead->low_rank, ahead->low_rank.pace);
        for (int h = 0; h < halves; h++) {
            __m512i dot[2][TILE_TOKENS];
            for (int t = 0; t < tokens; t++) {
                const int32_t *s = (const int32_t *)(x[t] + (halves == 2 ? a.s16 : a.s32)) + b * halves + h;
                const __m512i start = panel_has_min(kind) ? _mm512_setzero_si512() : _mm512_set1_epi32(-w->zero * *s);
                for (int p = 0; p < count; p++) dot[p][t] = start;
            }
            if (panel_is_w4(kind)) {
                for (int g = 0; g < 4; g++) {
                    __m512i even[2], odd[2];
                    for (int p = 0; p < count; p++) {
                        const uint8_t *line = data[p] + w->quants + b * 256 + g * 64;
                        const __m512i pair = _mm512_load_si512(line);
                        even[p] = _mm512_and_si512(pair, low);
                        odd[p] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
                    }
                    for (int t = 0; t < tokens; t++) {
                        const __m512i q0 = broadcast4(x[t] + b * 32 + g * 8), q1 = broadcast4(x[t] + b * 32 + g * 8 + 4);
                        for (int p = 0; p < count; p++) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], even[p], q0);
                        for (int p = 0; p < count; p++) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], odd[p], q1);
                    }
                }
            } else {
                for (int g = h * 4; g < (halves == 2 ? h * 4 + 4 : 8); g++) {
                    __m512i u[2];
                    for (int p = 0; p < count; p++) {
                        const uint8_t *line = data[p] + w->quants + b * 512 + g * 64;
                        u[p] = _mm512_load_si512(line);
                    }
                    for (int t = 0; t < tokens; t++) {
                        const __m512i q = broadcast4(x[t] + b * 32 + g * 4);
                        for (int p = 0; p < count; p++) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], u[p], q);
                    }
                }
            }
            for (int p = 0; p < count; p++) {
                __m512 scale, offset;
                scales_avx512(kind, w, data[p], b * halves + h, &scale, &offset);
                for (int t = 0; t < tokens; t++) {
                    const float d = ((const float *)(x[t] + a.d))[b];
                    sum[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]), _mm512_mul_ps(scale, _mm512_set1_ps(d)), sum[p][t]);
                    if (panel_has_min(kind)) {
                        const float ds = ((const float *)(x[t] + (halves == 2 ? a.ds16 : a.ds32)))[b * halves + h];
                        sum[p][t] = _mm512_fmadd_ps(offset, _mm512_set1_ps(ds), sum[p][t]);
                    }
                }
            }
        }
    }
    if (has_low_rank(m, part)) {
        _Alignas(64) float sums[2 * TILE_TOKENS][GRAFT_PANEL_ROWS];
        for (int p = 0; p < count; p++)
            for (int t = 0; t < tokens; t++) _mm512_store_ps(sums[p * tokens + t], sum[p][t]);
        avx512_add_low_rank(m, part, panel, count, token, tokens, sums[0]);
        for (int p = 0; p < count; p++)
            for (int t = 0; t < tokens; t++) sum[p][t] = _mm512_load_ps(sums[p * tokens + t]);
    }
    for (int p = 0; p < count; p++)
        for (int t = 0; t < tokens; t++) store_result_avx512(m, part, panel + p, token + t, sum[p][t]);
}

static void avx512_panel_dots(const graft_panels *w, int64_t panel, const uint8_t *row, int32_t *dots) {
    const uint8_t *data = w->data + panel * w->panel_bytes;
    const graft_activation_layout a = graft_activation_layout_for(w->cols);
    const int size = panel_sub_block(w->kind);
    for (int64_t b = 0; b < w->cols / size; b++) {
        const int32_t s = ((const int32_t *)(row + (size == 16 ? a.s16 : a.s32)))[b];
        __m512i dot = _mm512_set1_epi32(-w->zero * s);
        for (int64_t k = b * size; k < (b + 1) * size; k += 4) {
            __m512i u = _mm512_load_si512(data + w->quants + (panel_is_w4(w->kind) ? k / 8 * 64 : k / 4 * 64));
            if (panel_is_w4(w->kind)) u = _mm512_and_si512(k % 8 ? _mm512_srli_epi16(u, 4) : u, _mm512_set1_epi8(15));
            dot = _mm512_dpbusd_epi32(dot, u, broadcast4(row + k));
        }
        _mm512_storeu_si512(dots + b * 16, dot);
    }
}

#include "slabs_avx512.h"
#include "variant.h"

static void store_result_avx512(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, __m512 sum) {
    store_panel_result(m, part, panel, token, (v16f)sum);
}

const graft_kernels *const graft_variant_avx512 = &avx512_kernels;

#pragma clang attribute pop
#endif
