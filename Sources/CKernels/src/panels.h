// What every variant of the kernels shares: the predicates on panel kinds and the scalar definitions of stored values.
#ifndef GRAFT_PANELS_H
#define GRAFT_PANELS_H

#include "graft_kernels.h"

#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE int panel_is_w4(int kind) { return kind <= GRAFT_PANEL_W4_K_MIN; }
ALWAYS_INLINE int panel_is_float(int kind) { return kind >= GRAFT_PANEL_F16; }
ALWAYS_INLINE int panel_is_k16(int kind) { return kind == GRAFT_PANEL_W8_K16 || kind == GRAFT_PANEL_W8_K16_MIN; }
ALWAYS_INLINE int panel_is_k(int kind) { return kind == GRAFT_PANEL_W4_K_MIN || kind == GRAFT_PANEL_W8_K_MIN || panel_is_k16(kind); }
ALWAYS_INLINE int panel_has_min(int kind) {
    return kind == GRAFT_PANEL_W4_HALF_MIN || kind == GRAFT_PANEL_W8_HALF_MIN || kind == GRAFT_PANEL_W4_K_MIN || kind == GRAFT_PANEL_W8_K_MIN ||
           kind == GRAFT_PANEL_W8_K16_MIN;
}
ALWAYS_INLINE int panel_sub_block(int kind) { return panel_is_k16(kind) ? 16 : 32; }

ALWAYS_INLINE float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

ALWAYS_INLINE uint32_t bits_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

ALWAYS_INLINE float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent != 0) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

// Round to nearest, ties to even.
ALWAYS_INLINE uint16_t float_to_half(float f) {
    uint32_t bits = bits_of_float(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) {
        // Subnormal halves are multiples of 2⁻²⁴: adding 0.5 lets the float unit round at that place.
        uint32_t rounded = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000;
        return (uint16_t)(sign | rounded);
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

ALWAYS_INLINE int panel_quant(const graft_panels *p, const uint8_t *panel, int r, int64_t k) {
    if (!panel_is_w4(p->kind)) return panel[p->quants + k / 4 * 64 + r * 4 + k % 4];
    uint8_t pair = panel[p->quants + k / 8 * 64 + r * 4 + k % 4];
    return k % 8 < 4 ? pair & 15 : pair >> 4;
}

// A turn of a loop that waits for another thread.
ALWAYS_INLINE void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

// Scale and offset of column k: v = scale · (u - zero) + offset, each product and sum rounded as the format's definition rounds it.
ALWAYS_INLINE void panel_scale(const graft_panels *p, const uint8_t *panel, int r, int64_t k, float *scale, float *offset) {
    const uint16_t *d = (const uint16_t *)(panel + p->scale), *m = (const uint16_t *)(panel + p->minimum);
    *offset = 0;
    if (!panel_is_k(p->kind)) {
        *scale = half_to_float(d[k / 32 * 16 + r]);
        if (panel_has_min(p->kind)) *offset = half_to_float(m[k / 32 * 16 + r]);
        return;
    }
    int64_t sub = k / panel_sub_block(p->kind) * 16 + r;
    uint8_t s = panel[p->sub_scale + sub];
    *scale = half_to_float(d[k / 256 * 16 + r]) * (p->kind == GRAFT_PANEL_W8_K16 ? (float)(int8_t)s : (float)s);
    if (panel_has_min(p->kind)) *offset = -(half_to_float(m[k / 256 * 16 + r]) * (float)panel[p->sub_min + sub]);
}

ALWAYS_INLINE float panel_value(const graft_panels *p, const uint8_t *panel, int r, int64_t k) {
    if (p->kind == GRAFT_PANEL_F32) return ((const float *)panel)[k * 16 + r];
    if (p->kind == GRAFT_PANEL_F16) return half_to_float(((const uint16_t *)panel)[k * 16 + r]);
    if (p->kind == GRAFT_PANEL_BF16) return float_of_bits((uint32_t)((const uint16_t *)panel)[k * 16 + r] << 16);
    float scale, offset;
    panel_scale(p, panel, r, k, &scale, &offset);
    float value = scale * (float)(panel_quant(p, panel, r, k) - p->zero);
    return panel_has_min(p->kind) ? value + offset : value;
}

ALWAYS_INLINE int64_t panel_count(const graft_panels *p) { return (p->rows + GRAFT_PANEL_ROWS - 1) / GRAFT_PANEL_ROWS; }
ALWAYS_INLINE int64_t matmul_part_units(const graft_matmul_part *part) { return (panel_count(&part->weights) + 1) / 2; }

ALWAYS_INLINE int64_t low_rank_panel_bytes(int64_t rank) { return 64 + rank * GRAFT_PANEL_ROWS; }
ALWAYS_INLINE int has_low_rank(const graft_matmul *m, const graft_matmul_part *part) { return m->lora.rows && part->pair >= 0; }

// The lines of B that the step's adapters add to `count` panels. They lie in as many places as there are adapters, where no hardware finds a stream,
// and are fetched `pace` at a time beside the products before them: all at once, they would keep the memory's queues full and the products waiting.
typedef struct {
    const graft_lora *lora;
    int64_t panel, count, term, pace;
    const uint8_t *next, *end;
    int pair;
} low_rank_fetch;

ALWAYS_INLINE int64_t low_rank_fetch_bytes(const low_rank_fetch *f, const graft_lora_pair *pair) {
    return pair->rank == 0 ? 0 : f->count * low_rank_panel_bytes(pair->rank);
}

// Fetches up to `lines` lines.
ALWAYS_INLINE void low_rank_fetch_lines(low_rank_fetch *f, int64_t lines) {
    for (; lines > 0; lines--, f->next += 64) {
        while (f->next == f->end) {
            if (f->term == f->lora->term_count) return;
            const graft_lora_pair *pair = &f->lora->terms[f->term++].stages[f->lora->stage].pairs[f->pair];
            f->next = pair->b + f->panel * low_rank_panel_bytes(pair->rank);
            f->end = f->next + low_rank_fetch_bytes(f, pair);
        }
        __builtin_prefetch(f->next);
    }
}

// What of a part's B is to be fetched in `steps` steps; nothing if the part has none or there are no panels.
ALWAYS_INLINE low_rank_fetch low_rank_fetch_over(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t count, int64_t steps) {
    low_rank_fetch f = {.lora = &m->lora, .panel = panel, .count = count, .pair = part->pair};
    if (!has_low_rank(m, part) || count <= 0) return f;
    int64_t bytes = 0;
    for (int64_t i = 0; i < m->lora.term_count; i++) bytes += low_rank_fetch_bytes(&f, &m->lora.terms[i].stages[m->lora.stage].pairs[part->pair]);
    f.pace = (bytes / 64 + steps - 1) / steps;
    return f;
}

// What is fetched beside a tile: where the next weight panels begin (NULL: unknown), and the adapters' share of them.
typedef struct {
    const uint8_t *panels;
    low_rank_fetch low_rank;
} tile_ahead;

#endif
