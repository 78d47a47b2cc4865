// The readable dequantisers: one function per block type, each a transcription of the equation beside its struct in graft_dequantize.h.
#include "graft_dequantize.h"

#include <string.h>

#pragma STDC FP_CONTRACT OFF

static float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float graft_half_to_float(graft_half half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t mantissa = half & 0x3ff;
    if (exponent == 0x1f) return float_from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent != 0) return float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    // Zero and subnormals: an integer below 1024 times 2^-24, exact in float. The sign is set apart so that -0 stays -0.
    const float magnitude = (float)mantissa * 0x1p-24f;
    uint32_t bits;
    memcpy(&bits, &magnitude, sizeof bits);
    return float_from_bits(sign | bits);
}

static void dequantize_f16(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        graft_half half;
        memcpy(&half, src + 2 * i, sizeof half);
        dst[i] = graft_half_to_float(half);
    }
}

// bfloat16 is the upper half of a float.
static void dequantize_bf16(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t upper;
        memcpy(&upper, src + 2 * i, sizeof upper);
        dst[i] = float_from_bits((uint32_t)upper << 16);
    }
}

static void dequantize_q4_0(const block_q4_0 *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK4_0) {
        const float d = graft_half_to_float(blocks[b].d);
        for (int j = 0; j < QK4_0 / 2; j++) {
            dst[j] = d * (float)((blocks[b].qs[j] & 0xf) - 8);
            dst[j + 16] = d * (float)((blocks[b].qs[j] >> 4) - 8);
        }
    }
}

static void dequantize_q4_1(const block_q4_1 *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK4_1) {
        const float d = graft_half_to_float(blocks[b].d);
        const float m = graft_half_to_float(blocks[b].m);
        for (int j = 0; j < QK4_1 / 2; j++) {
            dst[j] = d * (float)(blocks[b].qs[j] & 0xf) + m;
            dst[j + 16] = d * (float)(blocks[b].qs[j] >> 4) + m;
        }
    }
}

static uint32_t high_bits(const uint8_t qh[4]) {
    return (uint32_t)qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
}

static void dequantize_q5_0(const block_q5_0 *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK5_0) {
        const float d = graft_half_to_float(blocks[b].d);
        const uint32_t high = high_bits(blocks[b].qh);
        for (int j = 0; j < QK5_0 / 2; j++) {
            const int low_q = (blocks[b].qs[j] & 0xf) | (int)(high >> j & 1) << 4;
            const int high_q = (blocks[b].qs[j] >> 4) | (int)(high >> (j + 16) & 1) << 4;
            dst[j] = d * (float)(low_q - 16);
            dst[j + 16] = d * (float)(high_q - 16);
        }
    }
}

static void dequantize_q5_1(const block_q5_1 *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK5_1) {
        const float d = graft_half_to_float(blocks[b].d);
        const float m = graft_half_to_float(blocks[b].m);
        const uint32_t high = high_bits(blocks[b].qh);
        for (int j = 0; j < QK5_1 / 2; j++) {
            const int low_q = (blocks[b].qs[j] & 0xf) | (int)(high >> j & 1) << 4;
            const int high_q = (blocks[b].qs[j] >> 4) | (int)(high >> (j + 16) & 1) << 4;
            dst[j] = d * (float)low_q + m;
            dst[j + 16] = d * (float)high_q + m;
        }
    }
}

static void dequantize_q8_0(const block_q8_0 *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK8_0) {
        const float d = graft_half_to_float(blocks[b].d);
        for (int j = 0; j < QK8_0; j++) dst[j] = (float)blocks[b].qs[j] * d;
    }
}

static void dequantize_q2_K(const block_q2_K *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK_K) {
        const float d = graft_half_to_float(blocks[b].d);
        const float dmin = graft_half_to_float(blocks[b].dmin);
        for (int group = 0; group < 16; group++) {
            const float scale = d * (float)(blocks[b].scales[group] & 0xf);
            const float minimum = dmin * (float)(blocks[b].scales[group] >> 4);
            const uint8_t *qs = blocks[b].qs + 32 * (group / 8) + 16 * (group % 2);
            const int shift = 2 * (group / 2 % 4);
            for (int j = 0; j < 16; j++) dst[16 * group + j] = scale * (float)(qs[j] >> shift & 3) - minimum;
        }
    }
}

static void dequantize_q3_K(const block_q3_K *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK_K) {
        const float d = graft_half_to_float(blocks[b].d);
        const uint8_t *scales = blocks[b].scales;
        for (int group = 0; group < 16; group++) {
            const int low = scales[group % 8] >> 4 * (group / 8) & 0xf;
            const int high = scales[8 + group % 4] >> 2 * (group / 4) & 3;
            const float scale = d * (float)((low | high << 4) - 32);
            const uint8_t *qs = blocks[b].qs + 32 * (group / 8) + 16 * (group % 2);
            const uint8_t *hmask = blocks[b].hmask + 16 * (group % 2);
            const int shift = 2 * (group / 2 % 4);
            for (int j = 0; j < 16; j++) {
                const int q = (qs[j] >> shift & 3) - (hmask[j] >> group / 2 & 1 ? 0 : 4);
                dst[16 * group + j] = scale * (float)q;
            }
        }
    }
}

// The six-bit scale and minimum of a group of Q4_K and Q5_K.
static void scale_and_minimum(const uint8_t *scales, int group, int *scale, int *minimum) {
    if (group < 4) {
        *scale = scales[group] & 0x3f;
        *minimum = scales[group + 4] & 0x3f;
    } else {
        *scale = (scales[group + 4] & 0xf) | scales[group - 4] >> 6 << 4;
        *minimum = scales[group + 4] >> 4 | scales[group] >> 6 << 4;
    }
}

static void dequantize_q4_K(const block_q4_K *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK_K) {
        const float d = graft_half_to_float(blocks[b].d);
        const float dmin = graft_half_to_float(blocks[b].dmin);
        for (int group = 0; group < 8; group++) {
            int s, t;
            scale_and_minimum(blocks[b].scales, group, &s, &t);
            const float scale = d * (float)s;
            const float minimum = dmin * (float)t;
            const uint8_t *qs = blocks[b].qs + 32 * (group / 2);
            const int shift = 4 * (group % 2);
            for (int j = 0; j < 32; j++) dst[32 * group + j] = scale * (float)(qs[j] >> shift & 0xf) - minimum;
        }
    }
}

static void dequantize_q5_K(const block_q5_K *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK_K) {
        const float d = graft_half_to_float(blocks[b].d);
        const float dmin = graft_half_to_float(blocks[b].dmin);
        for (int group = 0; group < 8; group++) {
            int s, t;
            scale_and_minimum(blocks[b].scales, group, &s, &t);
            const float scale = d * (float)s;
            const float minimum = dmin * (float)t;
            const uint8_t *qs = blocks[b].qs + 32 * (group / 2);
            const int shift = 4 * (group % 2);
            for (int j = 0; j < 32; j++) {
                const int q = (qs[j] >> shift & 0xf) | (blocks[b].qh[j] >> group & 1) << 4;
                dst[32 * group + j] = scale * (float)q - minimum;
            }
        }
    }
}

static void dequantize_q6_K(const block_q6_K *blocks, float *dst, size_t count) {
    for (size_t b = 0; b < count; b++, dst += QK_K) {
        const float d = graft_half_to_float(blocks[b].d);
        for (int group = 0; group < 16; group++) {
            const float scale = d * (float)blocks[b].scales[group];
            const int half = group / 8, quarter = group / 2 % 4, start = 16 * (group % 2);
            const uint8_t *ql = blocks[b].ql + 64 * half + 32 * (quarter % 2) + start;
            const uint8_t *qh = blocks[b].qh + 32 * half + start;
            for (int j = 0; j < 16; j++) {
                const int q = (ql[j] >> 4 * (quarter / 2) & 0xf) | (qh[j] >> 2 * quarter & 3) << 4;
                dst[16 * group + j] = scale * (float)(q - 32);
            }
        }
    }
}

void graft_dequantize_row(int ggml_type, const void *src, float *dst, size_t n) {
    switch (ggml_type) {
    case GRAFT_TYPE_F32: memcpy(dst, src, n * sizeof *dst); break;
    case GRAFT_TYPE_F16: dequantize_f16(src, dst, n); break;
    case GRAFT_TYPE_BF16: dequantize_bf16(src, dst, n); break;
    case GRAFT_TYPE_Q4_0: dequantize_q4_0(src, dst, n / QK4_0); break;
    case GRAFT_TYPE_Q4_1: dequantize_q4_1(src, dst, n / QK4_1); break;
    case GRAFT_TYPE_Q5_0: dequantize_q5_0(src, dst, n / QK5_0); break;
    case GRAFT_TYPE_Q5_1: dequantize_q5_1(src, dst, n / QK5_1); break;
    case GRAFT_TYPE_Q8_0: dequantize_q8_0(src, dst, n / QK8_0); break;
    case GRAFT_TYPE_Q2_K: dequantize_q2_K(src, dst, n / QK_K); break;
    case GRAFT_TYPE_Q3_K: dequantize_q3_K(src, dst, n / QK_K); break;
    case GRAFT_TYPE_Q4_K: dequantize_q4_K(src, dst, n / QK_K); break;
    case GRAFT_TYPE_Q5_K: dequantize_q5_K(src, dst, n / QK_K); break;
    case GRAFT_TYPE_Q6_K: dequantize_q6_K(src, dst, n / QK_K); break;
    default: break;
    }
}
