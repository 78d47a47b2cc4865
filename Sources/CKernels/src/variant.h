// One variant's kernels. Each variant's source file sets its target features, defines VARIANT (a name prefix), load_half16,
// store_half16 and the quantised tile, and includes this file: the float kernels are written once, in clang's vector extension, and
// compile to 512-bit, 256-bit or scalar code with the same operations in the same order.
#ifndef VARIANT
#error "include through a variant's source file"
#endif

#include "vectors.h"

#include <sched.h>

// ------------------------------------------------------------------------------------------------------------ expansion

// Scales and offsets of the 16 rows for the block of columns that holds k.
ALWAYS_INLINE void panel_scales16(const int kind, const graft_panels *p, const uint8_t *panel, int64_t k, v16f *scale, v16f *offset) {
    const uint16_t *d = (const uint16_t *)(panel + p->scale), *m = (const uint16_t *)(panel + p->minimum);
    *offset = splat(0);
    if (!panel_is_k(kind)) {
        *scale = load_half16(d + k / 32 * 16);
        if (panel_has_min(kind)) *offset = load_half16(m + k / 32 * 16);
        return;
    }
    int64_t sub = k / panel_sub_block(kind) * 16;
    if (kind == GRAFT_PANEL_W8_K16) {
        v16b s;
        memcpy(&s, panel + p->sub_scale + sub, sizeof s);
        *scale = load_half16(d + k / 256 * 16) * __builtin_convertvector(__builtin_convertvector(s, v16i), v16f);
    } else {
        v16u s;
        memcpy(&s, panel + p->sub_scale + sub, sizeof s);
        *scale = load_half16(d + k / 256 * 16) * __builtin_convertvector(__builtin_convertvector(s, v16i), v16f);
    }
    if (panel_has_min(kind)) {
        v16u s;
        memcpy(&s, panel + p->sub_min + sub, sizeof s);
        *offset = -(load_half16(m + k / 256 * 16) * __builtin_convertvector(__builtin_convertvector(s, v16i), v16f));
    }
}

// Columns begin … end of one panel of a quantised kind; both are multiples of 16.
ALWAYS_INLINE void expand_quantised(const int kind, const graft_panels *p, const uint8_t *panel, int64_t begin, int64_t end, float *v) {
    const v16i zero = (v16i)((v16i){} + p->zero), low_nibble = (v16i){} + 15, byte = (v16i){} + 255;
    for (int64_t k = begin; k < end; k += 16) {
        v16f scale, offset;
        panel_scales16(kind, p, panel, k, &scale, &offset);
        for (int64_t g = k; g < k + 16; g += 4, v += 64) {
            v16i word;
            memcpy(&word, panel + p->quants + (panel_is_w4(kind) ? g / 8 * 64 : g / 4 * 64), sizeof word);
            for (int i = 0; i < 4; i++) {
                v16i u = panel_is_w4(kind) ? (word >> (8 * i + (g % 8 ? 4 : 0))) & low_nibble : (word >> (8 * i)) & byte;
                v16f value = scale * __builtin_convertvector(u - zero, v16f);
                store16(v + 16 * i, panel_has_min(kind) ? value + offset : value);
            }
        }
    }
}

static void NAME(expand_panel)(const graft_panels *p, int64_t index, int64_t begin, int64_t end, float *v) {
    const uint8_t *panel = p->data + index * p->panel_bytes;
    switch (p->kind) {
#define EXPAND(kind) \
    case kind: expand_quantised(kind, p, panel, begin, end, v); break;
        EXPAND(GRAFT_PANEL_W4_HALF)
        EXPAND(GRAFT_PANEL_W4_HALF_MIN)
        EXPAND(GRAFT_PANEL_W4_K_MIN)
        EXPAND(GRAFT_PANEL_W8_HALF)
        EXPAND(GRAFT_PANEL_W8_HALF_MIN)
        EXPAND(GRAFT_PANEL_W8_K_MIN)
        EXPAND(GRAFT_PANEL_W8_K16)
        EXPAND(GRAFT_PANEL_W8_K16_MIN)
#undef EXPAND
    case GRAFT_PANEL_F16:
        for (int64_t k = begin; k < end; k++, v += 16) store16(v, load_half16((const uint16_t *)panel + k * 16));
        break;
    case GRAFT_PANEL_BF16:
        for (int64_t k = begin; k < end; k++)
            for (int r = 0; r < 16; r++) *v++ = float_of_bits((uint32_t)((const uint16_t *)panel)[k * 16 + r] << 16);
        break;
    default: memcpy(v, (const float *)panel + begin * 16, (size_t)(end - begin) * 64);
    }
}

// ---------------------------------------------------------------------------------------------------------------- matmul

// A float tile has at most FLOAT_TOKENS rows, a quantised one TILE_TOKENS, which is less.
enum { FLOAT_SLAB = 128, FLOAT_TOKENS = 8 };

// sum += scale · B h for `count` rows that carry the same B, over one panel of it: a line of B is loaded once for all of them.
ALWAYS_INLINE void add_low_rank_panel(const graft_lora_share *const *shares, float *const *sums, const int count, const uint8_t *b, int64_t sum_offset) {
    int_lanes dot[FLOAT_TOKENS];
    for (int k = 0; k < count; k++) dot[k] = NAME(low_rank_start)(shares[k]->q_sum);
    for (int j = 0; j < shares[0]->rank; j += 4) {
        int_lanes line;
        memcpy(&line, b + 64 + j * GRAFT_PANEL_ROWS, sizeof line);
        for (int k = 0; k < count; k++) dot[k] = NAME(low_rank_dot)(dot[k], line, shares[k]->q + j);
    }
    for (int k = 0; k < count; k++) {
        float *sum = sums[k] + sum_offset;
        store16(sum, fma16(__builtin_convertvector(dot[k], v16f), load16((const float *)b) * splat(shares[k]->scale), load16(sum)));
    }
}

// sum += scale · B h for one row and one panel of B.
ALWAYS_INLINE void add_low_rank_row(const graft_lora_share *share, const uint8_t *b, const int rank, float *sum) {
    int_lanes dot = NAME(low_rank_start)(share->q_sum);
    for (int j = 0; j < rank; j += 4) {
        int_lanes line;
        memcpy(&line, b + 64 + j * GRAFT_PANEL_ROWS, sizeof line);
        dot = NAME(low_rank_dot)(dot, line, share->q + j);
    }
    store16(sum, fma16(__builtin_convertvector(dot, v16f), load16((const float *)b) * splat(share->scale), load16(sum)));
}

// Rows with one adapter at most each: what is shared between them is not worth looking for.
ALWAYS_INLINE void add_single_low_ranks(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int count, const graft_lora_span *spans,
                                        const uint8_t *hidden, int tokens, float *sums) {
    for (int t = 0; t < tokens; t++) {
        const graft_lora_share *share = (const graft_lora_share *)(hidden + t * m->lora.hidden_stride) + part->pair;
        if (spans[t].count == 0 || share->rank == 0) continue;
        const uint8_t *b = share->b + panel * low_rank_panel_bytes(share->rank);
        float *sum = sums + t * GRAFT_PANEL_ROWS;
        for (int p = 0; p < count; p++, b += low_rank_panel_bytes(share->rank), sum += tokens * GRAFT_PANEL_ROWS) {
            if (share->rank == 16) add_low_rank_row(share, b, 16, sum);
            else add_low_rank_row(share, b, share->rank, sum);
        }
    }
}

// Until the threads that share h of the only row have all of it.
ALWAYS_INLINE void await_deferred(const graft_lora_deferred *d) {
    for (int spins = 1; !__atomic_load_n(&d->ready, __ATOMIC_ACQUIRE); spins++) {
        relax();
        // Whoever has the rest may wait for this very core.
        if (spins % 1024 == 0) sched_yield();
    }
}

// sums [count][tokens][16] += the adapters' share of `count` panels of the part's output: the rows' first adapters, then their second ones, …
static __attribute__((noinline)) void NAME(add_low_rank)(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int count, int64_t token,
                                                         int tokens, float *sums) {
    if (m->lora.deferred) await_deferred(m->lora.deferred);
    const graft_lora_span *spans = m->lora.rows + token;
    const uint8_t *hidden = m->lora.hidden + token * m->lora.hidden_stride;
    int most = 0;
    for (int t = 0; t < tokens; t++) most |= spans[t].count;
    if (most <= 1) {
        add_single_low_ranks(m, part, panel, count, spans, hidden, tokens, sums);
        return;
    }
    for (int i = 0;; i++) {
        const graft_lora_share *shares[FLOAT_TOKENS];
        float *to[FLOAT_TOKENS];
        int found = 0, more = 0;
        for (int t = 0; t < tokens; t++) {
            if (i >= spans[t].count) continue;
            more |= i + 1 < spans[t].count;
            // The first term's h lies at the beginning of the row's.
            const uint8_t *h = hidden + t * m->lora.hidden_stride + (i > 0 ? m->lora.terms[spans[t].first + i].hidden : 0);
            shares[found] = (const graft_lora_share *)h + part->pair;
            to[found] = sums + t * GRAFT_PANEL_ROWS;
            found += shares[found]->rank > 0;
        }
        for (int first = 0, next; first < found; first = next) {
            const uint8_t *all = shares[first]->b;
            for (next = first + 1; next < found && shares[next]->b == all;) next++;
            for (int p = 0; p < count; p++) {
                const uint8_t *b = all + (panel + p) * low_rank_panel_bytes(shares[first]->rank);
                const int64_t sum_offset = (int64_t)p * tokens * GRAFT_PANEL_ROWS;
                switch (next - first) {
#define GROUP(n) \
    case n: add_low_rank_panel(shares + first, to + first, n, b, sum_offset); break;
                    GROUP(1)
                    GROUP(2)
                    GROUP(3)
                    GROUP(4)
                    GROUP(5)
                    GROUP(6)
                    GROUP(7)
                    GROUP(8)
#undef GROUP
                default: break;
                }
            }
        }
        if (!more) return;
    }
}

ALWAYS_INLINE void store_panel_result(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, v16f sum) {
    const int64_t row = panel * GRAFT_PANEL_ROWS, left = part->weights.rows - row;
    float *y = part->y + token * part->ldy + row;
    if (left >= GRAFT_PANEL_ROWS) {
        if (part->bias) sum = sum + load16(part->bias + row);
        store16(y, m->accumulate ? load16(y) + sum : sum);
        return;
    }
    for (int64_t i = 0; i < left; i++) {
        float value = part->bias ? sum[i] + part->bias[row + i] : sum[i];
        y[i] = m->accumulate ? y[i] + value : value;
    }
}

// Float32 rows against one panel: each output is four running sums over k mod 4, added as (0 + 1) + (2 + 3).
ALWAYS_INLINE void float_tile(const graft_matmul *m, const graft_matmul_part *part, int64_t panel, int64_t token, const int tokens) {
    const int64_t cols = part->weights.cols;
    _Alignas(64) float slab[FLOAT_SLAB * 16];
    v16f sum[FLOAT_TOKENS][4] = {};
    const float *x[FLOAT_TOKENS];
    for (int t = 0; t < tokens; t++) x[t] = (const float *)((const uint8_t *)m->x + (token + t) * m->x_stride);
    for (int64_t begin = 0; begin < cols; begin += FLOAT_SLAB) {
        const int64_t end = begin + FLOAT_SLAB < cols ? begin + FLOAT_SLAB : cols;
        NAME(expand_panel)(&part->weights, panel, begin, end, slab);
        int64_t k = begin;
        for (; k + 4 <= end; k += 4)
            for (int i = 0; i < 4; i++) {
                v16f w = load16(slab + (k - begin + i) * 16);
                for (int t = 0; t < tokens; t++) sum[t][i] = fma16(w, splat(x[t][k + i]), sum[t][i]);
            }
        for (; k < end; k++)
            for (int t = 0; t < tokens; t++) sum[t][k % 4] = fma16(load16(slab + (k - begin) * 16), splat(x[t][k]), sum[t][k % 4]);
    }
    _Alignas(64) float totals[FLOAT_TOKENS][GRAFT_PANEL_ROWS];
    for (int t = 0; t < tokens; t++) store16(totals[t], (sum[t][0] + sum[t][1]) + (sum[t][2] + sum[t][3]));
    if (has_low_rank(m, part)) NAME(add_low_rank)(m, part, panel, 1, token, tokens, totals[0]);
    for (int t = 0; t < tokens; t++) store_panel_result(m, part, panel, token + t, load16(totals[t]));
}

static void float_panel(const graft_matmul *m, const graft_matmul_part *part, int64_t panel) {
    int64_t t = 0;
    for (; t + FLOAT_TOKENS <= m->tokens; t += FLOAT_TOKENS) float_tile(m, part, panel, t, FLOAT_TOKENS);
    for (; t + 2 <= m->tokens; t += 2) float_tile(m, part, panel, t, 2);
    for (; t < m->tokens; t++) float_tile(m, part, panel, t, 1);
}

// All tokens first … last against panels `panel` and, if count is 2, `panel + 1`. The tiles share the fetching of the panels that come next: all of
// it at once would ask for more than the memory gives, and leave it idle afterwards.
ALWAYS_INLINE void quantised_panels(const int kind, const graft_matmul *m, const graft_matmul_part *part, int64_t panel, const int count,
                                    int64_t first, int64_t last, tile_ahead *ahead) {
#if TILE_TOKENS > 1
    if (last - first == 1) {
        // One row is bound by memory: panel after panel, so that the weights are one stream.
        for (int i = 0; i < count; i++) {
            tile_ahead *after = i + 1 < count ? &(tile_ahead){.panels = part->weights.data + (panel + 1) * part->weights.panel_bytes} : ahead;
            NAME(tile)(kind, m, part, panel + i, 1, first, 1, after, 0, 1);
        }
        return;
    }
#endif
    const int64_t tiles = (last - first + TILE_TOKENS - 1) / TILE_TOKENS;
    int64_t t = first, i = 0;
    for (; t + TILE_TOKENS <= last; t += TILE_TOKENS, i++) NAME(tile)(kind, m, part, panel, count, t, TILE_TOKENS, ahead, i, tiles);
    switch (last - t) {
#if TILE_TOKENS > 5
    case 5: NAME(tile)(kind, m, part, panel, count, t, 5, ahead, i, tiles); break;
#endif
#if TILE_TOKENS > 4
    case 4: NAME(tile)(kind, m, part, panel, count, t, 4, ahead, i, tiles); break;
#endif
#if TILE_TOKENS > 3
    case 3: NAME(tile)(kind, m, part, panel, count, t, 3, ahead, i, tiles); break;
#endif
#if TILE_TOKENS > 2
    case 2: NAME(tile)(kind, m, part, panel, count, t, 2, ahead, i, tiles); break;
#endif
#if TILE_TOKENS > 1
    case 1: NAME(tile)(kind, m, part, panel, count, t, 1, ahead, i, tiles); break;
#endif
    default: break;
    }
}

#define KIND_PANELS(kind)                                                                                                            \
    static __attribute__((noinline)) void NAME(panels_##kind)(const graft_matmul *m, const graft_matmul_part *part, int64_t panel,    \
                                                              int count, int64_t first, int64_t last, tile_ahead *ahead) {           \
        if (count == 2)                                                                                                              \
            quantised_panels(kind, m, part, panel, 2, first, last, ahead);                                                           \
        else                                                                                                                         \
            quantised_panels(kind, m, part, panel, 1, first, last, ahead);                                                           \
    }
KIND_PANELS(GRAFT_PANEL_W4_HALF)
KIND_PANELS(GRAFT_PANEL_W4_HALF_MIN)
KIND_PANELS(GRAFT_PANEL_W4_K_MIN)
KIND_PANELS(GRAFT_PANEL_W8_HALF)
KIND_PANELS(GRAFT_PANEL_W8_HALF_MIN)
KIND_PANELS(GRAFT_PANEL_W8_K_MIN)
KIND_PANELS(GRAFT_PANEL_W8_K16)
KIND_PANELS(GRAFT_PANEL_W8_K16_MIN)

// Rows that stay in the second-level cache while every panel of a chunk passes over them.
enum { TOKEN_BLOCK_BYTES = 384 * 1024 };

static void NAME(share_deferred)(const graft_lora *lora);

static void NAME(matmul)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_matmul *m = context;
    if (m->lora.rows && m->lora.deferred) NAME(share_deferred)(&m->lora);
    int64_t block = m->quantised ? TOKEN_BLOCK_BYTES / m->x_stride / TILE_TOKENS * TILE_TOKENS : m->tokens;
    if (block < TILE_TOKENS) block = TILE_TOKENS;
#ifdef SLAB_TOKENS
    if (m->quantised && block > SLAB_TOKENS) block = SLAB_TOKENS;
#endif
    for (int64_t first = 0; first < m->tokens; first += block) {
        const int64_t last = first + block < m->tokens ? first + block : m->tokens;
        int64_t base = 0;
        for (int64_t i = 0; i < m->part_count; i++) {
            const graft_matmul_part *part = &m->parts[i];
            const int64_t units = matmul_part_units(part), panels = panel_count(&part->weights);
            int64_t from = (int64_t)begin - base, to = (int64_t)end - base;
            base += units;
            if (from < 0) from = 0;
            if (to > units) to = units;
#ifdef SLAB_TOKENS
            if (m->quantised && last - first >= GRAFT_MANY_ROWS) {
                if (from >= to) continue;
                NAME(slabs)(m, part, 2 * from, 2 * to < panels ? 2 * to : panels, first, last);
                continue;
            }
#endif
            const int64_t tiles = (last - first + TILE_TOKENS - 1) / TILE_TOKENS, steps = tiles * ((part->weights.cols + GRAFT_BLOCK - 1) / GRAFT_BLOCK);
            if (from < to && first == 0) {
                low_rank_fetch now = low_rank_fetch_over(m, part, 2 * from, 2 * from + 1 < panels ? 2 : 1, 1);
                low_rank_fetch_lines(&now, now.pace);
            }
            for (int64_t u = from; u < to; u++) {
                const int count = 2 * u + 1 < panels ? 2 : 1;
                const int64_t next = 2 * u + 2, next_count = next + 1 < panels ? 2 : panels - next;
                tile_ahead ahead = {.panels = next_count > 0 ? part->weights.data + next * part->weights.panel_bytes : NULL,
                                    .low_rank = low_rank_fetch_over(m, part, next, first == 0 ? next_count : 0, steps)};
                if (!m->quantised) {
                    for (int j = 0; j < count; j++) float_panel(m, part, 2 * u + j);
                    continue;
                }
                switch (part->weights.kind) {
#define RUN(kind) \
    case kind: NAME(panels_##kind)(m, part, 2 * u, count, first, last, &ahead); break;
                    RUN(GRAFT_PANEL_W4_HALF)
                    RUN(GRAFT_PANEL_W4_HALF_MIN)
                    RUN(GRAFT_PANEL_W4_K_MIN)
                    RUN(GRAFT_PANEL_W8_HALF)
                    RUN(GRAFT_PANEL_W8_HALF_MIN)
                    RUN(GRAFT_PANEL_W8_K_MIN)
                    RUN(GRAFT_PANEL_W8_K16)
                    RUN(GRAFT_PANEL_W8_K16_MIN)
#undef RUN
                default: break;
                }
            }
        }
        if (!m->quantised) break;
    }
}

// ---------------------------------------------------------------------------------------------------------- quantisation

// The nearest integers of numbers up to 2²²: adding 1.5 · 2²³ leaves them in the low bits of the float.
ALWAYS_INLINE v16i rounded16(v16f x) {
    const v16f shift = splat(12582912.0f), rounded = x + shift;
    v16i q, bits;
    memcpy(&q, &rounded, sizeof q);
    memcpy(&bits, &shift, sizeof bits);
    return q - bits;
}

// `count` blocks of a row from `block` on, at most four, each two vectors: their largest, sums and scales are found side by side.
ALWAYS_INLINE void quantize_blocks(const int count, const v16f *x, const graft_activation_layout *a, int64_t block, uint8_t *row) {
    v16f most[4];
    for (int i = 0; i < 4; i++) most[i] = max16(__builtin_elementwise_abs(x[i < count ? 2 * i : 0]), __builtin_elementwise_abs(x[i < count ? 2 * i + 1 : 1]));
    // Four lanes for each block.
    const v16f largest = max_of_four(most[0], most[1], most[2], most[3]), scale = largest / splat(127.0f);
    const v16f inverse = (v16f)((v16i)(splat(127.0f) / largest) & (largest > splat(0)));
    const v16f inverses[4] = {QUARTER(inverse, 0), QUARTER(inverse, 1), QUARTER(inverse, 2), QUARTER(inverse, 3)};
    v16i q[4][2] = {};
    for (int i = 0; i < count; i++)
        for (int h = 0; h < 2; h++) {
            q[i][h] = rounded16(x[2 * i + h] * inverses[i]);
            const v16b bytes = __builtin_convertvector(q[i][h], v16b);
            memcpy(row + 32 * (block + i) + 16 * h, &bytes, sizeof bytes);
        }
    const v16i low = integer_sum_of_four(q[0][0], q[1][0], q[2][0], q[3][0]), high = integer_sum_of_four(q[0][1], q[1][1], q[2][1], q[3][1]);
    const v8i s16 = __builtin_shufflevector(low, high, 0, 16, 4, 20, 8, 24, 12, 28);
    const v4i s32 = __builtin_shufflevector(low + high, low, 0, 4, 8, 12);
    const v4f d = __builtin_shufflevector(scale, scale, 0, 4, 8, 12);
    const v4f ds32 = d * __builtin_convertvector(s32, v4f);
    const v8f ds16 = __builtin_shufflevector(d, d, 0, 0, 1, 1, 2, 2, 3, 3) * __builtin_convertvector(s16, v8f);
    memcpy(row + a->d + 4 * block, &d, (size_t)count * 4);
    memcpy(row + a->ds32 + 4 * block, &ds32, (size_t)count * 4);
    memcpy(row + a->s32 + 4 * block, &s32, (size_t)count * 4);
    memcpy(row + a->ds16 + 8 * block, &ds16, (size_t)count * 8);
    memcpy(row + a->s16 + 8 * block, &s16, (size_t)count * 8);
}

// The blocks of `columns` columns, a multiple of 32, from column `begin` of a row on. `next(i)` are the 16 values from the i-th of them on.
#define QUANTIZE_COLUMNS(begin, columns, layout, row, next)                                           \
    do {                                                                                              \
        const int64_t first_ = (begin) / 32, end_ = (columns);                                        \
        int64_t i_ = 0;                                                                               \
        v16f values_[8];                                                                              \
        for (; i_ + 128 <= end_; i_ += 128) {                                                         \
            for (int v_ = 0; v_ < 8; v_++) values_[v_] = next(i_ + 16 * v_);                          \
            quantize_blocks(4, values_, layout, first_ + i_ / 32, row);                               \
        }                                                                                             \
        for (int64_t v_ = 0; v_ < (end_ - i_) / 16; v_++) values_[v_] = next(i_ + 16 * v_);           \
        switch ((end_ - i_) / 32) {                                                                   \
        case 3: quantize_blocks(3, values_, layout, first_ + i_ / 32, row); break;                    \
        case 2: quantize_blocks(2, values_, layout, first_ + i_ / 32, row); break;                    \
        case 1: quantize_blocks(1, values_, layout, first_ + i_ / 32, row); break;                    \
        default: break;                                                                               \
        }                                                                                             \
    } while (0)

static void NAME(quantize_row)(const float *x, int64_t cols, uint8_t *row) {
    const graft_activation_layout a = graft_activation_layout_for(cols);
#define NEXT(i) load16(x + (i))
    QUANTIZE_COLUMNS(0, cols, &a, row, NEXT);
#undef NEXT
}

enum { LORA_ROWS = 2 * TILE_TOKENS };

// h [stacked] of one row and term, quantised with a scale per projection that has the adapter's weight in it; hidden begins with the shares.
ALWAYS_INLINE void quantise_hidden(const graft_lora_term *term, const graft_lora_stage *stage, const float *h, uint8_t *hidden) {
    for (int p = 0; p < GRAFT_LORA_PAIRS; p++) {
        const graft_lora_pair *pair = &stage->pairs[p];
        graft_lora_share *share = (graft_lora_share *)hidden + p;
        share->rank = pair->rank;
        if (pair->rank == 0) continue;
        const float *from = h + pair->offset;
        const int whole = pair->rank / 16 * 16;
        v16f most = {};
        for (int j = 0; j < whole; j += 16) most = max16(most, __builtin_elementwise_abs(load16(from + j)));
        float largest = max_lanes(most);
        for (int j = whole; j < pair->rank; j++) largest = fabsf(from[j]) > largest ? fabsf(from[j]) : largest;
        const float inverse = largest > 0 ? 127.0f / largest : 0;
        int8_t *q = (int8_t *)((graft_lora_share *)hidden + GRAFT_LORA_PAIRS) + pair->offset;
        int32_t sum = 0;
        for (int j = 0; j < whole; j += 16) {
            const v16i values = rounded16(load16(from + j) * splat(inverse));
            const v16b bytes = __builtin_convertvector(values, v16b);
            memcpy(q + j, &bytes, sizeof bytes);
            sum += __builtin_reduce_add(values);
        }
        for (int j = whole; j < pair->rank; j++) {
            const int32_t value = (int32_t)(from[j] * inverse + 12582912.0f - 12582912.0f);
            q[j] = (int8_t)value;
            sum += value;
        }
        share->b = pair->b;
        share->q = (const uint8_t *)q;
        share->scale = largest / 127.0f * term->weight;
        share->q_sum = sum;
    }
}

// How many panels A has over all terms of a step of one row.
ALWAYS_INLINE int32_t deferred_panels(const graft_lora *lora) {
    int64_t panels = 0;
    for (int64_t i = 0; i < lora->term_count; i++) panels += panel_count(&lora->terms[i].stages[lora->stage].a);
    return (int32_t)panels;
}

// The A that panel `panel` of all terms lies in: its term, and the panel's number in it.
ALWAYS_INLINE const graft_panels *deferred_panel(const graft_lora *lora, int32_t *term, int32_t *panel) {
    for (;; ++*term) {
        const graft_panels *a = &lora->terms[*term].stages[lora->stage].a;
        if (*panel < panel_count(a)) return a;
        *panel -= (int32_t)panel_count(a);
    }
}

ALWAYS_INLINE void quantise_deferred(const graft_lora *lora) {
    for (int64_t i = 0; i < lora->term_count; i++) {
        const graft_lora_term *term = &lora->terms[i];
        quantise_hidden(term, &term->stages[lora->stage], lora->deferred->h[i], lora->hidden + term->hidden);
    }
}

// Fetches the first panels of A of a row's adapters, while the row is still being normed and quantised.
ALWAYS_INLINE void prefetch_hidden(const graft_lora *lora, int64_t row) {
    const graft_lora_span span = lora->rows[row];
    for (int i = 0; i < span.count; i++) {
        const graft_panels *a = &lora->terms[span.first + i].stages[lora->stage].a;
        const int64_t first = lora->deferred ? a->panel_bytes : 2 * a->panel_bytes, most = first < 16384 ? first : 16384, bytes = panel_count(a) * a->panel_bytes;
        for (int64_t line = 0; line < (bytes < most ? bytes : most); line += 64) __builtin_prefetch(a->data + line);
    }
}

// Where the A begins that is read after term i - 1 of `row`: that of the row's next term, or of the first one of row `next`.
ALWAYS_INLINE const uint8_t *first_hidden_panel(const graft_lora *lora, int64_t row, int64_t next, int64_t end, int64_t i) {
    if (i == lora->rows[row].count) {
        if (next == end || lora->rows[next].count == 0) return NULL;
        row = next;
        i = 0;
    }
    return lora->terms[lora->rows[row].first + i].stages[lora->stage].a.data;
}

// h = A x for the quantised rows begin … end. Neighbours with the same adapters read A once.
static void NAME(low_rank_hidden)(const graft_lora *lora, int64_t begin, int64_t end, const uint8_t *x, int64_t x_stride) {
    _Alignas(64) float h[LORA_ROWS][GRAFT_LORA_PAIRS * GRAFT_LORA_MAX_RANK];
    int64_t next;
    for (int64_t row = begin; row < end; row = next) {
        const graft_lora_span span = lora->rows[row];
        next = row + 1;
        while (next < end && next < row + LORA_ROWS && lora->rows[next].first == span.first && lora->rows[next].count == span.count) next++;
        for (int i = 0; i < span.count; i++) {
            const graft_lora_term *term = &lora->terms[span.first + i];
            const graft_lora_stage *stage = &term->stages[lora->stage];
            const graft_matmul product = {
                .parts = {{.weights = stage->a, .y = h[0], .ldy = sizeof h[0] / sizeof(float), .pair = -1}},
                .part_count = 1, .x = x + row * x_stride, .x_stride = x_stride, .tokens = next - row, .quantised = 1};
            const int64_t panels = panel_count(&stage->a);
            for (int64_t panel = 0; panel < panels; panel += 2) {
                tile_ahead ahead = {.panels = panel + 2 < panels ? stage->a.data + (panel + 2) * stage->a.panel_bytes : first_hidden_panel(lora, row, next, end, i + 1)};
                NAME(panels_GRAFT_PANEL_W8_HALF)(&product, &product.parts[0], panel, panel + 1 < panels ? 2 : 1, 0, next - row, &ahead);
            }
            for (int64_t r = row; r < next; r++) quantise_hidden(term, stage, h[r - row], lora->hidden + r * lora->hidden_stride + term->hidden);
        }
    }
}

// Puts h of the only row off until its product.
ALWAYS_INLINE void defer_hidden(const graft_lora *lora, const uint8_t *x) {
    graft_lora_deferred *d = lora->deferred;
    d->x = x;
    d->taken = d->done = 0;
    // An adapter without A in this stage still has to say so.
    d->ready = deferred_panels(lora) == 0;
    if (d->ready) quantise_deferred(lora);
}

// Computes panels of A x until all are taken; whoever does the last one quantises h for all.
static __attribute__((noinline)) void NAME(share_deferred)(const graft_lora *lora) {
    graft_lora_deferred *d = lora->deferred;
    const int32_t panels = deferred_panels(lora);
    int32_t i;
    while (__atomic_load_n(&d->taken, __ATOMIC_RELAXED) < panels && (i = __atomic_fetch_add(&d->taken, 1, __ATOMIC_RELAXED)) < panels) {
        int32_t term = 0, panel = i, next = __atomic_load_n(&d->taken, __ATOMIC_RELAXED), next_term = 0;
        const graft_panels *a = deferred_panel(lora, &term, &panel);
        const graft_panels *after = next < panels ? deferred_panel(lora, &next_term, &next) : NULL;
        const graft_matmul product = {.parts = {{.weights = *a, .y = d->h[term], .pair = -1}}, .part_count = 1, .x = d->x, .tokens = 1, .quantised = 1};
        tile_ahead ahead = {.panels = after ? after->data + next * after->panel_bytes : NULL};
        NAME(panels_GRAFT_PANEL_W8_HALF)(&product, &product.parts[0], panel, 1, 0, 1, &ahead);
        if (__atomic_add_fetch(&d->done, 1, __ATOMIC_ACQ_REL) == panels) {
            quantise_deferred(lora);
            __atomic_store_n(&d->ready, 1, __ATOMIC_RELEASE);
        }
    }
}

ALWAYS_INLINE void NAME(add_hidden)(const graft_lora *lora, int64_t begin, int64_t end, const uint8_t *x, int64_t x_stride) {
    if (lora->deferred)
        defer_hidden(lora, x);
    else
        NAME(low_rank_hidden)(lora, begin, end, x, x_stride);
}

static float mean_of_squares(const float *x, int64_t n) {
    v16f sum = {};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) sum = fma16(load16(x + i), load16(x + i), sum);
    float total = sum_lanes(sum);
    for (; i < n; i++) total = fmaf(x[i], x[i], total);
    return total / (float)n;
}

// y = x · factor · weight
ALWAYS_INLINE void scale_row(const float *x, float factor, const float *weight, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store16(y + i, load16(x + i) * splat(factor) * load16(weight + i));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
}

ALWAYS_INLINE v16f store_through(float *to, v16f v) {
    if (to) store16(to, v);
    return v;
}

static void NAME(norm)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_norm *a = context;
    if (a->lora.rows) prefetch_hidden(&a->lora, (int64_t)begin);
    const graft_activation_layout layout = graft_activation_layout_for(a->width);
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        const float *x = (const float *)((const uint8_t *)a->x + r * a->x_stride), *weight = a->weight;
        float *y = a->y ? (float *)((uint8_t *)a->y + r * a->y_stride) : NULL;
        uint8_t *quantised = a->quantised ? a->quantised + r * a->quantised_stride : NULL;
        if (!weight) {
            NAME(quantize_row)(x, a->width, quantised);
            continue;
        }
        const float factor = 1.0f / sqrtf(mean_of_squares(x, a->width) + a->eps);
        if (quantised) {
#define NEXT(i) store_through(y ? y + (i) : NULL, load16(x + (i)) * splat(factor) * load16(weight + (i)))
            QUANTIZE_COLUMNS(0, a->width, &layout, quantised, NEXT);
#undef NEXT
            continue;
        }
        scale_row(x, factor, weight, a->width, y);
        if (a->residual) {
            float *to = (float *)((uint8_t *)a->residual + r * a->residual_stride);
            for (int64_t i = 0; i < a->width; i++) to[i] = to[i] + y[i];
        }
    }
    if (a->lora.rows) NAME(add_hidden)(&a->lora, (int64_t)begin, (int64_t)end, a->quantised, a->quantised_stride);
}

// activation(gate) · up over `width` columns: as floats unless y is NULL; in 8 bits, from column `column` of the row on, unless `quantised` is.
ALWAYS_INLINE void gate_row(const int activation, const float *gate, const float *up, int64_t width, float *y, const graft_activation_layout *layout,
                            int64_t column, uint8_t *quantised) {
#define NEXT(i) store_through(y ? y + (i) : NULL, activate(activation, load16(gate + (i))) * load16(up + (i)))
    if (quantised) {
        QUANTIZE_COLUMNS(column, width, layout, quantised, NEXT);
        return;
    }
    int64_t i = 0;
    for (; i + 16 <= width; i += 16) NEXT(i);
#undef NEXT
    for (; i < width; i++) y[i] = activate(activation, splat(gate[i]))[0] * up[i];
}

static void NAME(gated)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_gated *a = context;
    if (a->lora.rows) prefetch_hidden(&a->lora, (int64_t)begin);
    const graft_activation_layout layout = graft_activation_layout_for(a->width);
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        const float *gate = (const float *)((const uint8_t *)a->gate + r * a->stride), *up = (const float *)((const uint8_t *)a->up + r * a->stride);
        float *y = a->y ? (float *)((uint8_t *)a->y + r * a->y_stride) : NULL;
        uint8_t *quantised = a->quantised ? a->quantised + r * a->quantised_stride : NULL;
        if (a->activation == GRAFT_SILU) gate_row(GRAFT_SILU, gate, up, a->width, y, &layout, 0, quantised);
        else gate_row(GRAFT_GELU_TANH, gate, up, a->width, y, &layout, 0, quantised);
    }
    if (a->lora.rows) NAME(add_hidden)(&a->lora, (int64_t)begin, (int64_t)end, a->quantised, a->quantised_stride);
}

// So many rows at once, and floats of each of the two products: the units that many rows pass over fill them.
enum { GATED_ROWS = 128, GATED_FLOATS = GATED_ROWS * 32 * GRAFT_MANY_ROWS_UNITS };

static void NAME(gated_matmul)(void *context, size_t begin, size_t end, int thread) {
    const graft_gated_matmul *a = context;
    _Alignas(64) float gate[GATED_FLOATS], up[GATED_FLOATS];
    const graft_activation_layout layout = graft_activation_layout_for(a->gate.rows);
    for (int64_t first = 0; first < a->tokens; first += GATED_ROWS) {
        const int64_t rows = a->tokens - first < GATED_ROWS ? a->tokens - first : GATED_ROWS;
        const int64_t most = GATED_FLOATS / (32 * rows) / GRAFT_MANY_ROWS_UNITS * GRAFT_MANY_ROWS_UNITS;
        for (int64_t block = (int64_t)begin, blocks; block < (int64_t)end; block += blocks) {
            blocks = (int64_t)end - block < most ? (int64_t)end - block : most;
            const int64_t width = 32 * blocks;
            graft_matmul products = {
                .parts = {{.weights = a->gate, .y = gate, .ldy = width, .pair = -1}, {.weights = a->up, .y = up, .ldy = width, .pair = -1}},
                .part_count = 2, .x = a->x + first * a->x_stride, .x_stride = a->x_stride, .tokens = rows, .quantised = 1};
            for (int i = 0; i < 2; i++) {
                graft_panels *w = &products.parts[i].weights;
                w->data += 2 * block * w->panel_bytes;
                w->rows = width;
            }
            NAME(matmul)(&products, 0, (size_t)(2 * blocks), thread);
            for (int64_t r = 0; r < rows; r++) {
                uint8_t *y = a->y + (first + r) * a->y_stride;
                if (a->activation == GRAFT_SILU) gate_row(GRAFT_SILU, gate + r * width, up + r * width, width, NULL, &layout, 32 * block, y);
                else gate_row(GRAFT_GELU_TANH, gate + r * width, up + r * width, width, NULL, &layout, 32 * block, y);
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------- rotary and cache write

// (x, y) → (x cos - y sin, y cos + x sin) for every pair of a head.
ALWAYS_INLINE void rotate_head(float *x, const float *cos, const float *sin, int pairs, const int style) {
    int j = 0;
    if (style == GRAFT_ROPE_HALVES) {
        for (; j + 16 <= pairs; j += 16) {
            v16f a = load16(x + j), b = load16(x + pairs + j), c = load16(cos + j), s = load16(sin + j);
            store16(x + j, fma16(-b, s, a * c));
            store16(x + pairs + j, fma16(a, s, b * c));
        }
        for (; j < pairs; j++) {
            float a = x[j], b = x[pairs + j];
            x[j] = fmaf(-b, sin[j], a * cos[j]);
            x[pairs + j] = fmaf(a, sin[j], b * cos[j]);
        }
        return;
    }
    const v16f sign = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
    for (; j + 8 <= pairs; j += 8) {
        v8f c8, s8;
        memcpy(&c8, cos + j, sizeof c8);
        memcpy(&s8, sin + j, sizeof s8);
        v16f a = load16(x + 2 * j);
        v16f swapped = __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
        v16f c = __builtin_shufflevector(c8, c8, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        v16f s = __builtin_shufflevector(s8, s8, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        store16(x + 2 * j, fma16(swapped * sign, s, a * c));
    }
    for (; j < pairs; j++) {
        float a = x[2 * j], b = x[2 * j + 1];
        x[2 * j] = fmaf(-b, sin[j], a * cos[j]);
        x[2 * j + 1] = fmaf(a, sin[j], b * cos[j]);
    }
}

ALWAYS_INLINE void prepare_head(const graft_rope_write *a, float *x, const float *norm, int64_t r) {
    const int pairs = a->rotary_dim / 2;
    if (norm) scale_row(x, 1.0f / sqrtf(mean_of_squares(x, a->layout.head_dim) + a->eps), norm, a->layout.head_dim, x);
    if (a->style == GRAFT_ROPE_HALVES)
        rotate_head(x, a->cos + r * pairs, a->sin + r * pairs, pairs, GRAFT_ROPE_HALVES);
    else
        rotate_head(x, a->cos + r * pairs, a->sin + r * pairs, pairs, GRAFT_ROPE_INTERLEAVED);
}

// n components into the cache as 8-bit integers: returns the scale.
ALWAYS_INLINE uint16_t cache_int8(const float *x, int n, int8_t *to, int step) {
    float largest = 0;
    for (int i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    const uint16_t half = float_to_half(largest / 127.0f);
    // The scale as it is kept; rounded down, it may leave the largest component just above 127.
    const float scale = half_to_float(half), inverse = scale > 0 ? 1.0f / scale : 0;
    for (int i = 0; i < n; i++) {
        const long rounded = lrintf(x[i] * inverse);
        to[i * step] = (int8_t)(rounded > 127 ? 127 : rounded < -127 ? -127 : rounded);
    }
    return half;
}

static void NAME(rope_write)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_rope_write *a = context;
    const int dim = a->layout.head_dim, kv_heads = a->layout.kv_heads;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        float *q = (float *)((uint8_t *)a->q + r * a->q_stride), *k = (float *)((uint8_t *)a->k + r * a->k_stride);
        const float *v = (const float *)((const uint8_t *)a->v + r * a->v_stride);
        for (int h = 0; h < a->heads; h++) prepare_head(a, q + h * dim, a->q_norm, r);
        for (int h = 0; h < kv_heads; h++) prepare_head(a, k + h * dim, a->k_norm, r);
        uint8_t *block = a->cache + a->slots[r] / GRAFT_KV_BLOCK * a->block_stride;
        const int64_t place = a->slots[r] % GRAFT_KV_BLOCK;
        for (int h = 0; h < kv_heads; h++) {
            const int64_t key = (int64_t)h * dim * GRAFT_KV_BLOCK + place, value = ((int64_t)h * GRAFT_KV_BLOCK + place) * dim;
            const float *kh = k + h * dim, *vh = v + h * dim;
            if (a->layout.type == GRAFT_KV_F32) {
                float *keys = (float *)block + key, *values = (float *)(block + a->layout.values) + value;
                for (int i = 0; i < dim; i++) keys[i * GRAFT_KV_BLOCK] = kh[i], values[i] = vh[i];
            } else if (a->layout.type == GRAFT_KV_F16) {
                uint16_t *keys = (uint16_t *)block + key, *values = (uint16_t *)(block + a->layout.values) + value;
                int i = 0;
                for (; i + 16 <= dim; i += 16) {
                    uint16_t halves[16];
                    store_half16(halves, load16(kh + i));
                    for (int j = 0; j < 16; j++) keys[(i + j) * GRAFT_KV_BLOCK] = halves[j];
                    store_half16(values + i, load16(vh + i));
                }
                for (; i < dim; i++) keys[i * GRAFT_KV_BLOCK] = float_to_half(kh[i]), values[i] = float_to_half(vh[i]);
            } else {
                uint16_t *key_scales = (uint16_t *)(block + a->layout.key_scales), *value_scales = (uint16_t *)(block + a->layout.value_scales);
                for (int i = 0; i < dim; i += GRAFT_KEY_GROUP)
                    key_scales[(int64_t)(h * dim + i) / GRAFT_KEY_GROUP * GRAFT_KV_BLOCK + place] =
                        cache_int8(kh + i, GRAFT_KEY_GROUP, (int8_t *)block + key + (int64_t)i * GRAFT_KV_BLOCK, GRAFT_KV_BLOCK);
                value_scales[h * GRAFT_KV_BLOCK + place] = cache_int8(vh, dim, (int8_t *)(block + a->layout.values) + value, 1);
            }
        }
    }
}

#include "attention.h"

static void NAME(products)(void *context, size_t begin, size_t end, int thread) {
    graft_product_ceiling *ceiling = context;
    // As many sums as a tile has, which the registers hold.
    enum { SUMS = 2 * TILE_TOKENS, STEPS = GRAFT_CEILING_PRODUCTS / 64 / SUMS };
    int_lanes line, dots[SUMS] = {};
    memcpy(&line, ceiling->operands, sizeof line);
    for (size_t step = begin * STEPS; step < end * STEPS; step++) {
        // Operands that the compiler takes for new ones.
        __asm__ volatile("" : "+m"(*ceiling));
        for (int i = 0; i < SUMS; i++) dots[i] = NAME(low_rank_dot)(dots[i], line, ceiling->operands + 64 + 4 * i);
    }
    for (int i = 0; i < SUMS; i++) ceiling->sums[thread & 255] ^= dots[i][0] ^ dots[i][15];
}

static const graft_kernels NAME(kernels) = {
    .name = VARIANT_NAME,
    .matmul = NAME(matmul),
    .gated_matmul = NAME(gated_matmul),
    .attention = NAME(attention),
    .rope_write = NAME(rope_write),
    .gated = NAME(gated),
    .norm = NAME(norm),
    .products = NAME(products),
    .quantize_row = NAME(quantize_row),
    .expand_panel = NAME(expand_panel),
    .panel_dots = NAME(panel_dots),
};
