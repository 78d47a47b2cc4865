// Repacking of GGUF tensors into panels, and its inverses. Portable C; runs once per load, in parallel over panels.
#pragma STDC FP_CONTRACT OFF
#include "panels.h"

#include <math.h>
#include <string.h>

// Where a type's fields lie in its block, and what panel kind takes it.
typedef struct {
    int type, kind, zero, block, bytes;
} type_form;

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, F32 = 0, F16 = 1, BF16 = 30 };

static const type_form forms[] = {
    {Q4_0, GRAFT_PANEL_W4_HALF, 8, 32, 18},        {Q4_1, GRAFT_PANEL_W4_HALF_MIN, 0, 32, 20}, {Q5_0, GRAFT_PANEL_W8_HALF, 16, 32, 22},
    {Q5_1, GRAFT_PANEL_W8_HALF_MIN, 0, 32, 24},    {Q8_0, GRAFT_PANEL_W8_HALF, 128, 32, 34},   {Q2_K, GRAFT_PANEL_W8_K16_MIN, 0, 256, 84},
    {Q3_K, GRAFT_PANEL_W8_K16, 4, 256, 110},       {Q4_K, GRAFT_PANEL_W4_K_MIN, 0, 256, 144},  {Q5_K, GRAFT_PANEL_W8_K_MIN, 0, 256, 176},
    {Q6_K, GRAFT_PANEL_W8_K16, 32, 256, 210},      {F32, GRAFT_PANEL_F32, 0, 1, 4},            {F16, GRAFT_PANEL_F16, 0, 1, 2},
    {BF16, GRAFT_PANEL_BF16, 0, 1, 2},
};

static const type_form *form_of(int type) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].type == type) return &forms[i];
    return NULL;
}

static int64_t aligned(int64_t n) { return (n + 63) / 64 * 64; }

int graft_panels_layout(graft_panels *p, int type, int64_t rows, int64_t cols) {
    const type_form *form = form_of(type);
    if (!form || rows <= 0 || cols <= 0 || cols % form->block != 0) return 0;
    *p = (graft_panels){.kind = form->kind, .zero = form->zero, .rows = rows, .cols = cols};
    if (panel_is_float(p->kind)) {
        p->panel_bytes = aligned(cols * GRAFT_PANEL_ROWS * form->bytes);
        return 1;
    }
    int64_t end = 0, scales = panel_is_k(p->kind) ? cols / GRAFT_SUPERBLOCK : cols / GRAFT_BLOCK;
    int64_t subs = cols / panel_sub_block(p->kind);
    p->scale = end, end += scales * 32;
    if (panel_has_min(p->kind)) p->minimum = end, end += scales * 32;
    if (panel_is_k(p->kind)) p->sub_scale = end, end += subs * 16;
    if (panel_is_k(p->kind) && panel_has_min(p->kind)) p->sub_min = end, end += subs * 16;
    p->quants = aligned(end);
    p->panel_bytes = aligned(p->quants + cols * GRAFT_PANEL_ROWS / (panel_is_w4(p->kind) ? 2 : 1));
    return 1;
}

// One block of a GGUF row, taken apart: u [block], and per block or sub-block its scales as the panel stores them.
typedef struct {
    uint16_t d, m;
    uint8_t sub_scale[16], sub_min[16];
    uint8_t u[GRAFT_SUPERBLOCK];
} parts;

static uint16_t half_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint32_t word_at(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

// The twelve bytes of Q4_K and Q5_K hold eight 6-bit scales and eight 6-bit minima.
static void k_scales(const uint8_t *q, parts *out) {
    for (int j = 0; j < 4; j++) {
        out->sub_scale[j] = q[j] & 63;
        out->sub_min[j] = q[j + 4] & 63;
        out->sub_scale[j + 4] = (uint8_t)((q[j + 8] & 15) | (q[j] >> 6) << 4);
        out->sub_min[j + 4] = (uint8_t)((q[j + 8] >> 4) | (q[j + 4] >> 6) << 4);
    }
}

static void take_apart(int type, const uint8_t *b, parts *out) {
    switch (type) {
    case Q4_0:
    case Q4_1: {
        out->d = half_at(b);
        if (type == Q4_1) out->m = half_at(b + 2);
        const uint8_t *q = b + (type == Q4_1 ? 4 : 2);
        for (int i = 0; i < 16; i++) out->u[i] = q[i] & 15, out->u[i + 16] = q[i] >> 4;
        break;
    }
    case Q5_0:
    case Q5_1: {
        out->d = half_at(b);
        if (type == Q5_1) out->m = half_at(b + 2);
        const uint8_t *high = b + (type == Q5_1 ? 4 : 2), *q = high + 4;
        uint32_t bits = word_at(high);
        for (int i = 0; i < 16; i++) {
            out->u[i] = (uint8_t)((q[i] & 15) | (bits >> i & 1) << 4);
            out->u[i + 16] = (uint8_t)((q[i] >> 4) | (bits >> (i + 16) & 1) << 4);
        }
        break;
    }
    case Q8_0:
        out->d = half_at(b);
        for (int i = 0; i < 32; i++) out->u[i] = (uint8_t)(b[2 + i] ^ 0x80);
        break;
    case Q4_K:
        out->d = half_at(b), out->m = half_at(b + 2);
        k_scales(b + 4, out);
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++) {
                uint8_t q = b[16 + 32 * j + i];
                out->u[64 * j + i] = q & 15, out->u[64 * j + 32 + i] = q >> 4;
            }
        break;
    case Q5_K:
        out->d = half_at(b), out->m = half_at(b + 2);
        k_scales(b + 4, out);
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++) {
                uint8_t q = b[48 + 32 * j + i], h = b[16 + i];
                out->u[64 * j + i] = (uint8_t)((q & 15) | (h >> (2 * j) & 1) << 4);
                out->u[64 * j + 32 + i] = (uint8_t)((q >> 4) | (h >> (2 * j + 1) & 1) << 4);
            }
        break;
    case Q6_K: {
        const uint8_t *low = b, *high = b + 128;
        for (int n = 0; n < 2; n++, low += 64, high += 32)
            for (int i = 0; i < 32; i++) {
                uint8_t *u = out->u + 128 * n + i, h = high[i];
                u[0] = (uint8_t)((low[i] & 15) | (h & 3) << 4);
                u[32] = (uint8_t)((low[i + 32] & 15) | (h >> 2 & 3) << 4);
                u[64] = (uint8_t)((low[i] >> 4) | (h >> 4 & 3) << 4);
                u[96] = (uint8_t)((low[i + 32] >> 4) | (h >> 6) << 4);
            }
        memcpy(out->sub_scale, b + 192, 16);
        out->d = half_at(b + 208);
        break;
    }
    case Q2_K:
        for (int i = 0; i < 16; i++) out->sub_scale[i] = b[i] & 15, out->sub_min[i] = b[i] >> 4;
        for (int n = 0; n < 2; n++)
            for (int j = 0; j < 4; j++)
                for (int i = 0; i < 32; i++) out->u[128 * n + 32 * j + i] = b[16 + 32 * n + i] >> (2 * j) & 3;
        out->d = half_at(b + 80), out->m = half_at(b + 82);
        break;
    case Q3_K: {
        const uint8_t *q = b + 32, *s = b + 96;
        for (int n = 0; n < 2; n++)
            for (int j = 0; j < 4; j++)
                for (int i = 0; i < 32; i++)
                    out->u[128 * n + 32 * j + i] = (uint8_t)((q[32 * n + i] >> (2 * j) & 3) | (b[i] >> (4 * n + j) & 1) << 2);
        for (int i = 0; i < 16; i++) {
            int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i % 4] >> (2 * (i / 4)) & 3;
            out->sub_scale[i] = (uint8_t)((low | high << 4) - 32);
        }
        out->d = half_at(b + 108);
        break;
    }
    }
}

static void pack_float(const graft_panels *p, int bytes, const uint8_t *source, int64_t panel) {
    uint8_t *to = p->data + panel * p->panel_bytes;
    memset(to, 0, (size_t)p->panel_bytes);
    for (int r = 0; r < GRAFT_PANEL_ROWS && panel * GRAFT_PANEL_ROWS + r < p->rows; r++) {
        const uint8_t *from = source + (panel * GRAFT_PANEL_ROWS + r) * p->cols * bytes;
        for (int64_t k = 0; k < p->cols; k++) memcpy(to + (k * GRAFT_PANEL_ROWS + r) * bytes, from + k * bytes, (size_t)bytes);
    }
}

void graft_panels_pack(const graft_panels *p, int type, const void *source, int64_t begin, int64_t end) {
    const type_form *form = form_of(type);
    for (int64_t panel = begin; panel < end; panel++) {
        if (panel_is_float(p->kind)) {
            pack_float(p, form->bytes, source, panel);
            continue;
        }
        uint8_t *to = p->data + panel * p->panel_bytes;
        memset(to, 0, (size_t)p->panel_bytes);
        const int has_min = panel_has_min(p->kind), is_k = panel_is_k(p->kind), w4 = panel_is_w4(p->kind);
        const int64_t blocks = p->cols / form->block;
        const int subs = form->block / panel_sub_block(p->kind);
        for (int r = 0; r < GRAFT_PANEL_ROWS && panel * GRAFT_PANEL_ROWS + r < p->rows; r++) {
            const uint8_t *row = (const uint8_t *)source + (panel * GRAFT_PANEL_ROWS + r) * blocks * form->bytes;
            for (int64_t b = 0; b < blocks; b++) {
                parts x;
                take_apart(type, row + b * form->bytes, &x);
                ((uint16_t *)(to + p->scale))[b * 16 + r] = x.d;
                if (has_min) ((uint16_t *)(to + p->minimum))[b * 16 + r] = x.m;
                if (is_k)
                    for (int s = 0; s < subs; s++) {
                        to[p->sub_scale + (b * subs + s) * 16 + r] = x.sub_scale[s];
                        if (has_min) to[p->sub_min + (b * subs + s) * 16 + r] = x.sub_min[s];
                    }
                uint8_t *q = to + p->quants + b * form->block * GRAFT_PANEL_ROWS / (w4 ? 2 : 1) + r * 4;
                if (w4)
                    for (int g = 0; g < form->block / 8; g++)
                        for (int i = 0; i < 4; i++) q[g * 64 + i] = (uint8_t)(x.u[8 * g + i] | x.u[8 * g + 4 + i] << 4);
                else
                    for (int g = 0; g < form->block / 4; g++) memcpy(q + g * 64, x.u + 4 * g, 4);
            }
        }
    }
}

int64_t graft_lora_hidden_bytes(int64_t stacked) { return aligned(GRAFT_LORA_PAIRS * (int64_t)sizeof(graft_lora_share) + stacked); }

// The largest magnitude of n finite numbers: positive floats are ordered as their bits are, and integers the compiler may compare in any order.
static float largest_of(const float *x, int64_t n) {
    int32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return float_of_bits((uint32_t)largest);
}

// u = round(x · factor) + 128, from 1 to 255: adding 1.5 · 2²³ rounds to an integer.
static void quantise(const float *x, int n, float factor, uint8_t *u) {
    for (int i = 0; i < n; i++) {
        int32_t q = (int32_t)(x[i] * factor + 12582912.0f - 12582912.0f);
        q = q > 127 ? 127 : q;
        q = q < -127 ? -127 : q;
        u[i] = (uint8_t)(q + 128);
    }
}

int64_t graft_lora_deferred_bytes(int64_t terms) {
    return (int64_t)sizeof(graft_lora_deferred) + terms * GRAFT_LORA_PAIRS * GRAFT_LORA_MAX_RANK * (int64_t)sizeof(float);
}

void graft_lora_pack_a(const graft_panels *p, int64_t offset, const float *a, int64_t rank, int32_t *exponents) {
    for (int64_t j = 0; j < rank; j++, a += p->cols) {
        const float most = largest_of(a, p->cols);
        const int exponent = most > 0 ? -ilogbf(most) : 0;
        exponents[j] = exponent < 127 ? exponent : 127;
        const float factor = ldexpf(1.0f, exponents[j]);
        const int64_t row = offset + j, r = row % GRAFT_PANEL_ROWS;
        uint8_t *to = p->data + row / GRAFT_PANEL_ROWS * p->panel_bytes;
        for (int64_t b = 0; b < p->cols / GRAFT_BLOCK; b++) {
            const float *x = a + b * GRAFT_BLOCK;
            const uint16_t d = float_to_half(largest_of(x, GRAFT_BLOCK) * factor / 127.0f);
            ((uint16_t *)(to + p->scale))[b * GRAFT_PANEL_ROWS + r] = d;
            const float scale = half_to_float(d);
            uint8_t u[GRAFT_BLOCK];
            quantise(x, GRAFT_BLOCK, scale > 0 ? factor / scale : 0, u);
            uint8_t *quants = to + p->quants + b * GRAFT_BLOCK * GRAFT_PANEL_ROWS + r * 4;
            for (int k = 0; k < GRAFT_BLOCK; k += 4) memcpy(quants + k * GRAFT_PANEL_ROWS, u + k, 4);
        }
    }
}

static int64_t panels_of(int64_t rows) { return (rows + GRAFT_PANEL_ROWS - 1) / GRAFT_PANEL_ROWS; }

int64_t graft_lora_b_bytes(int64_t rows, int64_t rank) { return panels_of(rows) * low_rank_panel_bytes((rank + 3) / 4 * 4); }

void graft_lora_pack_b(const float *b, int64_t rows, int64_t rank, const int32_t *exponents, float scale, uint8_t *panels) {
    const int64_t groups = (rank + 3) / 4, bytes = low_rank_panel_bytes(4 * groups);
    float factor[GRAFT_LORA_MAX_RANK], x[GRAFT_LORA_MAX_RANK];
    uint8_t u[GRAFT_LORA_MAX_RANK];
    memset(u, 128, sizeof u);
    for (int64_t j = 0; j < rank; j++) factor[j] = ldexpf(1.0f, -exponents[j]);
    for (int64_t panel = 0; panel < panels_of(rows); panel++) {
        memset(panels + panel * bytes, 0, 64);
        memset(panels + panel * bytes + 64, 128, (size_t)bytes - 64);
    }
    for (int64_t i = 0; i < rows; i++, b += rank) {
        for (int64_t j = 0; j < rank; j++) x[j] = b[j] * factor[j];
        const float most = largest_of(x, rank), inverse = most > 0 ? 127.0f / most : 0;
        uint8_t *panel = panels + i / GRAFT_PANEL_ROWS * bytes, *to = panel + 64 + i % GRAFT_PANEL_ROWS * 4;
        ((float *)panel)[i % GRAFT_PANEL_ROWS] = most / 127.0f * scale;
        quantise(x, (int)rank, inverse, u);
        for (int64_t g = 0; g < groups; g++) memcpy(to + g * 64, u + 4 * g, 4);
    }
}

void graft_panels_row(const graft_panels *p, int64_t row, float *dst) {
    const uint8_t *panel = p->data + row / GRAFT_PANEL_ROWS * p->panel_bytes;
    const int r = (int)(row % GRAFT_PANEL_ROWS);
    for (int64_t k = 0; k < p->cols; k++) dst[k] = panel_value(p, panel, r, k);
}

void graft_embed_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_embed *e = context;
    for (size_t i = begin; i < end; i++) {
        float *x = e->x + (int64_t)i * e->width;
        graft_panels_row(&e->table, e->tokens[i], x);
        for (int64_t k = 0; k < e->width; k++) x[k] *= e->scale;
    }
}

void graft_rope_table_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_rope_table *t = context;
    for (size_t i = begin; i < end; i++)
        for (int64_t j = 0; j < t->pairs; j++) {
            const float angle = (float)t->positions[i] * t->inverse_frequencies[j];
            t->cos[(int64_t)i * t->pairs + j] = cosf(angle);
            t->sin[(int64_t)i * t->pairs + j] = sinf(angle);
        }
}

graft_activation_layout graft_activation_layout_for(int64_t cols) {
    graft_activation_layout a;
    int64_t end = cols, b32 = cols / 32 * 4, b16 = cols / 16 * 4;
    a.d = end, end += b32;
    a.ds32 = end, end += b32;
    a.s32 = end, end += b32;
    a.ds16 = end, end += b16;
    a.s16 = end, end += b16;
    a.bytes = aligned(end);
    return a;
}

graft_kv_layout graft_kv_layout_for(int type, int kv_heads, int head_dim) {
    int64_t element = type == GRAFT_KV_F32 ? 4 : type == GRAFT_KV_F16 ? 2 : 1, plane = (int64_t)kv_heads * head_dim * GRAFT_KV_BLOCK * element;
    graft_kv_layout l = {.type = type, .kv_heads = kv_heads, .head_dim = head_dim, .values = plane};
    int64_t end = 2 * plane;
    if (type == GRAFT_KV_Q8) {
        l.key_scales = end, end += (int64_t)kv_heads * (head_dim / GRAFT_KEY_GROUP) * GRAFT_KV_BLOCK * 2;
        l.value_scales = end, end += (int64_t)kv_heads * GRAFT_KV_BLOCK * 2;
    }
    l.bytes = aligned(end);
    return l;
}

int64_t graft_matmul_units(const graft_matmul *m) {
    int64_t units = 0;
    for (int64_t i = 0; i < m->part_count; i++) units += matmul_part_units(&m->parts[i]);
    return units;
}
