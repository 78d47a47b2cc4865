// Many rows against quantised panels. What a tile of rows would otherwise do again and again with the same weights is done once for all of them: a slab of
// three panels and SLAB_COLUMNS columns is expanded to 8 bits and float scales, which stay in the first-level cache while the rows pass over it in tiles of
// four. A wider group of panels needs fewer loads of activations for each product, which is what bounds a tile on processors with four vector pipes.
//
// For one row the operations are those of avx512_tile, in the same order, so that both give equal bits.

enum { SLAB_PANELS = 3, SLAB_COLUMNS = 384 };

typedef struct {
    _Alignas(64) uint8_t quants[SLAB_PANELS][SLAB_COLUMNS * GRAFT_PANEL_ROWS];
    // Per block of 32 columns, or of 16.
    _Alignas(64) float scale[SLAB_PANELS][SLAB_COLUMNS / 16][GRAFT_PANEL_ROWS];
    _Alignas(64) float offset[SLAB_PANELS][SLAB_COLUMNS / 16][GRAFT_PANEL_ROWS];
    // What the integer sums of a row's blocks start from: -zero Σq.
    _Alignas(64) int32_t start[SLAB_TOKENS][SLAB_COLUMNS / 16];
    // Sums of the rows so far, between two slabs.
    _Alignas(64) float sums[SLAB_TOKENS * SLAB_PANELS][GRAFT_PANEL_ROWS];
} avx512_slab;

// The part of a group's bytes that is fetched during each block of each tile.
typedef struct {
    const uint8_t *next, *end;
    int64_t lines;
    low_rank_fetch low_rank;
} avx512_fetch;

ALWAYS_INLINE void expand_slab(const int kind, const graft_panels *w, int64_t panel, int count, int64_t column, int64_t columns, avx512_slab *slab) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int p = 0; p < count; p++) {
        const uint8_t *data = w->data + (panel + p) * w->panel_bytes;
        uint8_t *to = slab->quants[p];
        if (panel_is_w4(kind)) {
            const uint8_t *from = data + w->quants + column * 8;
            for (int64_t g = 0; g < columns / 8; g++, from += 64, to += 128) {
                const __m512i pair = _mm512_load_si512(from);
                _mm512_store_si512(to, _mm512_and_si512(pair, low));
                _mm512_store_si512(to + 64, _mm512_and_si512(_mm512_srli_epi16(pair, 4), low));
            }
        } else {
            memcpy(to, data + w->quants + column * 16, (size_t)columns * 16);
        }
        const int sub = panel_sub_block(kind);
        for (int64_t b = 0; b < columns / sub; b++) {
            __m512 scale, offset;
            scales_avx512(kind, w, data, column / sub + b, &scale, &offset);
            _mm512_store_ps(slab->scale[p][b], scale);
            if (panel_has_min(kind)) _mm512_store_ps(slab->offset[p][b], offset);
        }
    }
}

// `tokens` rows from `row` of the block against `count` panels of the slab: kept [count][tokens] is where the sums go on from, if `goes_on`, and where they are
// left. The sums of a block stay integers in registers, then join the float sums with one fused multiply-add (two with a minimum).
ALWAYS_INLINE void slab_tile(const int sub, const int has_min, const int count, const int tokens, const avx512_slab *slab, const uint8_t *x, int64_t x_stride,
                             const graft_activation_layout *a, int64_t row, int64_t column, int64_t columns, int goes_on, avx512_fetch *fetch,
                             float (*kept)[GRAFT_PANEL_ROWS]) {
    enum { W_STRIDE = sizeof slab->quants[0], S_STRIDE = sizeof slab->scale[0] / sizeof(float), START_STRIDE = sizeof slab->start[0] };
    const uint8_t *q = x + column, *d = x + a->d + column / 32 * 4, *ds = x + (sub == 16 ? a->ds16 : a->ds32) + column / sub * 4;
    const uint8_t *start = (const uint8_t *)slab->start[row], *w = slab->quants[0];
    const float *scale = slab->scale[0][0], *offset = slab->offset[0][0];
    const uint8_t *next = fetch->next;
    const int64_t lines = fetch->lines;
    __m512 sum[SLAB_PANELS][4];
    for (int p = 0; p < count; p++)
        for (int t = 0; t < tokens; t++) sum[p][t] = _mm512_setzero_ps();
    if (goes_on)
        for (int p = 0; p < count; p++)
            for (int t = 0; t < tokens; t++) sum[p][t] = _mm512_load_ps(kept[p * tokens + t]);
    for (int64_t b = 0; b < columns / 32; b++) {
#pragma clang loop unroll(disable)
        for (int64_t line = 0; line < lines; line++, next += 64) _mm_prefetch((const char *)next, _MM_HINT_T1);
        low_rank_fetch_lines(&fetch->low_rank, fetch->low_rank.pace);
        for (int h = 0; h < 32 / sub; h++) {
            __m512i dot[SLAB_PANELS][4];
            for (int t = 0; t < tokens; t++) {
                int32_t from = 0;
                if (!has_min) memcpy(&from, start + t * START_STRIDE, sizeof from);
                for (int p = 0; p < count; p++) dot[p][t] = has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(from);
            }
            for (int g = 0; g < sub / 4; g++) {
                __m512i u[SLAB_PANELS];
                for (int p = 0; p < count; p++) u[p] = _mm512_load_si512(w + p * W_STRIDE + g * 64);
                for (int t = 0; t < tokens; t++) {
                    const __m512i v = broadcast4(q + t * x_stride + g * 4);
                    for (int p = 0; p < count; p++) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], u[p], v);
                }
            }
            for (int t = 0; t < tokens; t++) {
                float dt, dst;
                memcpy(&dt, d + t * x_stride, sizeof dt);
                memcpy(&dst, ds + t * x_stride, sizeof dst);
                for (int p = 0; p < count; p++) {
                    sum[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]), _mm512_mul_ps(_mm512_load_ps(scale + p * S_STRIDE), _mm512_set1_ps(dt)), sum[p][t]);
                    if (has_min) sum[p][t] = _mm512_fmadd_ps(_mm512_load_ps(offset + p * S_STRIDE), _mm512_set1_ps(dst), sum[p][t]);
                }
            }
            q += sub;
            ds += 4;
            start += 4;
            w += sub * 16;
            scale += GRAFT_PANEL_ROWS;
            offset += GRAFT_PANEL_ROWS;
        }
        d += 4;
    }
    for (int p = 0; p < count; p++)
        for (int t = 0; t < tokens; t++) _mm512_store_ps(kept[p * tokens + t], sum[p][t]);
    fetch->next = next;
    if (next >= fetch->end) fetch->lines = 0;
}

// One tile over one slab; after the last one what adapters add joins the sums, and they go to y.
ALWAYS_INLINE void pass_tile(const int sub, const int has_min, const int count, const int tokens, const graft_matmul *m, const graft_matmul_part *part, int64_t panel,
                             avx512_slab *slab, const graft_activation_layout *a, int64_t first, int64_t row, int64_t column, int64_t columns,
                             avx512_fetch *fetch) {
    float(*kept)[GRAFT_PANEL_ROWS] = slab->sums + row * count;
    const uint8_t *x = (const uint8_t *)m->x + (first + row) * m->x_stride;
    slab_tile(sub, has_min, count, tokens, slab, x, m->x_stride, a, row, column, columns, column > 0, fetch, kept);
    if (column + columns < part->weights.cols) return;
    if (has_low_rank(m, part)) avx512_add_low_rank(m, part, panel, count, first + row, tokens, kept[0]);
    for (int p = 0; p < count; p++)
#pragma clang loop unroll(disable)
        for (int t = 0; t < tokens; t++) store_result_avx512(m, part, panel + p, first + row + t, _mm512_load_ps(kept[p * tokens + t]));
}

ALWAYS_INLINE void pass_rows(const int sub, const int has_min, const int count, const graft_matmul *m, const graft_matmul_part *part, int64_t panel, avx512_slab *slab,
                             const graft_activation_layout *a, int64_t first, int64_t rows, int64_t column, int64_t columns, avx512_fetch *fetch) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) pass_tile(sub, has_min, count, 4, m, part, panel, slab, a, first, row, column, columns, fetch);
    switch (rows - row) {
    case 3: pass_tile(sub, has_min, count, 3, m, part, panel, slab, a, first, row, column, columns, fetch); break;
    case 2: pass_tile(sub, has_min, count, 2, m, part, panel, slab, a, first, row, column, columns, fetch); break;
    case 1: pass_tile(sub, has_min, count, 1, m, part, panel, slab, a, first, row, column, columns, fetch); break;
    default: break;
    }
}

#define PASS_ROWS(sub, has_min)                                                                                                                          \
    static __attribute__((noinline)) void pass_rows_##sub##_##has_min(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int count,     \
                                                                      avx512_slab *slab, const graft_activation_layout *a, int64_t first, int64_t rows,  \
                                                                      int64_t column, int64_t columns, avx512_fetch *fetch) {                            \
        switch (count) {                                                                                                                                 \
        case 1: pass_rows(sub, has_min, 1, m, part, panel, slab, a, first, rows, column, columns, fetch); break;                                         \
        case 2: pass_rows(sub, has_min, 2, m, part, panel, slab, a, first, rows, column, columns, fetch); break;                                         \
        default: pass_rows(sub, has_min, 3, m, part, panel, slab, a, first, rows, column, columns, fetch);                                               \
        }                                                                                                                                                \
    }
PASS_ROWS(32, 0)
PASS_ROWS(32, 1)
PASS_ROWS(16, 0)
PASS_ROWS(16, 1)

static void expand_slab_of_kind(const graft_panels *w, int64_t panel, int count, int64_t column, int64_t columns, avx512_slab *slab) {
    switch (w->kind) {
#define EXPAND_SLAB(kind) \
    case kind: expand_slab(kind, w, panel, count, column, columns, slab); break;
        EXPAND_SLAB(GRAFT_PANEL_W4_HALF)
        EXPAND_SLAB(GRAFT_PANEL_W4_HALF_MIN)
        EXPAND_SLAB(GRAFT_PANEL_W4_K_MIN)
        EXPAND_SLAB(GRAFT_PANEL_W8_HALF)
        EXPAND_SLAB(GRAFT_PANEL_W8_HALF_MIN)
        EXPAND_SLAB(GRAFT_PANEL_W8_K_MIN)
        EXPAND_SLAB(GRAFT_PANEL_W8_K16)
        EXPAND_SLAB(GRAFT_PANEL_W8_K16_MIN)
#undef EXPAND_SLAB
    default: break;
    }
}

// Rows first … last, SLAB_TOKENS at most, against panels `panel` … `end`.
static __attribute__((noinline)) void avx512_slabs(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t end, int64_t first, int64_t last) {
    const graft_panels *w = &part->weights;
    const graft_activation_layout a = graft_activation_layout_for(w->cols);
    const int64_t rows = last - first;
    const int sub = panel_sub_block(w->kind), has_min = panel_has_min(w->kind);
    avx512_slab slab;
    low_rank_fetch now = low_rank_fetch_over(m, part, panel, first == 0 ? (end - panel < SLAB_PANELS ? end - panel : SLAB_PANELS) : 0, 1);
    low_rank_fetch_lines(&now, now.pace);
    for (int64_t next; panel < end; panel = next) {
        // Four panels are two twos rather than three and a one.
        const int64_t left = end - panel;
        const int count = (int)(left == 4 || left == 2 ? 2 : left < SLAB_PANELS ? left : SLAB_PANELS);
        next = panel + count;
        const uint8_t *ahead = w->data + next * w->panel_bytes;
        const int64_t bytes = (next + count <= end ? count : end - next) * w->panel_bytes;
        const int64_t steps = (rows + 3) / 4 * (w->cols / 32);
        avx512_fetch fetch = {.next = ahead, .end = ahead + bytes, .lines = bytes > 0 ? (bytes / 64 + steps - 1) / steps : 0,
                              .low_rank = low_rank_fetch_over(m, part, next, first == 0 ? (next + count <= end ? count : end - next) : 0, steps)};
        for (int64_t column = 0; column < w->cols; column += SLAB_COLUMNS) {
            const int64_t columns = w->cols - column < SLAB_COLUMNS ? w->cols - column : SLAB_COLUMNS;
            expand_slab_of_kind(w, panel, count, column, columns, &slab);
            if (!has_min)
                for (int64_t r = 0; r < rows; r++) {
                    const int32_t *s = (const int32_t *)((const uint8_t *)m->x + (first + r) * m->x_stride + (sub == 16 ? a.s16 : a.s32)) + column / sub;
                    for (int64_t b = 0; b < columns / sub; b++) slab.start[r][b] = -w->zero * s[b];
                }
            switch (2 * (sub == 16) + has_min) {
            case 0: pass_rows_32_0(m, part, panel, count, &slab, &a, first, rows, column, columns, &fetch); break;
            case 1: pass_rows_32_1(m, part, panel, count, &slab, &a, first, rows, column, columns, &fetch); break;
            case 2: pass_rows_16_0(m, part, panel, count, &slab, &a, first, rows, column, columns, &fetch); break;
            default: pass_rows_16_1(m, part, panel, count, &slab, &a, first, rows, column, columns, &fetch);
            }
        }
    }
}
