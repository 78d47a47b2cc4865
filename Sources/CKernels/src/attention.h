// Attention over blocks of cached keys and values, part of every variant: variant.h includes it.
#ifndef GRAFT_ATTENTION_H
#define GRAFT_ATTENTION_H

// The blocks of keys that rows at `position` … `position + tokens` see, and how many spans they lie in.
typedef struct {
    int64_t first_block, last_block, count;
} span_range;

enum { SPAN_BLOCKS = GRAFT_ATTENTION_SPAN / GRAFT_KV_BLOCK };

ALWAYS_INLINE span_range spans_of(const graft_attention *a, int64_t position, int64_t tokens) {
    const int64_t oldest = a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
    span_range r = {.first_block = oldest / GRAFT_KV_BLOCK, .last_block = (position + tokens - 1) / GRAFT_KV_BLOCK};
    r.count = r.last_block / SPAN_BLOCKS - r.first_block / SPAN_BLOCKS + 1;
    return r;
}

// First and last block of the range's i-th span.
ALWAYS_INLINE int64_t span_begin(const span_range *r, int64_t i) { return i == 0 ? r->first_block : (r->first_block / SPAN_BLOCKS + i) * SPAN_BLOCKS; }
ALWAYS_INLINE int64_t span_end(const span_range *r, int64_t i) { return i == r->count - 1 ? r->last_block : (r->first_block / SPAN_BLOCKS + i + 1) * SPAN_BLOCKS - 1; }

// Shared spans: of each head a line with the number of spans that are done, then of each head, span and row a line with m and l, and o.
enum { PARTIAL_HEAD = 16 };

ALWAYS_INLINE v16f load_cached(const int type, const uint8_t *base, int64_t index) {
    if (type == GRAFT_KV_F32) return load16((const float *)base + index);
    if (type == GRAFT_KV_F16) return load_half16((const uint16_t *)base + index);
    v16b bytes;
    memcpy(&bytes, base + index, sizeof bytes);
    return __builtin_convertvector(__builtin_convertvector(bytes, v16i), v16f);
}

// Rows share a vector of their softmax by fours; scores are computed for as many rows as the registers hold.
enum { ROW_GROUP = 4, ROW_GROUPS = GRAFT_ATTENTION_ROWS / ROW_GROUP };
#ifndef SCORE_ROWS
#define SCORE_ROWS ROW_GROUP
#endif

// The query rows of a tile: its tokens times the heads of one group. Scores are powers of two: q is multiplied by the scale and log₂ e beforehand.
typedef struct {
    int count;
    int64_t position[GRAFT_ATTENTION_ROWS];
    _Alignas(64) float q[GRAFT_ATTENTION_ROWS * GRAFT_MAX_HEAD_DIM];  // [row][dim]
} attention_rows;

// What rows have of the keys so far: the highest score m, l = Σ 2ˢ⁻ᵐ and o = Σ 2ˢ⁻ᵐ V. m and l of four rows share a vector, four lanes each.
typedef struct {
    v16f m[ROW_GROUPS], l[ROW_GROUPS];
    _Alignas(64) float o[GRAFT_ATTENTION_ROWS * GRAFT_MAX_HEAD_DIM];  // [row][dim]
} attention_state;

ALWAYS_INLINE float of_row(const v16f *groups, int row) { return groups[row / ROW_GROUP][row % ROW_GROUP * 4]; }

// Fetches bytes begin … end of what comes next, if anything does.
ALWAYS_INLINE void fetch_ahead(const uint8_t *next, int64_t begin, int64_t end) {
    for (int64_t line = begin & ~(int64_t)63; next && line < end; line += 64) __builtin_prefetch(next + line);
}

// o[row] += Σ p[row][key] · V[key] over `vectors` × 16 components from `component`; meanwhile the same bytes of `next` are fetched, of `next_element` bytes a value.
ALWAYS_INLINE void weigh_values(const int type, const int vectors, const uint8_t *values, const uint8_t *next, int next_element, int dim, int component, int keys,
                                int rows, const float p[ROW_GROUP][32], const float *rescale, float *o) {
    v16f sum[ROW_GROUP][4];
    for (int r = 0; r < ROW_GROUP; r++)
        for (int c = 0; c < vectors; c++) sum[r][c] = load16(o + (r < rows ? r : 0) * dim + component + 16 * c) * splat(rescale[4 * r]);
    for (int key = 0; key < keys; key++) {
        v16f v[4];
        const int64_t at = (int64_t)key * dim + component;
        fetch_ahead(next, at * next_element, (at + 16 * vectors) * next_element);
        for (int c = 0; c < vectors; c++) v[c] = load_cached(type, values, at + 16 * c);
        for (int r = 0; r < ROW_GROUP; r++)
            for (int c = 0; c < vectors; c++) sum[r][c] = fma16(v[c], splat(p[r][key]), sum[r][c]);
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < vectors; c++) store16(o + r * dim + component + 16 * c, sum[r][c]);
}

// `count` halves, a multiple of 16, as floats.
ALWAYS_INLINE void widen_halves(const uint8_t *halves, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i += 16) store16(to + i, load_half16((const uint16_t *)halves + i));
}

// -∞ for those of 16 keys that a row at `position` does not see: key `start` + lane is visible if it is at or before the row's position and inside the window.
ALWAYS_INLINE v16f hide_keys(v16f score, int64_t position, int64_t window, int64_t start) {
    const v16i lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int32_t limit = position - start > 15 ? 15 : (int32_t)(position - start);
    v16i hidden = lane > (v16i){} + limit;
    if (window > 0) {
        const int64_t oldest = position - window + 1 - start;
        hidden |= lane < (v16i){} + (int32_t)(oldest > 16 ? 16 : oldest < 0 ? 0 : oldest);
    }
    return (v16f)(((v16i)score & ~hidden) | ((v16i)splat(-INFINITY) & hidden));
}

// score [row][32] = q K of `count` rows from `row` on against a block's keys, the same bytes of `next` being fetched meanwhile. Past the last row the first one
// of the four stands in.
ALWAYS_INLINE void score_keys(const int type, const int inner, const int count, const graft_attention *a, const uint8_t *block, const uint8_t *keys, int kv_head,
                              const attention_rows *rows, int row, const uint8_t *next, int element, v16f (*score)[2]) {
    const int dim = a->layout.head_dim, step = type == GRAFT_KV_Q8 ? GRAFT_KEY_GROUP : dim;
    const float *q[SCORE_ROWS];
    for (int r = 0; r < count; r++) q[r] = rows->q + (row + r < rows->count ? row + r : row) * dim;
    v16f total[SCORE_ROWS][2] = {};
    for (int first = 0; first < dim; first += step) {
        v16f sum[SCORE_ROWS][2] = {};
        for (int i = first; i < first + step; i++) {
            fetch_ahead(next, (int64_t)i * GRAFT_KV_BLOCK * element, (int64_t)(i + 1) * GRAFT_KV_BLOCK * element);
            const v16f k0 = load_cached(inner, keys, (int64_t)i * GRAFT_KV_BLOCK), k1 = load_cached(inner, keys, (int64_t)i * GRAFT_KV_BLOCK + 16);
            for (int r = 0; r < count; r++) {
                sum[r][0] = fma16(k0, splat(q[r][i]), sum[r][0]);
                sum[r][1] = fma16(k1, splat(q[r][i]), sum[r][1]);
            }
        }
        if (type == GRAFT_KV_Q8) {
            const uint16_t *scales = (const uint16_t *)(block + a->layout.key_scales) + (int64_t)(kv_head * dim + first) / GRAFT_KEY_GROUP * GRAFT_KV_BLOCK;
            const v16f s0 = load_half16(scales), s1 = load_half16(scales + 16);
            for (int r = 0; r < count; r++) total[r][0] = fma16(sum[r][0], s0, total[r][0]), total[r][1] = fma16(sum[r][1], s1, total[r][1]);
        } else {
            memcpy(total, sum, sizeof total);
        }
    }
    for (int r = 0; r < count; r++) score[row + r][0] = total[r][0], score[row + r][1] = total[r][1];
}

// Online softmax (Milakov and Gimelshein, arXiv 1805.02867) over the span's blocks first … last, from nothing: what a row meets, and in which order, depends
// on its position alone. `widens`: of a block that several groups of rows meet, halves become floats once for all of them. `ahead`: the last block that this
// thread will come to.
ALWAYS_INLINE void attend_span(const int type, const int widens, const graft_attention *a, const graft_attention_run *run, const attention_rows *rows, int kv_head,
                               int64_t first, int64_t last, int64_t ahead, attention_state *s) {
    _Alignas(64) float wide[widens ? 2 : 1][widens ? GRAFT_MAX_HEAD_DIM * GRAFT_KV_BLOCK : 16];
    const int inner = widens ? GRAFT_KV_F32 : type;
    const int dim = a->layout.head_dim;
    const int64_t plane = (int64_t)kv_head * dim * GRAFT_KV_BLOCK, end = rows->position[rows->count - 1];
    const int element = type == GRAFT_KV_F32 ? 4 : type == GRAFT_KV_F16 ? 2 : 1;
    for (int g = 0; g * ROW_GROUP < rows->count; g++) s->m[g] = splat(-1e30f), s->l[g] = splat(0);
    memset(s->o, 0, (size_t)(rows->count * dim) * sizeof(float));
    for (int64_t b = first; b <= last; b++) {
        const uint8_t *block = a->cache + run->blocks[b] * a->block_stride;
        const uint8_t *keys = block + plane * element, *values = block + a->layout.values + plane * element;
        // A block's share of a head is too short for the hardware to find a stream.
        const uint8_t *next = b < ahead ? a->cache + run->blocks[b + 1] * a->block_stride + plane * element : NULL;
        const int64_t start = b * GRAFT_KV_BLOCK;
        const int present = end - start + 1 < GRAFT_KV_BLOCK ? (int)(end - start + 1) : GRAFT_KV_BLOCK;
        if (widens) {
            widen_halves(keys, (int64_t)dim * GRAFT_KV_BLOCK, wide[0]);
            widen_halves(values, (int64_t)dim * present, wide[widens]);
            keys = (const uint8_t *)wide[0], values = (const uint8_t *)wide[widens];
        }
        v16f scores[GRAFT_ATTENTION_ROWS][2];
        int row = 0;
        for (; row + SCORE_ROWS <= rows->count; row += SCORE_ROWS)
            score_keys(type, inner, SCORE_ROWS, a, block, keys, kv_head, rows, row, row == 0 ? next : NULL, element, scores);
        for (; row < rows->count; row += ROW_GROUP) score_keys(type, inner, ROW_GROUP, a, block, keys, kv_head, rows, row, row == 0 ? next : NULL, element, scores);
        for (int base = 0; base < rows->count; base += ROW_GROUP) {
            const int count = rows->count - base < ROW_GROUP ? rows->count - base : ROW_GROUP, group = base / ROW_GROUP;
            const uint8_t *next_values = base == 0 && next ? next + a->layout.values : NULL;
            const int64_t *position = rows->position + base;
            v16f(*score)[2] = scores + base;
            // Positions rise from row to row.
            if (position[0] < start + GRAFT_KV_BLOCK - 1 || (a->window > 0 && position[count - 1] - a->window + 1 > start))
                for (int r = 0; r < ROW_GROUP; r++)
                    for (int h = 0; h < 2; h++) score[r][h] = hide_keys(score[r][h], position[r < count ? r : 0], a->window, start + 16 * h);
            v16f p[ROW_GROUP][2];
            const v16f highest = max_of_four(max16(score[0][0], score[0][1]), max16(score[1][0], score[1][1]), max16(score[2][0], score[2][1]), max16(score[3][0], score[3][1]));
            const v16f m = max16(highest, s->m[group]), rescale = power_of_two(s->m[group] - m);
            const v16f of[ROW_GROUP] = {QUARTER(m, 0), QUARTER(m, 1), QUARTER(m, 2), QUARTER(m, 3)};
            s->m[group] = m;
            for (int r = 0; r < ROW_GROUP; r++)
                for (int h = 0; h < 2; h++) p[r][h] = power_of_two(score[r][h] - of[r]);
            s->l[group] = fma16(s->l[group], rescale, sum_of_four(p[0][0] + p[0][1], p[1][0] + p[1][1], p[2][0] + p[2][1], p[3][0] + p[3][1]));
            _Alignas(64) float weights[ROW_GROUP][32], rescales[16];
            for (int r = 0; r < ROW_GROUP; r++) {
                if (type == GRAFT_KV_Q8) {
                    const uint16_t *scales = (const uint16_t *)(block + a->layout.value_scales) + kv_head * GRAFT_KV_BLOCK;
                    p[r][0] = p[r][0] * load_half16(scales), p[r][1] = p[r][1] * load_half16(scales + 16);
                }
                store16(weights[r], p[r][0]), store16(weights[r] + 16, p[r][1]);
            }
            store16(rescales, rescale);
            int component = 0;
            for (; component + 64 <= dim; component += 64)
                weigh_values(inner, 4, values, next_values, element, dim, component, present, count, weights, rescales, s->o + base * dim);
            for (; component < dim; component += 16)
                weigh_values(inner, 1, values, next_values, element, dim, component, present, count, weights, rescales, s->o + base * dim);
        }
    }
}

// Adds what a row has of one span to what it has of the spans before it. A span of which it sees nothing leaves no trace.
ALWAYS_INLINE void join_span(int dim, float *m, float *l, float *o, float span_m, float span_l, const float *span_o) {
    if (span_l == 0) return;
    if (*l == 0) {
        *m = span_m, *l = span_l;
        memcpy(o, span_o, (size_t)dim * sizeof(float));
        return;
    }
    const float highest = *m > span_m ? *m : span_m;
    v16f change = {};
    change[0] = *m - highest, change[1] = span_m - highest;
    const v16f weights = power_of_two(change), mine = splat(weights[0]), its = splat(weights[1]);
    *m = highest;
    *l = fmaf(span_l, weights[1], *l * weights[0]);
    for (int i = 0; i < dim; i += 16) store16(o + i, fma16(load16(span_o + i), its, load16(o + i) * mine));
}

ALWAYS_INLINE void store_attended(const graft_attention *a, const graft_attention_run *run, int64_t token, int kv_head, int row, float l, const float *o) {
    const int dim = a->layout.head_dim, group = a->heads / a->layout.kv_heads;
    const int64_t r = run->row + token + row / group, column = (int64_t)(kv_head * group + row % group) * dim;
    const v16f inverse = splat(1.0f / l);
    if (a->quantised) {
        const graft_activation_layout layout = graft_activation_layout_for((int64_t)a->heads * dim);
#define NEXT(i) (load16(o + (i)) * inverse)
        QUANTIZE_COLUMNS(column, dim, &layout, a->quantised + r * a->quantised_stride, NEXT);
#undef NEXT
        return;
    }
    float *out = (float *)((uint8_t *)a->out + r * a->out_stride) + column;
    for (int i = 0; i < dim; i += 16) store16(out + i, load16(o + i) * inverse);
}

// One tile of a run with one head of keys: all spans in order or, if threads share them, `span` alone; then whoever comes last joins them in the same order.
ALWAYS_INLINE void attend(
    const int type, const int widens, const graft_attention *a, const graft_attention_run *run, int64_t token, int64_t tokens, int kv_head, int64_t span) {
    const int dim = a->layout.head_dim, group = a->heads / a->layout.kv_heads;
    attention_rows rows;
    rows.count = (int)tokens * group;
    const v16f scale = splat(a->scale * LOG2_E);
    for (int r = 0; r < rows.count; r++) {
        rows.position[r] = run->position + token + r / group;
        const float *q = (const float *)((const uint8_t *)a->q + (run->row + token + r / group) * a->q_stride) + (kv_head * group + r % group) * dim;
        for (int i = 0; i < dim; i += 16) store16(rows.q + r * dim + i, load16(q + i) * scale);
    }
    const span_range range = spans_of(a, run->position + token, tokens);
    // What is this thread's: all spans, or one.
    const int64_t begin = run->partials ? span : 0, end = run->partials ? span + 1 : range.count;
    attention_state s, next;
    for (int64_t i = begin; i < end; i++) {
        attend_span(type, widens, a, run, &rows, kv_head, span_begin(&range, i), span_end(&range, i), span_end(&range, end - 1), i == begin ? &s : &next);
        for (int r = 0; i > begin && r < rows.count; r++) {
            float m = of_row(s.m, r), l = of_row(s.l, r);
            join_span(dim, &m, &l, s.o + r * dim, of_row(next.m, r), of_row(next.l, r), next.o + r * dim);
            s.m[r / ROW_GROUP][r % ROW_GROUP * 4] = m, s.l[r / ROW_GROUP][r % ROW_GROUP * 4] = l;
        }
    }
    if (!run->partials) {
        for (int r = 0; r < rows.count; r++) store_attended(a, run, token, kv_head, r, of_row(s.l, r), s.o + r * dim);
        return;
    }
    const int64_t width = PARTIAL_HEAD + dim, size = rows.count * width;
    float *partials = run->partials + (int64_t)a->layout.kv_heads * PARTIAL_HEAD + kv_head * range.count * size, *mine = partials + span * size;
    for (int r = 0; r < rows.count; r++, mine += width) {
        mine[0] = of_row(s.m, r), mine[1] = of_row(s.l, r);
        memcpy(mine + PARTIAL_HEAD, s.o + r * dim, (size_t)dim * sizeof(float));
    }
    uint32_t *done = (uint32_t *)(run->partials + kv_head * PARTIAL_HEAD);
    if (__atomic_add_fetch(done, 1, __ATOMIC_ACQ_REL) < range.count) return;
    for (int r = 0; r < rows.count; r++) {
        float *total = partials + r * width;
        for (int64_t i = 1; i < range.count; i++)
            join_span(dim, &total[0], &total[1], total + PARTIAL_HEAD, total[i * size], total[i * size + 1], total + i * size + PARTIAL_HEAD);
        store_attended(a, run, token, kv_head, r, total[1], total + PARTIAL_HEAD);
    }
}

static void NAME(attention)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_attention *a = context;
    const int64_t tile = graft_attention_tile_tokens(a);
    const int kv_heads = a->layout.kv_heads;
    int64_t base = 0;
    for (int64_t i = 0; i < a->run_count && base < (int64_t)end; i++) {
        const graft_attention_run *run = &a->runs[i];
        const int64_t items = graft_attention_items(a, run), spans = run->partials ? items / kv_heads : 1;
        for (int64_t item = base > (int64_t)begin ? base : (int64_t)begin; item < base + items && item < (int64_t)end; item++) {
            // A run whose spans are shared is a single tile.
            const int64_t span = (item - base) % spans, work = (item - base) / spans;
            const int64_t token = work / kv_heads * tile, left = run->count - token;
            const int64_t tokens = left < tile ? left : tile;
            const int head = (int)(work % kv_heads);
            switch (a->layout.type) {
            case GRAFT_KV_F32: attend(GRAFT_KV_F32, 0, a, run, token, tokens, head, span); break;
            case GRAFT_KV_F16:
                if (tokens * (a->heads / kv_heads) > 2 * ROW_GROUP)
                    attend(GRAFT_KV_F16, 1, a, run, token, tokens, head, span);
                else
                    attend(GRAFT_KV_F16, 0, a, run, token, tokens, head, span);
                break;
            default: attend(GRAFT_KV_Q8, 0, a, run, token, tokens, head, span);
            }
        }
        base += items;
    }
}

#endif
