// Products of bfloat16 with AMX, for training.h. A tile is 16 rows of 64 bytes: 16 rows of 32 places of a, or 16 pairs of places of 16 columns of b, or 16 × 16
// sums. Tiles 0 … 3 are the sums of two times 16 rows and two times 16 columns; 4 and 5 are the rows, 6 and 7 the columns.
#ifndef GRAFT_TRAINING_TILES_H
#define GRAFT_TRAINING_TILES_H

// ldtilecfg's operand (Intel SDM volume 1, 18.2).
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_configuration;

static void configure_tiles(int upper, int lower, int pairs) {
    tile_configuration t = {.palette = 1};
    const int rows[8] = {upper, upper, lower, lower, upper, lower, pairs, pairs};
    for (int i = 0; i < 8; i++) {
        t.rows[i] = (uint8_t)rows[i];
        t.row_bytes[i] = (uint16_t)(rows[i] == 0 ? 0 : i == 4 || i == 5 ? 4 * pairs : 64);
    }
    _tile_loadconfig(&t);
}

enum { TILE_PAIRS = 16, TILE_BYTES = 1024, VECTOR_BYTES = GRAFT_TILE_PLACES * 32 };

// c (+)= a b for the configured rows, one or two times 16 columns and `steps` times the configured places.
ALWAYS_INLINE void tile_sums(const int lower, const int wide, const uint8_t *a, int64_t a_stride, const uint8_t *b, int64_t steps, float *c, int64_t ldc, int empty) {
    const int64_t c_stride = 4 * ldc;
    float *below = c + 16 * ldc;
    if (empty) {
        _tile_zero(0);
        if (wide) _tile_zero(1);
        if (lower) _tile_zero(2);
        if (lower && wide) _tile_zero(3);
    } else {
        _tile_loadd(0, c, c_stride);
        if (wide) _tile_loadd(1, c + 16, c_stride);
        if (lower) _tile_loadd(2, below, c_stride);
        if (lower && wide) _tile_loadd(3, below + 16, c_stride);
    }
    for (int64_t s = 0; s < steps; s++) {
        _tile_loadd(4, a + 64 * s, a_stride);
        _tile_loadd(6, b + s * TILE_BYTES, 64);
        if (wide) _tile_loadd(7, b + s * TILE_BYTES + VECTOR_BYTES, 64);
        if (lower) _tile_loadd(5, a + 16 * a_stride + 64 * s, a_stride);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) _tile_dpbf16ps(1, 4, 7);
        if (lower) _tile_dpbf16ps(2, 5, 6);
        if (lower && wide) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_stride);
    if (wide) _tile_stored(1, c + 16, c_stride);
    if (lower) _tile_stored(2, below, c_stride);
    if (lower && wide) _tile_stored(3, below + 16, c_stride);
}

// The configured rows and all columns: the rows stay in the first-level cache meanwhile.
ALWAYS_INLINE void tile_group(const int lower, const uint8_t *a, int64_t a_stride, const uint8_t *b, int64_t steps, float *c, int64_t ldc, int vectors, int empty) {
    int v = 0;
    for (; v + 2 <= vectors; v += 2) tile_sums(lower, 1, a, a_stride, b + v * VECTOR_BYTES, steps, c + 16 * v, ldc, empty);
    if (v < vectors) tile_sums(lower, 0, a, a_stride, b + v * VECTOR_BYTES, steps, c + 16 * v, ldc, empty);
}

// c (+)= a b, b [vectors][pair][16][2] with vectors VECTOR_BYTES apart.
static void tile_block(const uint8_t *a, int64_t a_stride, const uint8_t *b, int64_t pairs, float *c, int64_t ldc, int64_t rows, int vectors, int empty) {
    const int64_t steps = pairs / TILE_PAIRS, whole = rows / 32 * 32;
    const int rest = (int)(rows - whole), upper = rest < 16 ? rest : 16, tail = (int)(pairs % TILE_PAIRS);
    // The places beyond the last whole step are a step of their own.
    for (int part = 0; part < 2; part++) {
        const int64_t count = part == 0 ? steps : tail > 0, done = part == 0 ? 0 : steps;
        if (count == 0) continue;
        const int places = part == 0 ? TILE_PAIRS : tail;
        const uint8_t *left = a + 64 * done, *right = b + done * TILE_BYTES;
        if (whole > 0) {
            configure_tiles(16, 16, places);
            for (int64_t r = 0; r < whole; r += 32) tile_group(1, left + r * a_stride, a_stride, right, count, c + r * ldc, ldc, vectors, empty);
        }
        if (rest > 0) {
            configure_tiles(upper, rest - upper, places);
            if (rest > 16) tile_group(1, left + whole * a_stride, a_stride, right, count, c + whole * ldc, ldc, vectors, empty);
            else tile_group(0, left + whole * a_stride, a_stride, right, count, c + whole * ldc, ldc, vectors, empty);
        }
        empty = 0;
    }
}

// A block of the right side is brought into the order of tiles for all columns, and all rows pass over it, 32 at a time.
static void NAME(product_pairs)(const graft_product *p, int64_t column, int64_t columns, int64_t row, int64_t rows, uint8_t *b) {
    const int vectors = (int)((columns + 15) / 16);
    int empty = !p->accumulate;
    if (p->bias) {
        for (int64_t r = row; r < row + rows; r++) {
            for (int64_t i = column; i < column + columns; i++) p->c[r * p->ldc + i] = (empty ? 0 : p->c[r * p->ldc + i]) + p->bias[i];
        }
        empty = 0;
    }
    for (int i = 0; i < p->term_count; i++) {
        const graft_term *term = &p->terms[i];
        // One block, or blocks of the largest multiple of 256, so that none of the usual widths leaves a thin one.
        const int64_t block = term->k <= GRAFT_TILE_PLACES ? term->k : GRAFT_TILE_PLACES / 256 * 256;
        for (int64_t k = 0; k < term->k; k += block) {
            const int64_t end = term->k - k < block ? term->k : k + block;
            for (int v = 0; v < vectors; v++) NAME(pack_pairs)(p, term, column + 16 * v, k, end, (uint16_t *)(b + v * VECTOR_BYTES));
            tile_block(term->a.data + row * term->a.stride + 2 * k, term->a.stride, b, (end - k + 1) / 2, p->c + row * p->ldc + column, p->ldc, rows, vectors, empty);
            empty = 0;
        }
    }
    // Without it every switch to another thread would save the tiles.
    _tile_release();
}

// ------------------------------------------------------------------------------------------------------- low-rank gradients

enum { OUTER_STEPS = 8 };
typedef uint8_t tile_memory[16][64];

// Lines of 16 words become columns.
ALWAYS_INLINE void transpose_words(v16f *lines) {
    v16f next[16];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            next[2 * i] = __builtin_shufflevector(lines[i], lines[i + 8], RIFFLE_LOW);
            next[2 * i + 1] = __builtin_shufflevector(lines[i], lines[i + 8], RIFFLE_HIGH);
        }
        memcpy(lines, next, sizeof next);
    }
}

// hᵀ of 32 rows: tile[0] [16 numbers][32 rows] as bfloat16, and tile[1] what that leaves out, so that both together have 16 bits of each number.
static void pack_hidden(const graft_outer *o, int64_t j, int count, int64_t row, tile_memory *tile) {
    const __mmask16 wanted = (__mmask16)((1u << count) - 1);
    const __m512i riffle = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    v16f lines[2][16];
    for (int i = 0; i < 16; i++) {
        __m512 v[2], rest[2];
        for (int k = 0; k < 2; k++) {
            const int64_t r = row + 2 * i + k;
            v[k] = r < o->rows ? _mm512_maskz_loadu_ps(wanted, o->h + r * o->h_stride + j) : _mm512_setzero_ps();
            rest[k] = _mm512_sub_ps(v[k], (__m512)widen(narrow((v16f)v[k])));
        }
        lines[0][i] = (v16f)_mm512_permutexvar_epi16(riffle, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
        lines[1][i] = (v16f)_mm512_permutexvar_epi16(riffle, (__m512i)_mm512_cvtne2ps_pbh(rest[1], rest[0]));
    }
    for (int part = 0; part < 2; part++) {
        transpose_words(lines[part]);
        memcpy(tile[part], lines[part], sizeof *tile);
    }
}

// 32 rows of x as pairs, for one or two times 16 columns.
ALWAYS_INLINE void pack_outer(const graft_outer *o, int64_t column, const int wide, int64_t row, tile_memory *tile) {
    const __mmask32 wanted = wide ? 0xffffffffu : 0xffffu;
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int i = 0; i < 16; i++) {
        __m512i x[2];
        for (int k = 0; k < 2; k++) {
            const int64_t r = row + 2 * i + k;
            x[k] = r < o->rows ? _mm512_maskz_loadu_epi16(wanted, o->x.data + r * o->x.stride + 2 * column) : _mm512_setzero_si512();
        }
        _mm512_store_si512(tile[0][i], _mm512_permutex2var_epi16(x[0], low, x[1]));
        if (wide) _mm512_store_si512(tile[1][i], _mm512_permutex2var_epi16(x[0], high, x[1]));
    }
}

ALWAYS_INLINE void outer_sums(const graft_outer *o, int64_t column, const int wide, int64_t first, int64_t steps, tile_memory (*left)[2], tile_memory (*right)[2],
                              float *sums) {
    enum { SUMS_STRIDE = GRAFT_OUTER_COLUMNS * 4 };
    for (int64_t s = 0; s < steps; s++) pack_outer(o, column, wide, first + 32 * s, right[s]);
    _tile_loadd(0, sums, SUMS_STRIDE);
    if (wide) _tile_loadd(1, sums + 16, SUMS_STRIDE);
    for (int64_t s = 0; s < steps; s++) {
        _tile_loadd(4, left[s][0], 64);
        _tile_loadd(5, left[s][1], 64);
        _tile_loadd(6, right[s][0], 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(0, 5, 6);
        if (wide) {
            _tile_loadd(7, right[s][1], 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(1, 5, 7);
        }
    }
    _tile_stored(0, sums, SUMS_STRIDE);
    if (wide) _tile_stored(1, sums + 16, SUMS_STRIDE);
}

// The gradient's columns column … column + columns.
static void outer_tiles(const graft_outer *o, int64_t column, int64_t columns) {
    _Alignas(64) tile_memory left[OUTER_STEPS][2], right[OUTER_STEPS][2];
    _Alignas(64) float sums[16][GRAFT_OUTER_COLUMNS];
    configure_tiles(16, 16, TILE_PAIRS);
    for (int64_t j = 0; j < o->rank; j += 16) {
        const int count = o->rank - j < 16 ? (int)(o->rank - j) : 16;
        memset(sums, 0, sizeof sums);
        for (int64_t first = 0; first < o->rows; first += 32 * OUTER_STEPS) {
            const int64_t rest = (o->rows - first + 31) / 32, steps = rest < OUTER_STEPS ? rest : OUTER_STEPS;
            for (int64_t s = 0; s < steps; s++) pack_hidden(o, j, count, first + 32 * s, left[s]);
            int64_t c = 0;
            for (; c + 32 <= columns; c += 32) outer_sums(o, column + c, 1, first, steps, left, right, sums[0] + c);
            if (c < columns) outer_sums(o, column + c, 0, first, steps, left, right, sums[0] + c);
        }
        const v16f scale = splat(o->scale);
        for (int i = 0; i < count; i++)
            for (int64_t c = 0; c < columns; c += 16) {
                float *g = o->g + (j + i) * o->ldg + column + c;
                store16(g, fma16(load16(sums[i] + c), scale, load16(g)));
            }
    }
}

#endif
