// AVX2, with or without VNNI: a panel is two registers of 8 rows. The including file defines VARIANT, VARIANT_NAME and dot4, which
// adds four products per lane of unsigned weights (at most 63, or full bytes where `wide`) and signed activations.
#include <immintrin.h>

#define TILE_TOKENS 2

#pragma clang diagnostic ignored "-Wpsabi"
typedef float half_lanes __attribute__((vector_size(64)));
typedef int32_t int_lanes __attribute__((vector_size(64)));

ALWAYS_INLINE half_lanes load_half16(const uint16_t *p) {
    __m256 low = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), high = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1));
    half_lanes v;
    memcpy(&v, &low, 32);
    memcpy((char *)&v + 32, &high, 32);
    return v;
}

ALWAYS_INLINE void store_half16(uint16_t *p, half_lanes v) {
    __m256 part[2];
    memcpy(part, &v, sizeof v);
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(part[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(part[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#define AVX2_JOIN2(a, b) a##_##b
#define AVX2_JOIN(a, b) AVX2_JOIN2(a, b)
#define LOCAL(x) AVX2_JOIN(VARIANT, x)

static void LOCAL(store_result)(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, __m256 low, __m256 high);
static void LOCAL(add_low_rank)(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int count, int64_t token, int tokens, float *sums);

// Four columns from k of 8 rows (half 0: rows 0…7, half 1: rows 8…15) as unsigned bytes.
ALWAYS_INLINE __m256i LOCAL(load_quants)(const int kind, const graft_panels *w, const uint8_t *data, int64_t k, int half) {
    if (!panel_is_w4(kind)) return _mm256_load_si256((const __m256i *)(data + w->quants + k / 4 * 64) + half);
    const __m256i pair = _mm256_load_si256((const __m256i *)(data + w->quants + k / 8 * 64) + half);
    return _mm256_and_si256(k % 8 ? _mm256_srli_epi16(pair, 4) : pair, _mm256_set1_epi8(15));
}

ALWAYS_INLINE __m256i LOCAL(broadcast4)(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

// Σ (u - 128) q over an adapter's B, four columns of 16 rows at a time; the start takes Σ q.
ALWAYS_INLINE int_lanes LOCAL(low_rank_start)(int32_t sum) { return (int_lanes){} + LOCAL(start)(GRAFT_PANEL_W8_HALF, 128, sum); }

ALWAYS_INLINE int_lanes LOCAL(low_rank_dot)(int_lanes dot, int_lanes line, const uint8_t *q) {
    __m256i sums[2], u[2];
    memcpy(sums, &dot, sizeof sums);
    memcpy(u, &line, sizeof u);
    for (int h = 0; h < 2; h++) sums[h] = LOCAL(dot4)(GRAFT_PANEL_W8_HALF, 128, sums[h], u[h], LOCAL(broadcast4)(q));
    memcpy(&dot, sums, sizeof dot);
    return dot;
}

ALWAYS_INLINE void LOCAL(scales)(const int kind, const graft_panels *w, const uint8_t *panel, int64_t sub, int half, __m256 *scale, __m256 *offset) {
    const int64_t at = panel_is_k(kind) ? sub / (GRAFT_SUPERBLOCK / panel_sub_block(kind)) * 16 + 8 * half : sub * 16 + 8 * half;
    *scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)((const uint16_t *)(panel + w->scale) + at)));
    if (panel_has_min(kind)) *offset = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)((const uint16_t *)(panel + w->minimum) + at)));
    if (!panel_is_k(kind)) return;
    const __m128i s = _mm_loadl_epi64((const __m128i *)(panel + w->sub_scale + sub * 16 + 8 * half));
    *scale = _mm256_mul_ps(*scale, _mm256_cvtepi32_ps(kind == GRAFT_PANEL_W8_K16 ? _mm256_cvtepi8_epi32(s) : _mm256_cvtepu8_epi32(s)));
    if (panel_has_min(kind)) {
        const __m256i m = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(panel + w->sub_min + sub * 16 + 8 * half)));
        *offset = _mm256_xor_ps(_mm256_mul_ps(*offset, _mm256_cvtepi32_ps(m)), _mm256_set1_ps(-0.0f));
    }
}

ALWAYS_INLINE void LOCAL(tile)(const int kind, const graft_matmul *m, const graft_matmul_part *part, int64_t panel, const int count, int64_t token,
                               const int tokens, tile_ahead *ahead, int64_t fetch, int64_t fetches) {
    (void)fetch, (void)fetches;
    const graft_panels *w = &part->weights;
    const graft_activation_layout a = graft_activation_layout_for(w->cols);
    const int size = panel_sub_block(kind);
    const uint8_t *x[TILE_TOKENS];
    for (int t = 0; t < tokens; t++) x[t] = (const uint8_t *)m->x + (token + t) * m->x_stride;
    for (int p = 0; p < count; p++) {
        const uint8_t *data = w->data + (panel + p) * w->panel_bytes;
        __m256 sum[2][TILE_TOKENS];
        for (int h = 0; h < 2; h++)
            for (int t = 0; t < tokens; t++) sum[h][t] = _mm256_setzero_ps();
        for (int64_t b = 0; b < w->cols / size; b++) {
            __m256i dot[2][TILE_TOKENS];
            for (int t = 0; t < tokens; t++) {
                const int32_t s = ((const int32_t *)(x[t] + (size == 16 ? a.s16 : a.s32)))[b];
                dot[0][t] = dot[1][t] = _mm256_set1_epi32(LOCAL(start)(kind, w->zero, s));
            }
            low_rank_fetch_lines(&ahead->low_rank, ahead->low_rank.pace);
            for (int64_t k = b * size; k < (b + 1) * size; k += 4)
                for (int h = 0; h < 2; h++) {
                    const __m256i u = LOCAL(load_quants)(kind, w, data, k, h);
                    for (int t = 0; t < tokens; t++) dot[h][t] = LOCAL(dot4)(kind, w->zero, dot[h][t], u, LOCAL(broadcast4)(x[t] + k));
                }
            for (int h = 0; h < 2; h++) {
                __m256 scale, offset;
                LOCAL(scales)(kind, w, data, b, h, &scale, &offset);
                for (int t = 0; t < tokens; t++) {
                    const float d = ((const float *)(x[t] + a.d))[b * size / GRAFT_BLOCK];
                    sum[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[h][t]), _mm256_mul_ps(scale, _mm256_set1_ps(d)), sum[h][t]);
                    if (panel_has_min(kind)) {
                        const float ds = ((const float *)(x[t] + (size == 16 ? a.ds16 : a.ds32)))[b];
                        sum[h][t] = _mm256_fmadd_ps(offset, _mm256_set1_ps(ds), sum[h][t]);
                    }
                }
            }
        }
        if (has_low_rank(m, part)) {
            _Alignas(64) float sums[TILE_TOKENS][GRAFT_PANEL_ROWS];
            for (int t = 0; t < tokens; t++) _mm256_store_ps(sums[t], sum[0][t]), _mm256_store_ps(sums[t] + 8, sum[1][t]);
            LOCAL(add_low_rank)(m, part, panel + p, 1, token, tokens, sums[0]);
            for (int t = 0; t < tokens; t++) sum[0][t] = _mm256_load_ps(sums[t]), sum[1][t] = _mm256_load_ps(sums[t] + 8);
        }
        for (int t = 0; t < tokens; t++) LOCAL(store_result)(m, part, panel + p, token + t, sum[0][t], sum[1][t]);
    }
}

static void LOCAL(panel_dots)(const graft_panels *w, int64_t panel, const uint8_t *row, int32_t *dots) {
    const uint8_t *data = w->data + panel * w->panel_bytes;
    const graft_activation_layout a = graft_activation_layout_for(w->cols);
    const int size = panel_sub_block(w->kind);
    for (int64_t b = 0; b < w->cols / size; b++)
        for (int h = 0; h < 2; h++) {
            const int32_t s = ((const int32_t *)(row + (size == 16 ? a.s16 : a.s32)))[b];
            __m256i dot = _mm256_set1_epi32(LOCAL(start)(w->kind, w->zero, s));
            for (int64_t k = b * size; k < (b + 1) * size; k += 4)
                dot = LOCAL(dot4)(w->kind, w->zero, dot, LOCAL(load_quants)(w->kind, w, data, k, h), LOCAL(broadcast4)(row + k));
            _mm256_storeu_si256((__m256i *)(dots + b * 16) + h, dot);
        }
}

#include "variant.h"

static void LOCAL(store_result)(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, __m256 low, __m256 high) {
    v16f sum;
    memcpy(&sum, &low, 32);
    memcpy((char *)&sum + 32, &high, 32);
    store_panel_result(m, part, panel, token, sum);
}
