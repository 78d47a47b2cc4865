// Dequantisation of GGUF tensor data: the block layouts, and one row function that is the reference every faster kernel is held to.
//
// Notation: a block covers QK consecutive elements of a row; x[i] is element i of the block, q an unsigned integer of the block, d and m
// half-precision floats. All structs are packed by construction and little endian. "Bits per weight" counts scales and padding.
//
// This file promises to be plain: no processor-specific instructions, no contraction of a product and a sum into one rounding. Its results
// equal, bit for bit, those of the Python package `gguf` (gguf.quants.dequantize), whose order of operations it follows.
#ifndef GRAFT_DEQUANTIZE_H
#define GRAFT_DEQUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define GRAFT_STATIC_ASSERT static_assert
#else
#define GRAFT_STATIC_ASSERT _Static_assert
#endif

// IEEE 754 binary16, as bits.
typedef uint16_t graft_half;

// The numbers that GGUF files use for tensor types.
enum {
    GRAFT_TYPE_F32 = 0,
    GRAFT_TYPE_F16 = 1,
    GRAFT_TYPE_Q4_0 = 2,
    GRAFT_TYPE_Q4_1 = 3,
    GRAFT_TYPE_Q5_0 = 6,
    GRAFT_TYPE_Q5_1 = 7,
    GRAFT_TYPE_Q8_0 = 8,
    GRAFT_TYPE_Q2_K = 10,
    GRAFT_TYPE_Q3_K = 11,
    GRAFT_TYPE_Q4_K = 12,
    GRAFT_TYPE_Q5_K = 13,
    GRAFT_TYPE_Q6_K = 14,
    GRAFT_TYPE_BF16 = 30,
};

// ---- Blocks of 32: one scale for all ----

enum { QK4_0 = 32, QK4_1 = 32, QK5_0 = 32, QK5_1 = 32, QK8_0 = 32 };

// x[i] = d * (q[i] - 8), q in 0…15. Byte j holds q[j] in its low half and q[j + 16] in its high half. 4.5 bits per weight.
typedef struct {
    graft_half d;
    uint8_t qs[QK4_0 / 2];
} block_q4_0;
GRAFT_STATIC_ASSERT(sizeof(block_q4_0) == 18, "Q4_0: 2 + 16 bytes");

// x[i] = d * q[i] + m, q in 0…15, halves as in Q4_0. 5 bits per weight.
typedef struct {
    graft_half d;
    graft_half m;
    uint8_t qs[QK4_1 / 2];
} block_q4_1;
GRAFT_STATIC_ASSERT(sizeof(block_q4_1) == 20, "Q4_1: 2 + 2 + 16 bytes");

// x[i] = d * (q[i] - 16), q in 0…31: the low four bits as in Q4_0, the fifth is bit i of qh read as a 32-bit integer. 5.5 bits per weight.
typedef struct {
    graft_half d;
    uint8_t qh[4];
    uint8_t qs[QK5_0 / 2];
} block_q5_0;
GRAFT_STATIC_ASSERT(sizeof(block_q5_0) == 22, "Q5_0: 2 + 4 + 16 bytes");

// x[i] = d * q[i] + m, q in 0…31 as in Q5_0. 6 bits per weight.
typedef struct {
    graft_half d;
    graft_half m;
    uint8_t qh[4];
    uint8_t qs[QK5_1 / 2];
} block_q5_1;
GRAFT_STATIC_ASSERT(sizeof(block_q5_1) == 24, "Q5_1: 2 + 2 + 4 + 16 bytes");

// x[i] = qs[i] * d, qs signed. 8.5 bits per weight.
typedef struct {
    graft_half d;
    int8_t qs[QK8_0];
} block_q8_0;
GRAFT_STATIC_ASSERT(sizeof(block_q8_0) == 34, "Q8_0: 2 + 32 bytes");

// ---- Superblocks of 256: groups with small integer scales, which d and dmin turn into floats ----

enum { QK_K = 256, K_SCALE_SIZE = 12 };

// Sixteen groups of 16. x[i] = (d * s) * q[i] - (dmin * t), q in 0…3, s and t the low and high half of the group's byte in `scales`.
// Each half of the block takes 32 bytes of qs; byte b of a half holds elements b, b + 32, b + 64, b + 96 of it, two bits each, lowest first.
// 2.625 bits per weight.
typedef struct {
    uint8_t scales[QK_K / 16];
    uint8_t qs[QK_K / 4];
    graft_half d;
    graft_half dmin;
} block_q2_K;
GRAFT_STATIC_ASSERT(sizeof(block_q2_K) == 84, "Q2_K: 16 + 64 + 2 + 2 bytes");

// Sixteen groups of 16. x[i] = (d * (s - 32)) * (q[i] - 4 * !h[i]), q in 0…3 laid out as in Q2_K, s in 0…63.
// Bit k of hmask[b] is h of element 32 * k + b: a set bit means that nothing is subtracted.
// Scale s of group g: its low four bits are a half (g < 8 low, else high) of scales[g % 8], its high two bits are bits 2 * (g / 4) and up of
// scales[8 + g % 4]. 3.4375 bits per weight.
typedef struct {
    uint8_t hmask[QK_K / 8];
    uint8_t qs[QK_K / 4];
    uint8_t scales[K_SCALE_SIZE];
    graft_half d;
} block_q3_K;
GRAFT_STATIC_ASSERT(sizeof(block_q3_K) == 110, "Q3_K: 32 + 64 + 12 + 2 bytes");

// Eight groups of 32. x[i] = (d * s) * q[i] - (dmin * t), q in 0…15, s and t in 0…63.
// Each quarter of the block takes 32 bytes of qs: the low halves are its first group, the high halves its second.
// s and t of group g < 4: the low six bits of scales[g] and scales[g + 4]. Of group g ≥ 4: their low four bits are the low and the high half of
// scales[g + 4], their high two bits are the top two of scales[g - 4] and scales[g]. 4.5 bits per weight.
typedef struct {
    graft_half d;
    graft_half dmin;
    uint8_t scales[K_SCALE_SIZE];
    uint8_t qs[QK_K / 2];
} block_q4_K;
GRAFT_STATIC_ASSERT(sizeof(block_q4_K) == 144, "Q4_K: 2 + 2 + 12 + 128 bytes");

// As Q4_K with a fifth bit: q in 0…31, bit g of qh[b] is the top bit of element b of group g. 5.5 bits per weight.
typedef struct {
    graft_half d;
    graft_half dmin;
    uint8_t scales[K_SCALE_SIZE];
    uint8_t qh[QK_K / 8];
    uint8_t qs[QK_K / 2];
} block_q5_K;
GRAFT_STATIC_ASSERT(sizeof(block_q5_K) == 176, "Q5_K: 2 + 2 + 12 + 32 + 128 bytes");

// Sixteen groups of 16. x[i] = (d * s) * (q[i] - 32), q in 0…63, s signed.
// Each half of the block takes 64 bytes of ql and 32 of qh. In a half, element 32 * k + b has its low four bits in ql[32 * (k % 2) + b] (low half
// for k < 2, else high) and its high two bits at bit 2 * k of qh[b]. 6.5625 bits per weight.
typedef struct {
    uint8_t ql[QK_K / 2];
    uint8_t qh[QK_K / 4];
    int8_t scales[QK_K / 16];
    graft_half d;
} block_q6_K;
GRAFT_STATIC_ASSERT(sizeof(block_q6_K) == 210, "Q6_K: 128 + 64 + 16 + 2 bytes");

// ---- Functions ----

// The float with the same value; every half is exact in float. NaNs keep their payload.
float graft_half_to_float(graft_half half);

// dst[i] = the value of element i of a row, for i < n.
//   ggml_type  one of the GRAFT_TYPE_ numbers above; for any other nothing is written
//   src        the row's blocks, aligned to 2 bytes
//   dst        n floats; does not overlap src
//   n          a multiple of the type's block size; elements of an incomplete last block are not written
// Each value is one product, or one product and one sum of floats, in the order its block's equation shows. Thread-safe; allocates nothing.
void graft_dequantize_row(int ggml_type, const void *src, float *dst, size_t n);

#ifdef __cplusplus
}
#endif

#endif
