// The kernels of tuning: what the forward pass of training, its gradients and the optimiser compute, besides what serving has.
//
// Rows are tokens of one or several examples, side by side. Frozen weights are read from the panels that serving uses, a tile at a time: a tile is
// expanded into memory of the thread that needs it, multiplied with all rows, and forgotten. Two precisions:
//   float32   products by our own kernels where they are faster (AVX-512), elsewhere by an sgemm that the caller brings (OpenBLAS)
//   bfloat16  products of bfloat16 with float32 sums by our own kernels, on a matrix unit where there is one; norms, softmax, losses,
//             adapters and their gradients stay float32, but that the matrix unit takes 16 bits of one factor of an adapter's gradient
// Every item of a job writes memory of its own, and its operations are fixed, whoever runs it: equal inputs give equal bits for any number of threads.
// The variants of one instruction set differ from another's by rounding only.
#ifndef GRAFT_TRAINING_H
#define GRAFT_TRAINING_H

#include "graft_kernels.h"

// C [m][ldc] = alpha · op(A) op(B) + beta · C, row-major; op(A) is m × k, op(B) is k × n; transposed ones are stored the other way round.
typedef void (*graft_sgemm)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                            int64_t ldb, float beta, float *c, int64_t ldc);

typedef enum { GRAFT_ROWS_F32 = 0, GRAFT_ROWS_BF16 = 1 } graft_row_type;

// Rows of one of the two types, aligned to 4 bytes. data NULL: none. Widths are multiples of 16 unless a job says otherwise.
typedef struct {
    uint8_t *data;
    int64_t stride;  // bytes from row to row
    int32_t type;
} graft_rows;

// -------------------------------------------------------------------------------------------------------------- products

typedef enum {
    GRAFT_OPERAND_PANELS = 0,             // a Wᵀ, W [columns, k] in panels: the forward product
    GRAFT_OPERAND_PANELS_TRANSPOSED = 1,  // a W, W [k, columns] in panels: the gradient of its input
    GRAFT_OPERAND_ROWS = 2,               // a bᵀ, b [columns][ldb] float32
    GRAFT_OPERAND_COLUMNS = 3,            // a b, b [k][ldb] float32
} graft_operand;

typedef struct {
    graft_rows a;  // [rows][k]; bfloat16 rows whose k is odd must be followed by one finite value
    int64_t k;
    int32_t operand;
    float scale;
    graft_panels w;
    const float *b;
    int64_t ldb;
} graft_term;

// Columns and places of a block that a matrix unit's tiles are cut from: 288 KB of bfloat16, for the second-level cache.
enum { GRAFT_TERMS = 8, GRAFT_LIBRARY_COLUMNS = 128, GRAFT_TILE_COLUMNS = 256, GRAFT_TILE_PLACES = 576 };

// c [rows][columns] = Σ terms (+ bias) (+ c). All a's are of one type, which decides the precision. Columns of c up to the next
// multiple of 16 are written to.
typedef struct {
    graft_term terms[GRAFT_TERMS];
    int32_t term_count;
    int32_t accumulate;
    const float *bias;  // [columns] or NULL
    float *c;
    int64_t ldc;
    int64_t rows, columns;
    int64_t row_block;     // rows of one item
    int64_t column_block;  // columns of one item: a multiple of 64; with sgemm at most GRAFT_LIBRARY_COLUMNS
    const graft_kernels *kernels;  // expands panels
    graft_sgemm sgemm;             // float32 only; NULL: our own kernels
    uint8_t *scratch;              // graft_product_scratch() bytes for each thread
} graft_product;

int64_t graft_product_scratch(void);
// Items: blocks of columns × blocks of rows.
int64_t graft_product_items(const graft_product *p);
// Multiply-adds of an item, about.
double graft_product_item_work(const graft_product *p);

// g [rank][width] += scale · Σ over rows h [row][j] x [row][w]: the gradient of a low-rank matrix. Items: blocks of GRAFT_OUTER_COLUMNS columns.
enum { GRAFT_OUTER_COLUMNS = 96 };
typedef struct {
    const float *h;
    int64_t h_stride;  // floats
    graft_rows x;
    float *g;
    int64_t ldg;
    int64_t rows, rank, width;
    float scale;
} graft_outer;

// ------------------------------------------------------------------------------------------------------- norms and gates

// y = x / √(mean x² + ε) · weight; `save` receives x itself. With `residual`: residual += y instead (and y may be NULL). Items: rows.
typedef struct {
    graft_rows x, y, save;
    const float *weight;
    float *residual;
    int64_t residual_stride;  // floats
    int64_t width;
    float eps;
} graft_train_norm;

// g = weight ∘ dy, x̂ = x / √(mean x² + ε): dx (+)= (g - x̂ mean(g ∘ x̂)) / √(mean x² + ε). `copy` receives the new dx. Items: rows.
typedef struct {
    graft_rows x, copy;
    const float *weight;
    const float *dy;
    float *dx;
    int64_t dy_stride, dx_stride;  // floats
    int64_t width;
    float eps;
    int32_t accumulate;
} graft_train_norm_backward;

// act = activation(gate) ∘ up, all of them kept. Items: rows.
typedef struct {
    const float *gate, *up;
    int64_t stride;  // floats
    graft_rows save_gate, save_up, act;
    int64_t width;
    int32_t activation;  // graft_gate
} graft_train_gate;

// From what was kept and dact: act again, dgate, dup. Items: rows.
typedef struct {
    graft_rows gate, up;
    const float *dact;
    int64_t dact_stride;  // floats
    graft_rows act, dgate, dup;
    int64_t width;
    int32_t activation;
} graft_train_gate_backward;

// ------------------------------------------------------------------------------------------------------------- attention

// y = rotated (normed if weight is given) heads of x; `save` receives x. cos, sin [rows][rotary_dim / 2]. Items: rows.
typedef struct {
    graft_rows x, save;
    float *y;
    int64_t y_stride;  // floats
    int32_t heads, head_dim, rotary_dim, style;  // graft_rope_style
    const float *weight;                         // [head_dim] or NULL
    float eps;
    const float *cos, *sin;
} graft_train_rope;

// From x and dy (which is overwritten): dx, of x's gradient. Items: rows.
typedef struct {
    graft_rows x, dx;
    float *dy;
    int64_t dy_stride;
    int32_t heads, head_dim, rotary_dim, style;
    const float *weight;
    float eps;
    const float *cos, *sin;
} graft_train_rope_backward;

// Rows first … first + count - 1 hold the positions position … of an example.
typedef struct {
    int64_t first, position, count;
} graft_train_piece;

// Rows that see each other and what came before them: their example from its position 0 on, piece by piece. The last piece is their own; the ones before it
// are shared with other examples, whose rows they were first. Pieces lie one after another in the job's array.
typedef struct {
    int64_t piece, piece_count;
} graft_train_segment;

// out = softmax(scale · q kᵀ) v for each segment's own rows, causal, at most `window` keys if it is not 0. Items: segments × heads (segment major); of the
// backward job: segments × key heads, which write dq of their own rows, and add to dk and dv of all rows that those see. A segment's own dk and dv begin at 0
// with its first queries, therefore a segment comes after those whose rows it shares. Long segments are done in several jobs, each for the own queries
// from … to, a multiple of 64 but for the last; they follow one another from the first on, because dk and dv are sums over the queries.
typedef struct {
    const graft_train_piece *pieces;
    const graft_train_segment *segments;
    int64_t segment_count;
    int64_t from, to;  // of a segment's own rows; what is beyond its end is left out
    const float *q, *k, *v;
    int64_t q_stride, kv_stride;  // floats
    graft_rows out;
    const float *dout;  // [rows][q_stride]
    float *dq, *dk, *dv;
    int32_t heads, kv_heads, head_dim;
    float scale;
    int64_t window;
    graft_sgemm sgemm;
    uint8_t *scratch;  // graft_train_attention_scratch() bytes for each thread
    int64_t scratch_bytes;
} graft_train_attention;

int64_t graft_train_attention_scratch(int64_t longest, int32_t head_dim);

// ------------------------------------------------------------------------------------------------------------------ loss

// Per row: log p(target); whether target is the most likely one; and, if `gradient` is given, weight · (softmax - onehot), whose memory may be the row's
// own. Columns past `width` of the gradient, up to the next multiple of 16, become 0. Items: rows.
typedef struct {
    float *logits;
    int64_t stride;  // floats
    int64_t width;
    const int32_t *targets;
    const float *weights;
    graft_rows gradient;
    float *log_probabilities;
    int32_t *hits;
} graft_train_loss;

// -------------------------------------------------------------------------------------------- rows, chance, the optimiser

// to = from. Items: rows.
typedef struct {
    graft_rows from, to;
    int64_t width;
} graft_train_copy;

// Numbers drawn for (row's key, salt, column): the same for a token of an example wherever it lies. Items: rows.
//   y = x where drawn to be kept, times 1 / (1 - share); or, with `add`, add += that.
typedef struct {
    graft_rows x, y;
    float *add;
    int64_t add_stride;  // floats
    const uint64_t *keys;
    uint64_t salt;
    int64_t width;
    float share;
} graft_train_dropout;

// x += amplitude[row] · u, u uniform in -1 … 1. Items: rows.
typedef struct {
    float *x;
    int64_t stride;
    const uint64_t *keys;
    const float *amplitudes;
    uint64_t salt;
    int64_t width;
} graft_train_noise;

// AdamW (arXiv 1711.05101) on parameters that lie side by side. Items: chunks of GRAFT_OPTIMISER_CHUNK.
enum { GRAFT_OPTIMISER_CHUNK = 16384 };
typedef struct {
    float *parameters, *first, *second;
    const float *gradients;
    int64_t count;
    float gradient_scale, learning_rate, beta1, beta2, epsilon, decay;  // decay: learning rate · weight decay
    float correction1, correction2;                                     // 1 - β₁ᵗ, √(1 - β₂ᵗ)
} graft_train_adamw;

// sums [chunk] = Σ x² of a chunk of GRAFT_OPTIMISER_CHUNK. Items: chunks.
typedef struct {
    const float *x;
    double *sums;
    int64_t count;
} graft_train_squares;

// -------------------------------------------------------------------------------------------------------------- variants

typedef struct {
    const char *name;
    int32_t multiplies_bfloat16;  // in hardware
    int32_t multiplies_float32;   // faster than a library would
    int32_t bfloat16_columns;     // of an item of a product of bfloat16, at most; a multiple of 64
    graft_job product, outer, norm, norm_backward, gate, gate_backward, rope, rope_backward, attention, attention_backward, loss, copy, dropout, noise, adamw, squares;
} graft_training_kernels;

// What multiplies bfloat16: float32 units after widening, AVX-512's vdpbf16ps, or Intel's matrix unit (AMX).
typedef enum { GRAFT_BFLOAT16_WIDENED = 0, GRAFT_BFLOAT16_VECTORS = 1, GRAFT_BFLOAT16_TILES = 2 } graft_bfloat16_unit;

// The training kernels that go with a variant, with the best of these units that is here and not above `most`. The first call that may have tiles asks the
// system for them, for the whole process.
const graft_training_kernels *graft_training_kernels_for(const graft_kernels *kernels, int32_t most);

#endif
