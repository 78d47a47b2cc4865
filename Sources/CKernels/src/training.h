// One variant's training kernels. Its source file sets the target features and defines VARIANT, VARIANT_NAME, MULTIPLIES_BFLOAT16,
// MULTIPLIES_FLOAT32 (whether its own products of float32 are fast), MICRO_ROWS and MICRO_VECTORS (the register tile of products), narrow, dot_pair and
// transpose_pairs, after including vectors.h; and MULTIPLIES_TILES, if AMX multiplies its bfloat16.
#ifndef VARIANT
#error "include through a variant's source file"
#endif

#include "graft_training.h"

#include <string.h>

typedef uint16_t v16h __attribute__((vector_size(32)));
typedef uint32_t v16w __attribute__((vector_size(64)));

// Columns of a tile, and how much of the contraction is expanded at once: a bfloat16 block lies in the first-level cache while all rows pass over it, or, as
// tiles, in the second-level cache. PAIRS_STRIDE: words from one pair of places to the next in such a block.
#ifdef MULTIPLIES_TILES
enum { BLOCK_PAIRS = GRAFT_TILE_PLACES / 2, PAIRS_STRIDE = 16, BFLOAT16_COLUMNS = GRAFT_TILE_COLUMNS };
#else
enum { BLOCK_PAIRS = 128, PAIRS_STRIDE = 64, BFLOAT16_COLUMNS = 64 };
#endif
enum { TILE = 64, BLOCK_FLOATS = 64, STRETCH_FLOATS = 6 * BLOCK_FLOATS, WIDE_TILE = GRAFT_LIBRARY_COLUMNS, WIDE_BLOCK = 384 };

// ------------------------------------------------------------------------------------------------------------- typed rows

ALWAYS_INLINE v16f widen(v16h h) {
    const v16w bits = __builtin_convertvector(h, v16w) << 16;
    v16f v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

ALWAYS_INLINE v16f load_typed(const int type, const uint8_t *row, int64_t i) {
    if (type == GRAFT_ROWS_F32) return load16((const float *)row + i);
    v16h h;
    memcpy(&h, row + 2 * i, sizeof h);
    return widen(h);
}

ALWAYS_INLINE void store_typed(const int type, uint8_t *row, int64_t i, v16f v) {
    if (type == GRAFT_ROWS_F32) {
        store16((float *)row + i, v);
    } else {
        const v16h h = narrow(v);
        memcpy(row + 2 * i, &h, sizeof h);
    }
}

ALWAYS_INLINE v16f load_row(const graft_rows *rows, int64_t r, int64_t i) { return load_typed(rows->type, rows->data + r * rows->stride, i); }
ALWAYS_INLINE void store_row(const graft_rows *rows, int64_t r, int64_t i, v16f v) { store_typed(rows->type, rows->data + r * rows->stride, i, v); }

// -------------------------------------------------------------------------------------------------------------- products

// How a product begins: without what c holds, and with the bias.
enum { START_EMPTY = 1, START_BIAS = 2 };

// c [rows][vectors · 16] (+)= a b over `places` of the contraction, b of TILE columns. Either pairs of bfloat16, a place being two of them:
// a [rows][places][2], b [places][TILE][2]; or float32: a [rows][places], b [places][TILE].
ALWAYS_INLINE void micro_tile(const int type, const int rows, const int vectors, const uint8_t *a, int64_t a_stride, const uint8_t *b, int64_t places, float *c,
                              int64_t ldc, int start, const float *bias) {
    v16f sum[MICRO_ROWS][MICRO_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = start & START_EMPTY ? splat(0) : load16(c + r * ldc + 16 * v);
            if (start & START_BIAS) sum[r][v] = sum[r][v] + load16(bias + 16 * v);
        }
    for (int64_t p = 0; p < places; p++) {
        v16w right[MICRO_VECTORS];
        for (int v = 0; v < vectors; v++) memcpy(&right[v], b + (p * TILE + 16 * v) * 4, sizeof right[v]);
        for (int r = 0; r < rows; r++) {
            uint32_t left;
            memcpy(&left, a + r * a_stride + 4 * p, sizeof left);
            for (int v = 0; v < vectors; v++) {
                if (type == GRAFT_ROWS_BF16) {
                    sum[r][v] = dot_pair(sum[r][v], left, right[v]);
                } else {
                    v16f factor;
                    memcpy(&factor, &right[v], sizeof factor);
                    sum[r][v] = fma16(factor, splat(float_of_bits(left)), sum[r][v]);
                }
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) store16(c + r * ldc + 16 * v, sum[r][v]);
}

#define MICRO_CASE(R, V)                                                                    \
    case (R) * 8 + (V): micro_tile(type, R, V, a, a_stride, b, places, c, ldc, start, bias); break;

ALWAYS_INLINE void micro(const int type, int rows, int vectors, const uint8_t *a, int64_t a_stride, const uint8_t *b, int64_t places, float *c, int64_t ldc,
                         int start, const float *bias) {
    switch (rows * 8 + vectors) {
#if MICRO_ROWS == 6
        MICRO_CASE(6, 4) MICRO_CASE(6, 3) MICRO_CASE(6, 2) MICRO_CASE(6, 1)
        MICRO_CASE(5, 4) MICRO_CASE(5, 3) MICRO_CASE(5, 2) MICRO_CASE(5, 1)
        MICRO_CASE(4, 4) MICRO_CASE(4, 3) MICRO_CASE(4, 2) MICRO_CASE(4, 1)
        MICRO_CASE(3, 4) MICRO_CASE(3, 3) MICRO_CASE(3, 2) MICRO_CASE(3, 1)
        MICRO_CASE(2, 4) MICRO_CASE(2, 3) MICRO_CASE(2, 2) MICRO_CASE(2, 1)
        MICRO_CASE(1, 4) MICRO_CASE(1, 3) MICRO_CASE(1, 2) MICRO_CASE(1, 1)
#else
        MICRO_CASE(2, 2) MICRO_CASE(2, 1) MICRO_CASE(1, 2) MICRO_CASE(1, 1)
#endif
    }
}

// Columns n … n + 15 of a term's right side at contraction places k … end as pairs: b [pair][PAIRS_STRIDE][2], of which 16 columns are written.
// Places past the end of the term are 0.
static void NAME(pack_pairs)(const graft_product *p, const graft_term *term, int64_t n, int64_t k, int64_t end, uint16_t *b) {
    const int64_t places = (end - k + 1) / 2 * 2;
    uint32_t *words = (uint32_t *)b;
    const v16f scale = splat(term->scale);
    if (term->operand == GRAFT_OPERAND_PANELS) {
        _Alignas(64) float v[BLOCK_PAIRS * 2][16];
        const int64_t stop = (end + 15) / 16 * 16;
        p->kernels->expand_panel(&term->w, n / 16, k, stop < term->w.cols ? stop : term->w.cols, v[0]);
        for (int64_t i = 0; i < places; i += 2) {
            const v16w low = __builtin_convertvector(narrow(load16(v[i]) * scale), v16w);
            const v16w high = k + i + 1 < end ? __builtin_convertvector(narrow(load16(v[i + 1]) * scale), v16w) << 16 : (v16w){};
            const v16w pair = low | high;
            memcpy(words + i / 2 * PAIRS_STRIDE, &pair, sizeof pair);
        }
    } else if (term->operand == GRAFT_OPERAND_PANELS_TRANSPOSED) {
        _Alignas(64) float v[16][16];
        for (int64_t row = k; row < end; row += 16) {
            p->kernels->expand_panel(&term->w, row / 16, n, n + 16, v[0]);
            v16w pairs[8];
            transpose_pairs(v, term->scale, pairs);
            for (int i = 0; i < 8 && row + 2 * i < end; i++) memcpy(words + ((row - k) / 2 + i) * PAIRS_STRIDE, &pairs[i], sizeof pairs[i]);
        }
    } else {
        const int64_t columns = p->columns - n < 16 ? p->columns - n : 16;
        int64_t i = 0;
        for (; columns == 16 && term->operand == GRAFT_OPERAND_ROWS && k + i + 16 <= end; i += 16) {
            _Alignas(64) float v[16][16];
            for (int c = 0; c < 16; c++) store16(v[c], load16(term->b + (n + c) * term->ldb + k + i));
            v16w pairs[8];
            transpose_pairs(v, term->scale, pairs);
            for (int j = 0; j < 8; j++) memcpy(words + (i / 2 + j) * PAIRS_STRIDE, &pairs[j], sizeof pairs[j]);
        }
        for (; i < places; i += 2) {
            float even[16] = {}, odd[16] = {};
            if (term->operand == GRAFT_OPERAND_ROWS) {
                for (int64_t c = 0; c < columns; c++) {
                    even[c] = term->b[(n + c) * term->ldb + k + i];
                    if (k + i + 1 < end) odd[c] = term->b[(n + c) * term->ldb + k + i + 1];
                }
            } else {
                memcpy(even, term->b + (k + i) * term->ldb + n, (size_t)columns * sizeof(float));
                if (k + i + 1 < end) memcpy(odd, term->b + (k + i + 1) * term->ldb + n, (size_t)columns * sizeof(float));
            }
            const v16w pair = __builtin_convertvector(narrow(load16(even) * scale), v16w) | __builtin_convertvector(narrow(load16(odd) * scale), v16w) << 16;
            memcpy(words + i / 2 * PAIRS_STRIDE, &pair, sizeof pair);
        }
    }
}

#define RIFFLE_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define RIFFLE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

// dst [row][TILE] = scale · v [column][row] for 16 columns and up to 16 rows. A riffle of lines i and i + 8 moves the highest bit of a line's number to the
// end of the place's, and the place's highest to the end of the line's: four of them exchange the two.
ALWAYS_INLINE void transpose_floats(const float (*v)[16], v16f scale, float *dst, int64_t rows) {
    v16f lines[16], next[16];
    for (int i = 0; i < 16; i++) lines[i] = load16(v[i]) * scale;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            next[2 * i] = __builtin_shufflevector(lines[i], lines[i + 8], RIFFLE_LOW);
            next[2 * i + 1] = __builtin_shufflevector(lines[i], lines[i + 8], RIFFLE_HIGH);
        }
        memcpy(lines, next, sizeof lines);
    }
    for (int64_t r = 0; r < rows; r++) store16(dst + r * TILE, lines[r]);
}

// The same as pack_pairs for float32: b [place][TILE].
static void NAME(pack_floats)(const graft_product *p, const graft_term *term, int64_t n, int64_t k, int64_t end, float *b) {
    const v16f scale = splat(term->scale);
    const int64_t columns = p->columns - n < 16 ? p->columns - n : 16;
    _Alignas(64) float v[BLOCK_FLOATS][16];
    switch (term->operand) {
    case GRAFT_OPERAND_PANELS: {
        const int64_t stop = (end + 15) / 16 * 16;
        p->kernels->expand_panel(&term->w, n / 16, k, stop < term->w.cols ? stop : term->w.cols, v[0]);
        for (int64_t i = 0; i < end - k; i++) store16(b + i * TILE, load16(v[i]) * scale);
        break;
    }
    case GRAFT_OPERAND_PANELS_TRANSPOSED:
        for (int64_t row = k; row < end; row += 16) {
            p->kernels->expand_panel(&term->w, row / 16, n, n + 16, v[0]);
            transpose_floats(v, scale, b + (row - k) * TILE, end - row < 16 ? end - row : 16);
        }
        break;
    case GRAFT_OPERAND_ROWS:
        for (int64_t i = 0; i < end - k; i += 16) {
            const int64_t places = end - k - i < 16 ? end - k - i : 16;
            memset(v, 0, 16 * sizeof v[0]);
            for (int64_t c = 0; c < columns; c++) memcpy(v[c], term->b + (n + c) * term->ldb + k + i, (size_t)places * sizeof(float));
            transpose_floats(v, scale, b + i * TILE, places);
        }
        break;
    default:
        for (int64_t i = 0; i < end - k; i++) {
            _Alignas(64) float line[16] = {};
            memcpy(line, term->b + (k + i) * term->ldb + n, (size_t)columns * sizeof(float));
            store16(b + i * TILE, load16(line) * scale);
        }
    }
}

// `columns` columns for `rows` rows. A block of the right side is brought into order for one tile of columns, and all rows pass over it. With float32 a
// stretch of the contraction is done for all tiles before the next one begins: the rows' part of it stays in the second-level cache meanwhile.
ALWAYS_INLINE void product_block(const int type, const graft_product *p, int64_t column, int64_t columns, int64_t row, int64_t rows, uint8_t *b) {
    const int64_t block = type == GRAFT_ROWS_BF16 ? 2 * BLOCK_PAIRS : BLOCK_FLOATS;
    for (int i = 0; i < p->term_count; i++) {
        const graft_term *term = &p->terms[i];
        const int64_t stretch = type == GRAFT_ROWS_BF16 ? term->k : STRETCH_FLOATS;
        for (int64_t from = 0; from < term->k; from += stretch) {
            const int64_t to = term->k - from < stretch ? term->k : from + stretch;
            for (int64_t n = column; n < column + columns; n += TILE) {
                const int64_t left = p->columns - n;
                const int vectors = left >= TILE ? TILE / 16 : (int)((left + 15) / 16);
                // The bias of a last, partial vector is read through a copy.
                _Alignas(64) float bias[TILE] = {};
                if (p->bias) memcpy(bias, p->bias + n, (size_t)(left < TILE ? left : TILE) * sizeof(float));
                for (int64_t k = from; k < to; k += block) {
                    const int start = i > 0 || k > 0 ? 0 : (p->accumulate ? 0 : START_EMPTY) | (p->bias ? START_BIAS : 0);
                    const int64_t end = to - k < block ? to : k + block, places = type == GRAFT_ROWS_BF16 ? (end - k + 1) / 2 : end - k;
                    for (int v = 0; v < vectors; v++) {
                        if (type == GRAFT_ROWS_BF16) NAME(pack_pairs)(p, term, n + 16 * v, k, end, (uint16_t *)b + 32 * v);
                        else NAME(pack_floats)(p, term, n + 16 * v, k, end, (float *)b + 16 * v);
                    }
                    const uint8_t *a = term->a.data + (type == GRAFT_ROWS_BF16 ? 2 : 4) * k;
                    for (int first = 0; first < vectors; first += MICRO_VECTORS) {
                        const int count = vectors - first < MICRO_VECTORS ? vectors - first : MICRO_VECTORS;
                        for (int64_t r = row; r < row + rows; r += MICRO_ROWS) {
                            const int64_t left_rows = row + rows - r;
                            micro(type, left_rows < MICRO_ROWS ? (int)left_rows : MICRO_ROWS, count, a + r * term->a.stride, term->a.stride, b + 64 * first,
                                  places, p->c + r * p->ldc + n + 16 * first, p->ldc, start, bias + 16 * first);
                        }
                    }
                }
            }
        }
    }
}

#ifdef MULTIPLIES_TILES
#include "training_tiles.h"
#else
static void NAME(product_pairs)(const graft_product *p, int64_t column, int64_t columns, int64_t row, int64_t rows, uint8_t *scratch) {
    product_block(GRAFT_ROWS_BF16, p, column, columns, row, rows, scratch);
}
#endif

static void NAME(product_floats)(const graft_product *p, int64_t column, int64_t columns, int64_t row, int64_t rows, uint8_t *scratch) {
    product_block(GRAFT_ROWS_F32, p, column, columns, row, rows, scratch);
}

#if MULTIPLIES_FLOAT32
enum { SMALL_ROWS = 16 * MICRO_ROWS };

// graft_sgemm with the register tile, for the small products of attention: alpha 1, beta 0 or 1, at most one operand transposed.
static void NAME(small_product)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                                float beta, float *c, int64_t ldc) {
    (void)alpha;
    _Alignas(64) float right[BLOCK_FLOATS][TILE], left[SMALL_ROWS][BLOCK_FLOATS], sums[MICRO_ROWS][TILE];
    for (int64_t place = 0; place < k; place += BLOCK_FLOATS) {
        const int64_t places = k - place < BLOCK_FLOATS ? k - place : BLOCK_FLOATS;
        const int start = place == 0 && beta == 0 ? START_EMPTY : 0;
        for (int64_t column = 0; column < n; column += TILE) {
            const int64_t columns = n - column < TILE ? n - column : TILE;
            const int vectors = (int)((columns + 15) / 16);
            for (int v = 0; transpose_b && v < vectors; v++) {
                for (int64_t i = 0; i < places; i += 16) {
                    _Alignas(64) float lines[16][16];
                    const int64_t width = places - i < 16 ? places - i : 16;
                    for (int64_t j = 0; j < 16; j++) {
                        const int64_t at = column + 16 * v + j;
                        if (at < n && width == 16) {
                            store16(lines[j], load16(b + at * ldb + place + i));
                        } else {
                            memset(lines[j], 0, sizeof lines[j]);
                            if (at < n) memcpy(lines[j], b + at * ldb + place + i, (size_t)width * sizeof(float));
                        }
                    }
                    transpose_floats(lines, splat(1), &right[i][16 * v], width);
                }
            }
            for (int64_t i = 0; !transpose_b && i < places; i++) {
                if (columns < TILE) memset(right[i], 0, sizeof right[i]);
                memcpy(right[i], b + (place + i) * ldb + column, (size_t)columns * sizeof(float));
            }
            for (int64_t first = 0; first < m; first += SMALL_ROWS) {
                const int64_t rows = m - first < SMALL_ROWS ? m - first : SMALL_ROWS;
                const float *from = a + first * lda + place;
                int64_t stride = lda;
                if (transpose_a) {
                    for (int64_t i = 0; i < places; i++)
                        for (int64_t r = 0; r < rows; r++) left[r][i] = a[(place + i) * lda + first + r];
                    from = left[0], stride = BLOCK_FLOATS;
                }
                for (int64_t r = 0; r < rows; r += MICRO_ROWS) {
                    const int count = rows - r < MICRO_ROWS ? (int)(rows - r) : MICRO_ROWS;
                    float *to = c + (first + r) * ldc + column;
                    const uint8_t *row = (const uint8_t *)(from + r * stride);
                    // A vector that reaches beyond the last column is summed elsewhere.
                    if (columns % 16 == 0) {
                        micro(GRAFT_ROWS_F32, count, vectors, row, stride * 4, (const uint8_t *)right, places, to, ldc, start, NULL);
                        continue;
                    }
                    for (int i = 0; i < count; i++) memcpy(sums[i], to + i * ldc, (size_t)columns * sizeof(float));
                    micro(GRAFT_ROWS_F32, count, vectors, row, stride * 4, (const uint8_t *)right, places, sums[0], TILE, start, NULL);
                    for (int i = 0; i < count; i++) memcpy(to + i * ldc, sums[i], (size_t)columns * sizeof(float));
                }
            }
        }
    }
}
#define ATTENTION_PRODUCT(a) NAME(small_product)
#else
#define ATTENTION_PRODUCT(a) (a)->sgemm
#endif

// Columns n … n + count of a frozen term at contraction places k … end, as float32 [place][WIDE_TILE].
static void NAME(pack_wide)(const graft_product *p, const graft_term *term, int64_t n, int64_t count, int64_t k, int64_t end, float *b, float *v) {
    if (term->operand == GRAFT_OPERAND_PANELS) {
        for (int64_t c = 0; c < count; c += 16) {
            const int64_t stop = (end + 15) / 16 * 16;
            p->kernels->expand_panel(&term->w, (n + c) / 16, k, stop < term->w.cols ? stop : term->w.cols, v);
            for (int64_t i = 0; i < end - k; i++) memcpy(b + i * WIDE_TILE + c, v + 16 * i, 64);
        }
    } else {
        for (int64_t row = k; row < end; row += 16) {
            p->kernels->expand_panel(&term->w, row / 16, n, n + count, v);
            for (int64_t r = 0; r < 16 && row + r < end; r++)
                for (int64_t c = 0; c < count; c++) b[(row - k + r) * WIDE_TILE + c] = v[16 * c + r];
        }
    }
}

static void NAME(product_wide)(const graft_product *p, int64_t column, int64_t count, int64_t row, int64_t rows, uint8_t *scratch) {
    float *b = (float *)scratch, *v = b + WIDE_BLOCK * WIDE_TILE, *c = p->c + row * p->ldc + column;
    for (int64_t r = 0; r < rows; r++) {
        if (!p->accumulate) memset(c + r * p->ldc, 0, (size_t)count * sizeof(float));
        for (int64_t i = 0; p->bias && i < count; i++) c[r * p->ldc + i] += p->bias[column + i];
    }
    for (int i = 0; i < p->term_count; i++) {
        const graft_term *term = &p->terms[i];
        const float *a = (const float *)(term->a.data + row * term->a.stride);
        const int64_t lda = term->a.stride / 4;
        if (term->operand == GRAFT_OPERAND_ROWS) {
            p->sgemm(0, 1, rows, count, term->k, term->scale, a, lda, term->b + column * term->ldb, term->ldb, 1, c, p->ldc);
        } else if (term->operand == GRAFT_OPERAND_COLUMNS) {
            p->sgemm(0, 0, rows, count, term->k, term->scale, a, lda, term->b + column, term->ldb, 1, c, p->ldc);
        } else {
            for (int64_t k = 0; k < term->k; k += WIDE_BLOCK) {
                const int64_t end = term->k - k < WIDE_BLOCK ? term->k : k + WIDE_BLOCK;
                NAME(pack_wide)(p, term, column, count, k, end, b, v);
                p->sgemm(0, 0, rows, count, end - k, term->scale, a + k, lda, b, WIDE_TILE, 1, c, p->ldc);
            }
        }
    }
}

static void NAME(product)(void *context, size_t begin, size_t end, int thread) {
    const graft_product *p = context;
    uint8_t *scratch = p->scratch + thread * graft_product_scratch();
    const int pairs = p->terms[0].a.type == GRAFT_ROWS_BF16;
    const int64_t blocks = (p->columns + p->column_block - 1) / p->column_block;
    for (int64_t item = (int64_t)begin; item < (int64_t)end; item++) {
        const int64_t column = item % blocks * p->column_block, row = item / blocks * p->row_block;
        const int64_t columns = p->columns - column < p->column_block ? p->columns - column : p->column_block;
        const int64_t rows = p->rows - row < p->row_block ? p->rows - row : p->row_block;
        if (pairs) NAME(product_pairs)(p, column, columns, row, rows, scratch);
        else if (!p->sgemm) NAME(product_floats)(p, column, columns, row, rows, scratch);
        else NAME(product_wide)(p, column, columns, row, rows, scratch);
    }
}

// `count` of h's numbers against `vectors` · 16 columns.
ALWAYS_INLINE void outer_tile(const int type, const int count, const int vectors, const graft_outer *o, int64_t j, int64_t column) {
    v16f sum[8][2];
    for (int i = 0; i < count; i++)
        for (int v = 0; v < vectors; v++) sum[i][v] = splat(0);
    const uint8_t *x = o->x.data;
    const float *h = o->h + j;
    for (int64_t r = 0; r < o->rows; r++, x += o->x.stride, h += o->h_stride) {
        v16f right[2];
        for (int v = 0; v < vectors; v++) right[v] = load_typed(type, x, column + 16 * v);
        for (int i = 0; i < count; i++)
            for (int v = 0; v < vectors; v++) sum[i][v] = fma16(right[v], splat(h[i]), sum[i][v]);
    }
    const v16f scale = splat(o->scale);
    for (int i = 0; i < count; i++) {
        for (int v = 0; v < vectors; v++) {
            float *g = o->g + (j + i) * o->ldg + column + 16 * v;
            store16(g, fma16(sum[i][v], scale, load16(g)));
        }
    }
}

ALWAYS_INLINE void outer_columns(const int type, const int vectors, const graft_outer *o, int64_t column) {
    int64_t j = 0;
    for (; j + 8 <= o->rank; j += 8) outer_tile(type, 8, vectors, o, j, column);
    for (; j + 2 <= o->rank; j += 2) outer_tile(type, 2, vectors, o, j, column);
    for (; j < o->rank; j++) outer_tile(type, 1, vectors, o, j, column);
}

static void NAME(outer)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_outer *o = context;
    const int64_t stop = (int64_t)end * GRAFT_OUTER_COLUMNS < o->width ? (int64_t)end * GRAFT_OUTER_COLUMNS : o->width;
#ifdef MULTIPLIES_TILES
    if (o->x.type == GRAFT_ROWS_BF16) {
        for (int64_t column = (int64_t)begin * GRAFT_OUTER_COLUMNS; column < stop; column += GRAFT_OUTER_COLUMNS)
            outer_tiles(o, column, stop - column < GRAFT_OUTER_COLUMNS ? stop - column : GRAFT_OUTER_COLUMNS);
        _tile_release();
        return;
    }
#endif
    for (int64_t column = (int64_t)begin * GRAFT_OUTER_COLUMNS; column < stop; column += 32) {
        const int wide = stop - column >= 32;
        if (o->x.type == GRAFT_ROWS_F32) {
            if (wide) outer_columns(GRAFT_ROWS_F32, 2, o, column);
            else outer_columns(GRAFT_ROWS_F32, 1, o, column);
        } else {
            if (wide) outer_columns(GRAFT_ROWS_BF16, 2, o, column);
            else outer_columns(GRAFT_ROWS_BF16, 1, o, column);
        }
    }
}

// ------------------------------------------------------------------------------------------------------- norms and gates

ALWAYS_INLINE float inverse_root_mean(const graft_rows *x, int64_t r, int64_t width, float eps) {
    v16f squares = splat(0);
    for (int64_t i = 0; i < width; i += 16) {
        const v16f v = load_row(x, r, i);
        squares = fma16(v, v, squares);
    }
    return 1.0f / sqrtf(sum_lanes(squares) / (float)width + eps);
}

static void NAME(train_norm)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_norm *n = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        const v16f factor = splat(inverse_root_mean(&n->x, r, n->width, n->eps));
        for (int64_t i = 0; i < n->width; i += 16) {
            const v16f x = load_row(&n->x, r, i), y = x * factor * load16(n->weight + i);
            if (n->save.data) store_row(&n->save, r, i, x);
            if (n->y.data) store_row(&n->y, r, i, y);
            if (n->residual) {
                float *to = n->residual + r * n->residual_stride + i;
                store16(to, load16(to) + y);
            }
        }
    }
}

static void NAME(train_norm_backward)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_norm_backward *n = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        const float *dy = n->dy + r * n->dy_stride;
        float *dx = n->dx + r * n->dx_stride;
        const float inverse = inverse_root_mean(&n->x, r, n->width, n->eps);
        v16f dots = splat(0);
        for (int64_t i = 0; i < n->width; i += 16) dots = fma16(load16(dy + i) * load16(n->weight + i), load_row(&n->x, r, i), dots);
        // x̂ mean(g ∘ x̂) = x · inverse² · mean(g ∘ x)
        const v16f factor = splat(inverse), pull = splat(sum_lanes(dots) / (float)n->width * inverse * inverse);
        for (int64_t i = 0; i < n->width; i += 16) {
            v16f d = fma16(load_row(&n->x, r, i), -pull, load16(dy + i) * load16(n->weight + i)) * factor;
            if (n->accumulate) d = d + load16(dx + i);
            store16(dx + i, d);
            if (n->copy.data) store_row(&n->copy, r, i, d);
        }
    }
}

static void NAME(train_gate)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_gate *g = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        const float *gate = g->gate + r * g->stride, *up = g->up + r * g->stride;
        for (int64_t i = 0; i < g->width; i += 16) {
            const v16f x = load16(gate + i), u = load16(up + i);
            const v16f y = g->activation == GRAFT_SILU ? activate(GRAFT_SILU, x) : activate(GRAFT_GELU_TANH, x);
            if (g->save_gate.data) store_row(&g->save_gate, r, i, x);
            if (g->save_up.data) store_row(&g->save_up, r, i, u);
            store_row(&g->act, r, i, y * u);
        }
    }
}

static void NAME(train_gate_backward)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_gate_backward *g = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        const float *dact = g->dact + r * g->dact_stride;
        for (int64_t i = 0; i < g->width; i += 16) {
            const v16f x = load_row(&g->gate, r, i), u = load_row(&g->up, r, i), d = load16(dact + i), one = splat(1);
            v16f z = x, slope = one;  // the sigmoid's argument and its derivative
            if (g->activation == GRAFT_GELU_TANH) {
                z = fma16(x * x * x, splat(0.044715f), x) * splat(1.5957691216057308f);
                slope = fma16(x * x, splat(3 * 0.044715f), one) * splat(1.5957691216057308f);
            }
            const v16f s = one / (one + exp16(-z)), y = x * s;
            store_row(&g->act, r, i, y * u);
            store_row(&g->dup, r, i, d * y);
            store_row(&g->dgate, r, i, d * u * fma16(y * (one - s), slope, s));
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- attention

// Rotates one head by its angles; `direction` -1 rotates back.
ALWAYS_INLINE void rotate_head(float *head, int rotary_dim, int style, const float *cos, const float *sin, float direction) {
    const int pairs = rotary_dim / 2;
    for (int j = 0; j < pairs; j++) {
        const int first = style == GRAFT_ROPE_INTERLEAVED ? 2 * j : j, second = style == GRAFT_ROPE_INTERLEAVED ? 2 * j + 1 : j + pairs;
        const float x = head[first], y = head[second], s = direction * sin[j];
        head[first] = x * cos[j] - y * s;
        head[second] = y * cos[j] + x * s;
    }
}

static void NAME(train_rope)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_rope *t = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        for (int h = 0; h < t->heads; h++) {
            const int64_t base = (int64_t)h * t->head_dim;
            float *y = t->y + r * t->y_stride + base;
            v16f squares = splat(0);
            for (int i = 0; i < t->head_dim; i += 16) {
                const v16f v = load_row(&t->x, r, base + i);
                if (t->save.data) store_row(&t->save, r, base + i, v);
                store16(y + i, v);
                squares = fma16(v, v, squares);
            }
            if (t->weight) {
                const v16f factor = splat(1.0f / sqrtf(sum_lanes(squares) / (float)t->head_dim + t->eps));
                for (int i = 0; i < t->head_dim; i += 16) store16(y + i, load16(y + i) * factor * load16(t->weight + i));
            }
            rotate_head(y, t->rotary_dim, t->style, t->cos + r * (t->rotary_dim / 2), t->sin + r * (t->rotary_dim / 2), 1);
        }
    }
}

static void NAME(train_rope_backward)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_rope_backward *t = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        for (int h = 0; h < t->heads; h++) {
            const int64_t base = (int64_t)h * t->head_dim;
            float *dy = t->dy + r * t->dy_stride + base;
            rotate_head(dy, t->rotary_dim, t->style, t->cos + r * (t->rotary_dim / 2), t->sin + r * (t->rotary_dim / 2), -1);
            if (t->weight) {
                v16f squares = splat(0), dots = splat(0);
                for (int i = 0; i < t->head_dim; i += 16) {
                    const v16f x = load_row(&t->x, r, base + i);
                    squares = fma16(x, x, squares);
                    dots = fma16(load16(dy + i) * load16(t->weight + i), x, dots);
                }
                const float inverse = 1.0f / sqrtf(sum_lanes(squares) / (float)t->head_dim + t->eps);
                const v16f factor = splat(inverse), pull = splat(sum_lanes(dots) / (float)t->head_dim * inverse * inverse);
                for (int i = 0; i < t->head_dim; i += 16)
                    store16(dy + i, fma16(load_row(&t->x, r, base + i), -pull, load16(dy + i) * load16(t->weight + i)) * factor);
            }
            for (int i = 0; i < t->head_dim; i += 16) store_row(&t->dx, r, base + i, load16(dy + i));
        }
    }
}

// Queries are taken in blocks: scores [QUERIES][keys].
enum { QUERIES = 64 };

// Keys that the query at position i of an example may see: from ... i.
ALWAYS_INLINE int64_t oldest_key(const graft_train_attention *a, int64_t i) { return a->window > 0 && i - a->window + 1 > 0 ? i - a->window + 1 : 0; }

// scores become weights: row r is query `query + r`, its columns are keys `key` …; keys it must not see weigh 0.
ALWAYS_INLINE void softmax_rows(const graft_train_attention *a, float *scores, int64_t ld, int64_t query, int64_t rows, int64_t key, int64_t keys) {
    for (int64_t r = 0; r < rows; r++) {
        float *s = scores + r * ld;
        const int64_t first = oldest_key(a, query + r) - key, last = query + r - key;
        float m = -INFINITY;
        for (int64_t i = first; i <= last; i++) m = s[i] > m ? s[i] : m;
        for (int64_t i = 0; i < first; i++) s[i] = 0;
        for (int64_t i = last + 1; i < keys; i++) s[i] = 0;
        v16f sums = splat(0);
        int64_t i = first;
        for (; i + 16 <= last + 1; i += 16) {
            const v16f e = exp16((load16(s + i) - splat(m)) * splat(a->scale));
            store16(s + i, e);
            sums = sums + e;
        }
        float sum = sum_lanes(sums);
        if (i <= last) {
            float tail[16] = {};
            memcpy(tail, s + i, (size_t)(last + 1 - i) * sizeof(float));
            v16f e = exp16((load16(tail) - splat(m)) * splat(a->scale));
            for (int64_t j = 0; i + j <= last; j++) s[i + j] = e[j], sum += e[j];
        }
        const float inverse = 1.0f / sum;
        for (i = first; i <= last; i++) s[i] *= inverse;
    }
}

// What a segment's queries see: keys key … key + keys - 1 of their example, which lie in several pieces.
typedef struct {
    const graft_train_piece *piece, *own;
    int64_t key, keys;
} seen_keys;

// The part of them that lies in `piece`: its first row, its place among the keys, and its number of keys; 0 if it has none.
ALWAYS_INLINE int64_t keys_in_piece(const seen_keys *seen, const graft_train_piece *piece, int64_t *row, int64_t *place) {
    const int64_t first = piece->position > seen->key ? piece->position : seen->key, end = piece->position + piece->count;
    *row = piece->first + first - piece->position;
    *place = first - seen->key;
    return (end < seen->key + seen->keys ? end : seen->key + seen->keys) - first;
}

ALWAYS_INLINE seen_keys keys_seen(const graft_train_attention *a, const graft_train_segment *segment, int64_t query, int64_t rows) {
    const graft_train_piece *pieces = a->pieces + segment->piece;
    const int64_t key = oldest_key(a, query);
    return (seen_keys){pieces, pieces + segment->piece_count - 1, key, query + rows - key};
}

// y [rows][ld] = x [rows][x_stride] times the keys' or values' rows, which are at `base`: Y = X Kᵀ.
ALWAYS_INLINE void times_keys_transposed(
    const graft_train_attention *a, const seen_keys *seen, int64_t rows, const float *x, const float *base, float *y, int64_t ld) {
    for (const graft_train_piece *piece = seen->piece; piece <= seen->own; piece++) {
        int64_t row, place;
        const int64_t n = keys_in_piece(seen, piece, &row, &place);
        if (n > 0) ATTENTION_PRODUCT(a)(0, 1, rows, n, a->head_dim, 1, x, a->q_stride, base + row * a->kv_stride, a->kv_stride, 0, y + place, ld);
    }
}

// y [rows][y_stride] = X K with x [rows][ld].
ALWAYS_INLINE void times_keys(
    const graft_train_attention *a, const seen_keys *seen, int64_t rows, const float *x, int64_t ld, const float *base, float *y, int64_t y_stride) {
    float beta = 0;
    for (const graft_train_piece *piece = seen->piece; piece <= seen->own; piece++) {
        int64_t row, place;
        const int64_t n = keys_in_piece(seen, piece, &row, &place);
        if (n <= 0) continue;
        ATTENTION_PRODUCT(a)(0, 0, rows, a->head_dim, n, 1, x + place, ld, base + row * a->kv_stride, a->kv_stride, beta, y, y_stride);
        beta = 1;
    }
}

// K += Xᵀ Y with x [rows][ld], y [rows][q_stride].
ALWAYS_INLINE void add_to_keys(const graft_train_attention *a, const seen_keys *seen, int64_t rows, const float *x, int64_t ld, const float *y, float *base) {
    for (const graft_train_piece *piece = seen->piece; piece <= seen->own; piece++) {
        int64_t row, place;
        const int64_t n = keys_in_piece(seen, piece, &row, &place);
        if (n > 0) ATTENTION_PRODUCT(a)(1, 0, n, a->head_dim, rows, 1, x + place, ld, y, a->q_stride, 1, base + row * a->kv_stride, a->kv_stride);
    }
}

static void NAME(train_attention)(void *context, size_t begin, size_t end, int thread) {
    const graft_train_attention *a = context;
    float *scores = (float *)(a->scratch + thread * a->scratch_bytes);
    const int dim = a->head_dim, group = a->heads / a->kv_heads;
    for (int64_t item = (int64_t)begin; item < (int64_t)end; item++) {
        const graft_train_segment *segment = &a->segments[item / a->heads];
        const graft_train_piece own = a->pieces[segment->piece + segment->piece_count - 1];
        const int head = (int)(item % a->heads), kv = head / group;
        const int64_t ld = (own.position + own.count + 15) / 16 * 16, to = own.count < a->to ? own.count : a->to;
        float *block = scores + QUERIES * ld;
        for (int64_t first = a->from; first < to; first += QUERIES) {
            const int64_t rows = to - first < QUERIES ? to - first : QUERIES, query = own.position + first, row = own.first + first;
            const seen_keys seen = keys_seen(a, segment, query, rows);
            times_keys_transposed(a, &seen, rows, a->q + row * a->q_stride + (int64_t)head * dim, a->k + (int64_t)kv * dim, scores, ld);
            softmax_rows(a, scores, ld, query, rows, seen.key, seen.keys);
            times_keys(a, &seen, rows, scores, ld, a->v + (int64_t)kv * dim, block, dim);
            for (int64_t r = 0; r < rows; r++)
                for (int i = 0; i < dim; i += 16) store_row(&a->out, row + r, (int64_t)head * dim + i, load16(block + r * dim + i));
        }
    }
}

// With weights p, o = p v: dv = pᵀ do, dp = do vᵀ, ds = p ∘ (dp - rowsum(p ∘ dp)) · scale, dq = ds k, dk = dsᵀ q.
static void NAME(train_attention_backward)(void *context, size_t begin, size_t end, int thread) {
    const graft_train_attention *a = context;
    float *scores = (float *)(a->scratch + thread * a->scratch_bytes);
    const int dim = a->head_dim, group = a->heads / a->kv_heads;
    for (int64_t item = (int64_t)begin; item < (int64_t)end; item++) {
        const graft_train_segment *segment = &a->segments[item / a->kv_heads];
        const graft_train_piece own = a->pieces[segment->piece + segment->piece_count - 1];
        const int kv = (int)(item % a->kv_heads);
        const int64_t ld = (own.position + own.count + 15) / 16 * 16, to = own.count < a->to ? own.count : a->to;
        const float *k = a->k + (int64_t)kv * dim, *v = a->v + (int64_t)kv * dim;
        float *dk = a->dk + (int64_t)kv * dim, *dv = a->dv + (int64_t)kv * dim, *slopes = scores + QUERIES * ld;
        for (int64_t r = own.first; a->from == 0 && r < own.first + own.count; r++) {
            memset(dk + r * a->kv_stride, 0, (size_t)dim * sizeof(float));
            memset(dv + r * a->kv_stride, 0, (size_t)dim * sizeof(float));
        }
        for (int head = kv * group; head < (kv + 1) * group; head++) {
            for (int64_t first = a->from; first < to; first += QUERIES) {
                const int64_t rows = to - first < QUERIES ? to - first : QUERIES, query = own.position + first;
                const int64_t at = (own.first + first) * a->q_stride + (int64_t)head * dim;
                const seen_keys seen = keys_seen(a, segment, query, rows);
                times_keys_transposed(a, &seen, rows, a->q + at, k, scores, ld);
                softmax_rows(a, scores, ld, query, rows, seen.key, seen.keys);
                add_to_keys(a, &seen, rows, scores, ld, a->dout + at, dv);
                times_keys_transposed(a, &seen, rows, a->dout + at, v, slopes, ld);
                for (int64_t r = 0; r < rows; r++) {
                    float *p = scores + r * ld, *d = slopes + r * ld;
                    // Past the last key the memory is the scratch's own: it is made 0, so that whole vectors may be used.
                    for (int64_t i = seen.keys; i < (seen.keys + 15) / 16 * 16; i++) p[i] = d[i] = 0;
                    v16f dots = splat(0);
                    for (int64_t i = 0; i < seen.keys; i += 16) dots = fma16(load16(p + i), load16(d + i), dots);
                    const v16f mean = splat(sum_lanes(dots)), scale = splat(a->scale);
                    for (int64_t i = 0; i < seen.keys; i += 16) store16(d + i, load16(p + i) * (load16(d + i) - mean) * scale);
                }
                times_keys(a, &seen, rows, slopes, ld, k, a->dq + at, a->q_stride);
                add_to_keys(a, &seen, rows, slopes, ld, a->q + at, dk);
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------ loss

static void NAME(train_loss)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_loss *l = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        float *logits = l->logits + r * l->stride;
        // Lanes past the width weigh nothing.
        const int64_t padded = (l->width + 15) / 16 * 16;
        for (int64_t i = l->width; i < padded; i++) logits[i] = -INFINITY;
        v16f highest = splat(-INFINITY);
        for (int64_t i = 0; i < padded; i += 16) highest = max16(highest, load16(logits + i));
        const float m = max_lanes(highest), target = logits[l->targets[r]];
        double sum = 0;
        for (int64_t i = 0; i < padded; i += 16) sum += (double)sum_lanes(exp16(load16(logits + i) - splat(m)));
        l->log_probabilities[r] = (float)((double)target - (double)m - log(sum));
        int64_t best = 0;
        while (logits[best] != m && best < l->width - 1) best++;
        l->hits[r] = best == l->targets[r];
        if (!l->gradient.data) continue;
        const float weight = l->weights[r];
        const v16f factor = splat((float)((double)weight / sum));
        uint8_t *gradient = l->gradient.data + r * l->gradient.stride;
        // The gradient may lie where the logits are: it is never longer, and written behind what is read.
        for (int64_t i = 0; i < padded; i += 16) store_typed(l->gradient.type, gradient, i, exp16(load16(logits + i) - splat(m)) * factor);
        const float probability = (float)exp((double)target - (double)m) / (float)sum, slope = weight * (probability - 1);
        if (l->gradient.type == GRAFT_ROWS_F32) {
            ((float *)gradient)[l->targets[r]] = slope;
        } else {
            v16h narrowed = narrow(splat(slope));
            memcpy(gradient + 2 * l->targets[r], &narrowed, 2);
        }
    }
}

// -------------------------------------------------------------------------------------------- rows, chance, the optimiser

static void NAME(train_copy)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_copy *c = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++)
        for (int64_t i = 0; i < c->width; i += 16) store_row(&c->to, r, i, load_row(&c->from, r, i));
}

// 32 random bits a lane: the finaliser of MurmurHash3 over (key, salt, column).
ALWAYS_INLINE v16w draw(uint64_t key, uint64_t salt, int64_t column) {
    uint64_t mixed = (key ^ salt * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 29) * 0x94d049bb133111ebu;
    mixed ^= mixed >> 32;
    v16w lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16w h = (lane + (uint32_t)column) * 0x9e3779b1u ^ (uint32_t)mixed;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

static void NAME(train_dropout)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_dropout *d = context;
    const uint32_t limit = (uint32_t)((double)d->share * 4294967296.0);
    const v16f factor = splat(1 / (1 - d->share));
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        for (int64_t i = 0; i < d->width; i += 16) {
            const v16f x = load_row(&d->x, r, i) * factor;
            v16i keep = (v16i)(draw(d->keys[r], d->salt, i) >= (v16w){} + limit), bits;
            memcpy(&bits, &x, sizeof x);
            bits &= keep;
            v16f y;
            memcpy(&y, &bits, sizeof y);
            if (d->add) {
                float *to = d->add + r * d->add_stride + i;
                store16(to, load16(to) + y);
            } else {
                store_row(&d->y, r, i, y);
            }
        }
    }
}

static void NAME(train_noise)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_noise *n = context;
    for (int64_t r = (int64_t)begin; r < (int64_t)end; r++) {
        float *x = n->x + r * n->stride;
        const v16f amplitude = splat(n->amplitudes[r]);
        for (int64_t i = 0; i < n->width; i += 16) {
            const v16f u = __builtin_convertvector((v16i)draw(n->keys[r], n->salt, i), v16f) * splat(0x1p-31f);
            store16(x + i, fma16(u, amplitude, load16(x + i)));
        }
    }
}

static void NAME(train_adamw)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_adamw *a = context;
    for (int64_t i = (int64_t)begin * GRAFT_OPTIMISER_CHUNK; i < (int64_t)end * GRAFT_OPTIMISER_CHUNK && i < a->count; i++) {
        const float g = a->gradients[i] * a->gradient_scale;
        const float m = a->first[i] = a->beta1 * a->first[i] + (1 - a->beta1) * g;
        const float v = a->second[i] = a->beta2 * a->second[i] + (1 - a->beta2) * g * g;
        a->parameters[i] -= a->decay * a->parameters[i] + a->learning_rate / a->correction1 * m / (sqrtf(v) / a->correction2 + a->epsilon);
    }
}

static void NAME(train_squares)(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const graft_train_squares *s = context;
    for (int64_t chunk = (int64_t)begin; chunk < (int64_t)end; chunk++) {
        const int64_t first = chunk * GRAFT_OPTIMISER_CHUNK, last = first + GRAFT_OPTIMISER_CHUNK < s->count ? first + GRAFT_OPTIMISER_CHUNK : s->count;
        double sum[8] = {};
        int64_t i = first;
        for (; i + 8 <= last; i += 8)
            for (int j = 0; j < 8; j++) sum[j] += (double)s->x[i + j] * (double)s->x[i + j];
        for (; i < last; i++) sum[0] += (double)s->x[i] * (double)s->x[i];
        s->sums[chunk] = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
    }
}

static const graft_training_kernels NAME(training) = {
    .name = VARIANT_NAME,
    .multiplies_bfloat16 = MULTIPLIES_BFLOAT16,
    .multiplies_float32 = MULTIPLIES_FLOAT32,
    .bfloat16_columns = BFLOAT16_COLUMNS,
    .product = NAME(product),
    .outer = NAME(outer),
    .norm = NAME(train_norm),
    .norm_backward = NAME(train_norm_backward),
    .gate = NAME(train_gate),
    .gate_backward = NAME(train_gate_backward),
    .rope = NAME(train_rope),
    .rope_backward = NAME(train_rope_backward),
    .attention = NAME(train_attention),
    .attention_backward = NAME(train_attention_backward),
    .loss = NAME(train_loss),
    .copy = NAME(train_copy),
    .dropout = NAME(train_dropout),
    .noise = NAME(train_noise),
    .adamw = NAME(train_adamw),
    .squares = NAME(train_squares),
};
