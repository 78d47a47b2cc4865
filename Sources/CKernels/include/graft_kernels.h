// The manual of the compute kernels. Kernels never fail and never allocate: shapes are checked by the Swift target `Kernels`,
// which is the only caller.
//
// Three families live here.
//   * Panels: weight matrices W [rows, cols], repacked once at load, value for value, into groups of 16 rows whose bytes lie in
//     the order in which the dot instructions read them.
//   * Row kernels: norms, rotary embedding, activation quantisation, attention, over float32 rows.
//   * The thread pool that runs a kernel over ranges of items.
//
// A row's numbers never depend on its company. For one token row, the sequence of floating-point operations is fixed by the weight
// format and the row's position: the register tile that computes it, the number of rows beside it, the instruction set and the
// number of threads change nothing. Every multiply-add is an explicit fused one, and contraction is off, so the AVX-512, AVX2 and
// generic variants of a kernel give equal bits.
#ifndef GRAFT_KERNELS_H
#define GRAFT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

// ---------------------------------------------------------------------------------------------------------------- panels

enum { GRAFT_PANEL_ROWS = 16, GRAFT_BLOCK = 32, GRAFT_SUPERBLOCK = 256 };

// How a panel stores its values. u is the stored unsigned integer, z the matrix's zero point.
typedef enum {
    GRAFT_PANEL_W4_HALF = 0,      // Q4_0        v = d (u - z)             d: half per 32
    GRAFT_PANEL_W4_HALF_MIN = 1,  // Q4_1        v = d u + m               d, m: half per 32
    GRAFT_PANEL_W4_K_MIN = 2,     // Q4_K        v = (d s) u - (e m)       d, e: half per 256; s, m: 8 bits per 32
    GRAFT_PANEL_W8_HALF = 3,      // Q8_0, Q5_0  v = d (u - z)
    GRAFT_PANEL_W8_HALF_MIN = 4,  // Q5_1        v = d u + m
    GRAFT_PANEL_W8_K_MIN = 5,     // Q5_K        v = (d s) u - (e m)
    GRAFT_PANEL_W8_K16 = 6,       // Q6_K, Q3_K  v = (d s) (u - z)         s: signed 8 bits per 16
    GRAFT_PANEL_W8_K16_MIN = 7,   // Q2_K        v = (d s) u - (e m)       s, m: 8 bits per 16
    GRAFT_PANEL_F16 = 8,
    GRAFT_PANEL_BF16 = 9,
    GRAFT_PANEL_F32 = 10,
} graft_panel_kind;

// W [rows, cols] as ceil(rows / 16) panels, `panel_bytes` apart; rows past the end are zero. Inside a panel, at the given offsets:
//   scale      half [cols/32][16], or for K kinds half d [cols/256][16]
//   minimum    half [cols/32][16], or for K kinds half e [cols/256][16]
//   sub_scale  8 bits [cols/32 or cols/16][16], K kinds only
//   sub_min    8 bits [cols/32 or cols/16][16], K kinds only
//   quants     W8: [cols/4][16 rows][4 columns] bytes. W4: [cols/8][16][4] bytes whose low nibbles are columns 8i…8i+3 and whose high
//              nibbles are columns 8i+4…8i+7. Float kinds: [cols][16] values.
// `data` and every quants region are aligned to 64 bytes.
typedef struct {
    int32_t kind;
    int32_t zero;
    int64_t rows, cols;
    int64_t panel_bytes;
    int64_t scale, minimum, sub_scale, sub_min, quants;
    uint8_t *data;
} graft_panels;

// The layout of a matrix of GGML type `type`; `data` is left NULL. Returns 0 if the type has no panel form.
int graft_panels_layout(graft_panels *panels, int type, int64_t rows, int64_t cols);
// Repacks panels `begin` … `end` from `source`, the whole matrix as the GGUF file holds it (row-major, rows of blocks).
void graft_panels_pack(const graft_panels *panels, int type, const void *source, int64_t begin, int64_t end);

// ------------------------------------------------------------------------------------------------- quantised activations

// One row x [cols], cols a multiple of 32, as signed 8-bit integers with a scale per block of 32: x ≈ d q, d = max|x| / 127.
//   q [cols] int8 · d [cols/32] float · ds32 [cols/32] float = d Σq · s32 [cols/32] int32 = Σq · ds16, s16: the same per 16
typedef struct {
    int64_t d, ds32, s32, ds16, s16;  // offsets of the arrays in a row; q is at 0
    int64_t bytes;                    // stride of rows, a multiple of 64
} graft_activation_layout;

graft_activation_layout graft_activation_layout_for(int64_t cols);

// -------------------------------------------------------------------------------------------------------------- low rank

// Low-rank adapters (LoRA, arXiv 2106.09685), applied unmerged in a step whose rows may each carry different ones:
//
//     y = W x + Σ over the row's adapters of weight · scale · B (A x)
//
// Projections that share their input form a stage (q, k, v; o; gate, up; down). Its A's are stacked into one matrix, so that h = A x is one
// product per row, stage and adapter, made by the job that quantises the row or, for a step of one row, by the product's own threads. h is quantised
// with a scale per projection, and B h is added to the base product's sums before they leave for y: adapters cost no pass over y and no barrier.
//
// A is held as 8 bits with a scale per block of 32, B as 8 bits with a float scale per row. Per row the operations are fixed by the row's own
// adapters, in their order; integer sums are exact, so all variants give equal bits.
enum { GRAFT_LORA_PAIRS = 3, GRAFT_LORA_MAX_RANK = 256, GRAFT_LORA_RANK_STEP = 4 };

typedef struct {
    int32_t rank;    // rounded up to a multiple of 4; 0: the projection is left alone
    int32_t offset;  // of its first row among the stacked rows of A
    // Per 16 rows of B: float scale [16], LoRA's own included, then [rank/4][16 rows][4 columns] bytes u; v = scale (u - 128).
    const uint8_t *b;
} graft_lora_pair;

typedef struct {
    graft_panels a;  // GRAFT_PANEL_W8_HALF; rows 0: the adapter has nothing in this stage
    graft_lora_pair pairs[GRAFT_LORA_PAIRS];
} graft_lora_stage;

// One adapter of a row: its stages by number, its weight, and where its h lies in the row's hidden bytes.
typedef struct {
    const graft_lora_stage *stages;
    float weight;
    int32_t hidden;
} graft_lora_term;

typedef struct {
    int32_t first, count;  // terms
} graft_lora_span;

// h = A x of a step's only row, put off until the product that adds it: the threads that start on the product share A's panels between them,
// instead of one computing them all while the others wait. The kernels' own; `graft_lora_deferred_bytes` large.
typedef struct {
    const uint8_t *x;  // the quantised row
    // Panels of all terms that a thread has taken, and that are done; then whether the shares are there. Atomic.
    int32_t taken, done, ready;
    _Alignas(64) float h[][GRAFT_LORA_PAIRS * GRAFT_LORA_MAX_RANK];  // [terms]
} graft_lora_deferred;

int64_t graft_lora_deferred_bytes(int64_t terms);

// The adapters of a step. rows NULL: none.
typedef struct {
    const graft_lora_span *rows;  // [tokens]
    const graft_lora_term *terms;
    int64_t term_count;
    int64_t stage;
    uint8_t *hidden;  // [tokens]: per term graft_lora_share [3], then int8 h [stacked rows]
    int64_t hidden_stride;
    graft_lora_deferred *deferred;  // of a single row, whose terms are all there are; NULL: h is computed along with the quantised row
} graft_lora;

// What a row's adapter adds to one projection's output: scale · B q.
typedef struct {
    const uint8_t *b;
    const uint8_t *q;
    float scale;    // of q, with the adapter's weight
    int32_t q_sum;  // Σq
    int32_t rank;   // 0: nothing
} graft_lora_share;

// Bytes of one term's h over `stacked` rows of A.
int64_t graft_lora_hidden_bytes(int64_t stacked);
// A [rank, cols] becomes rows `offset` … of the stacked panels, each row multiplied by a power of two that brings it into half's range; the
// exponents go to `exponents` [rank].
void graft_lora_pack_a(const graft_panels *panels, int64_t offset, const float *a, int64_t rank, int32_t *exponents);
// Bytes of B [rows, rank] as a pair holds it.
int64_t graft_lora_b_bytes(int64_t rows, int64_t rank);
// B with its columns divided by the same powers.
void graft_lora_pack_b(const float *b, int64_t rows, int64_t rank, const int32_t *exponents, float scale, uint8_t *panels);

// ---------------------------------------------------------------------------------------------------------------- matmul

// y [token][ldy] = W x (+ bias) (+ y): one weight matrix of a fused projection.
typedef struct {
    graft_panels weights;
    const float *bias;  // [rows] or NULL
    float *y;
    int64_t ldy;
    int32_t pair;  // its place in the adapters' stage; -1: none
} graft_matmul_part;

// Up to four matrices that share their input. `accumulate` adds to y (the residual stream) instead of overwriting it.
typedef struct {
    graft_matmul_part parts[4];
    int64_t part_count;
    const void *x;      // quantised rows, or float rows for the float kernels
    int64_t x_stride;   // bytes from row to row
    int64_t tokens;
    int32_t accumulate;
    int32_t quantised;  // 1: x holds quantised rows and no part is of a float kind; 0: float32 rows
    graft_lora lora;
} graft_matmul;

// From so many rows on a kernel may expand weights once for all of them and take three panels at a time. Chunks of so many units, which are six panels, fill
// such a tile; what they are has no influence on results.
enum { GRAFT_MANY_ROWS = 24, GRAFT_MANY_ROWS_UNITS = 3 };

// The work is split into units of two panels: unit u of the whole lies in the part that its index falls into.
int64_t graft_matmul_units(const graft_matmul *m);

// activation(W_gate x) · (W_up x) of 8-bit rows, in 8 bits: what lies between goes no further than a thread's cache. Both matrices have the same shape,
// quantised kinds and a multiple of 32 rows. Per row the operations are those of the two products and graft_gated.
typedef struct {
    graft_panels gate, up;
    const uint8_t *x;
    uint8_t *y;
    int64_t x_stride, y_stride, tokens;
    int32_t activation;
} graft_gated_matmul;

// ------------------------------------------------------------------------------------------------------------- attention

enum { GRAFT_KV_BLOCK = 32, GRAFT_KEY_GROUP = 16 };
typedef enum { GRAFT_KV_F32 = 0, GRAFT_KV_F16 = 1, GRAFT_KV_Q8 = 2 } graft_kv_type;

// One layer's share of a cache block of 32 tokens:
//   keys    [kv_heads][head_dim][32]   (a query meets 32 keys per load)
//   values  [kv_heads][32][head_dim]
//   for Q8: halves: key scales [kv_heads][head_dim / 16][32], then value scales [kv_heads][32]
// Keys have a few components that are far larger than the rest (Qwen2.5's by their biases), so that one scale for a head would leave the others few steps.
typedef struct {
    int32_t type;
    int32_t kv_heads, head_dim;
    int64_t values, key_scales, value_scales;  // offsets; keys are at 0
    int64_t bytes;                             // a multiple of 64
} graft_kv_layout;

graft_kv_layout graft_kv_layout_for(int type, int kv_heads, int head_dim);

// Keys are taken in spans of so many, at fixed absolute positions; what rows have of each is joined in order (Flash-Decoding, Dao et al., 2023). So several
// threads can share one long sequence, and a row's numbers depend neither on whether they did nor on how a prompt was cut.
enum { GRAFT_ATTENTION_SPAN = 256 };

// A run of query rows of one sequence: rows `row` … `row + count`, at positions `position` … , over the sequence's blocks.
typedef struct {
    int64_t row, count, position;
    const int32_t *blocks;  // block table: the i-th block holds positions 32 i … 32 i + 31
    float *partials;        // NULL, or given by graft_attention_share: threads share the run's spans
} graft_attention_run;

// out[row] = softmax(scale · q Kᵀ) V for every query head; keys at positions ≤ the row's own, and > own - window if window > 0.
typedef struct {
    graft_kv_layout layout;
    uint8_t *cache;         // this layer's share of block 0
    int64_t block_stride;   // bytes from block to block
    const graft_attention_run *runs;
    int64_t run_count;
    const float *q;         // [rows][q_stride]
    float *out;             // [rows][out_stride]
    uint8_t *quantised;     // NULL, or where the rows go instead, in 8 bits; head_dim is a multiple of 32 then
    int64_t q_stride, out_stride, quantised_stride;
    int32_t heads;
    float scale;
    int64_t window;
} graft_attention;

// The most query rows (tokens × heads of a group) that one work item holds on its stack.
enum { GRAFT_ATTENTION_ROWS = 48, GRAFT_MAX_HEAD_DIM = 256 };

// A run is handed out in tiles of this many tokens (no influence on results).
int64_t graft_attention_tile_tokens(const graft_attention *a);

// Work items of a run: its tiles for each head of keys, and of a run with `partials` its spans for each head.
int64_t graft_attention_items(const graft_attention *a, const graft_attention_run *run);

// Memory that sharing a run's spans takes, a multiple of 64 bytes; 0 if there is nothing to share: more than one tile, or a single span.
int64_t graft_attention_partial_bytes(const graft_attention *a, const graft_attention_run *run);

// Lets threads share the spans of a run of this attention in so much memory, 64-byte aligned.
void graft_attention_share(const graft_attention *a, graft_attention_run *run, void *memory);

// ------------------------------------------------------------------------------------------------- rotary, norms, epilogues

typedef enum { GRAFT_ROPE_INTERLEAVED = 0, GRAFT_ROPE_HALVES = 1 } graft_rope_style;

// Per row: per-head RMS norms of q and k if given, rotary embedding of q and k, then k and v go into the cache.
// Row r belongs to block `slot[r] / 32`, place `slot[r] % 32`. cos, sin: [rows][rotary_dim / 2].
typedef struct {
    graft_kv_layout layout;
    uint8_t *cache;
    int64_t block_stride;
    const int64_t *slots;
    float *q, *k, *v;
    int64_t q_stride, k_stride, v_stride;
    int32_t heads, rotary_dim, style;
    const float *q_norm, *k_norm;  // [head_dim] or NULL
    float eps;
    const float *cos, *sin;
} graft_rope_write;

typedef enum { GRAFT_SILU = 0, GRAFT_GELU_TANH = 1 } graft_gate;

// y = act(gate) · up per row; the result goes to `quantised` (if not NULL) and to `y` (if not NULL; may alias gate).
typedef struct {
    const float *gate, *up;
    float *y;
    uint8_t *quantised;
    int64_t stride, y_stride, quantised_stride, width;
    int32_t activation;
    graft_lora lora;  // with quantised rows: h of each row as well, unless it is deferred
} graft_gated;

// y = x / sqrt(mean(x²) + eps) · weight per row; the result goes to `quantised` and/or `y` as above. With `residual`, which takes a `y` and no `quantised`, the
// normalised row is added to it as well (gemma's post-norms): residual += norm(x).
typedef struct {
    const float *x;
    const float *weight;  // [width]; NULL: no norm, x is only quantised
    float *y;
    float *residual;
    uint8_t *quantised;
    int64_t x_stride, y_stride, residual_stride, quantised_stride, width;
    float eps;
    graft_lora lora;  // with quantised rows: h of each row as well, unless it is deferred
} graft_norm;

// ------------------------------------------------------------------------------------------------- embedding, rotary tables

// A pool job does items begin … end of the work that `context` describes.
typedef void (*graft_job)(void *context, size_t begin, size_t end, int thread);

// x [i][width] = table[tokens[i]] · scale
typedef struct {
    graft_panels table;
    const int32_t *tokens;
    float *x;
    int64_t width;
    float scale;
} graft_embed;

void graft_embed_rows(void *context, size_t begin, size_t end, int thread);

// cos, sin [i][pairs] of positions[i] · inverse_frequencies[j], all in float32
typedef struct {
    const int32_t *positions;
    const float *inverse_frequencies;
    float *cos, *sin;
    int64_t pairs;
} graft_rope_table;

void graft_rope_table_rows(void *context, size_t begin, size_t end, int thread);

// ------------------------------------------------------------------------------------------------------------- variants

// A job that multiplies and adds 8-bit numbers that lie in registers and does nothing else, to measure what an instruction set could do.
enum { GRAFT_CEILING_PRODUCTS = 12 * 64 * 4096 };
typedef struct {
    uint8_t operands[128];
    int32_t sums[256];  // by thread
} graft_product_ceiling;

// One instruction set's kernels.
typedef struct {
    const char *name;         // avx512, avx2vnni, avx2, generic
    graft_job matmul;         // graft_matmul, items are units
    graft_job gated_matmul;   // graft_gated_matmul, items are blocks of 32 rows of the matrices
    graft_job attention;      // graft_attention, items are tiles × kv heads × spans (tile major), as graft_attention_items counts them
    graft_job rope_write;     // graft_rope_write, items are rows
    graft_job gated;          // graft_gated, items are rows
    graft_job norm;           // graft_norm, items are rows
    graft_job products;       // graft_product_ceiling, items are GRAFT_CEILING_PRODUCTS multiply-adds of 8-bit numbers
    void (*quantize_row)(const float *x, int64_t cols, uint8_t *row);
    // v [cols][16] = the float32 values of columns begin … end of one panel: bit for bit the GGUF dequantisation.
    void (*expand_panel)(const graft_panels *panels, int64_t panel, int64_t begin, int64_t end, float *v);
    // the integer dot products of one panel with one quantised row, per block of 32 (or 16): for tests of the integer arithmetic
    void (*panel_dots)(const graft_panels *panels, int64_t panel, const uint8_t *row, int32_t *dots);
} graft_kernels;

// The best variant this machine can run, or the one named by `forced` (NULL or "" means the best). NULL if `forced` is unknown or
// cannot run here.
const graft_kernels *graft_kernels_select(const char *forced);
// The i-th variant this machine can run, best first; NULL past the end.
const graft_kernels *graft_kernels_available(int i);

// One row of the matrix as float32: an embedding look-up. dst [cols].
void graft_panels_row(const graft_panels *panels, int64_t row, float *dst);

// ------------------------------------------------------------------------------------------------------------------ pool

typedef struct graft_pool graft_pool;

// A pool of `threads` threads, the caller of graft_pool_run being the first of them. NULL if a thread cannot be made.
graft_pool *graft_pool_create(int threads);
void graft_pool_destroy(graft_pool *pool);
int graft_pool_threads(const graft_pool *pool);
// Processors that this process may use: an affinity mask may hide some.
int graft_processor_count(void);
// Runs job over items 0 … count in chunks that are multiples of `grain`, which is 1 at least (but for the last one) and grow smaller towards the end, claimed by whichever thread is
// free; returns when all are done.
// One caller at a time.
void graft_pool_run(graft_pool *pool, graft_job job, void *context, size_t count, size_t grain);

// A job that reads memory and does nothing else, to measure how fast it comes. Items: stretches of GRAFT_READING_BYTES from `base` on, which is aligned to 64.
enum { GRAFT_READING_BYTES = 1 << 18 };
typedef struct {
    const uint8_t *base;
    uint64_t sums[256];  // by thread
} graft_memory_reading;
void graft_read_memory(void *context, size_t begin, size_t end, int thread);

#endif
