// The bodies of sampling.c, included once per level with LEVEL(name) set; deliberately without an include guard.

static inline __attribute__((always_inline)) f32x16 LEVEL(load)(const float *p) {
    f32x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

// The last count < 16 elements, the other lanes -inf: they win no maximum, weigh nothing and pass no finite cut.
static inline __attribute__((always_inline)) f32x16 LEVEL(load_tail)(const float *p, size_t count) {
    float lanes[16];
    for (size_t i = 0; i < 16; i++) lanes[i] = i < count ? p[i] : -INFINITY;
    return LEVEL(load)(lanes);
}

// exp((x - top) * scale). With y = k ln 2 + r and |r| <= ln(2)/2, exp(y) = 2^k exp(r); exp(r) is its Taylor polynomial of
// degree 6, whose remainder is below r^7/7! * sqrt(2) = 1.7e-7. ln 2 is split so that k * ln2_high is exact.
static inline __attribute__((always_inline)) f32x16 LEVEL(weight)(f32x16 x, float top, float scale) {
    const float lowest = -87.33654f;          // exp(lowest) is the smallest normal float32
    const float rounder = 12582912.0f;        // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const float ln2_high = 0.693359375f;      // 355 / 512
    const float ln2_low = -2.12194440e-4f;    // ln 2 - ln2_high
    f32x16 y = (x - top) * scale;
    i32x16 alive = y >= lowest;
    y = alive ? y : (f32x16)lowest;
    f32x16 shifted = y * 1.44269504f + rounder;
    i32x16 exponent = (i32x16)shifted - 0x4B400000;
    f32x16 k = shifted - rounder;
    f32x16 r = y - k * ln2_high;
    r = r - k * ln2_low;
    f32x16 p = r * (1.0f / 720.0f) + (1.0f / 120.0f);
    p = p * r + (1.0f / 24.0f);
    p = p * r + (1.0f / 6.0f);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    f32x16 power = (f32x16)((exponent + 127) << 23);
    return (f32x16)((i32x16)(p * power) & alive);
}

static int LEVEL(maxima)(const float *x, size_t n, float *maxima) {
    i32x16 unordered = 0;
    for (size_t start = 0; start < n; start += GRAFT_LOGITS_GROUP) {
        size_t end = start + GRAFT_LOGITS_GROUP < n ? start + GRAFT_LOGITS_GROUP : n;
        f32x16 best0 = -INFINITY, best1 = -INFINITY;
        size_t i = start;
        for (; i + 32 <= end; i += 32) {
            f32x16 a = LEVEL(load)(x + i), b = LEVEL(load)(x + i + 16);
            best0 = a > best0 ? a : best0;
            best1 = b > best1 ? b : best1;
            unordered |= (a != a) | (b != b);
        }
        for (; i < end; i += 16) {
            f32x16 a = i + 16 <= end ? LEVEL(load)(x + i) : LEVEL(load_tail)(x + i, end - i);
            best0 = a > best0 ? a : best0;
            unordered |= a != a;
        }
        best0 = best1 > best0 ? best1 : best0;
        memcpy(maxima, &best0, sizeof best0);
        maxima += GRAFT_LOGITS_LANES;
    }
    return __builtin_reduce_or(unordered) != 0;
}

static size_t LEVEL(index_of)(const float *x, size_t n, float value) {
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        i32x16 hit = (LEVEL(load)(x + i) == value) | (LEVEL(load)(x + i + 16) == value) |
                     (LEVEL(load)(x + i + 32) == value) | (LEVEL(load)(x + i + 48) == value);
        if (__builtin_reduce_or(hit)) break;
    }
    for (; i < n; i++)
        if (x[i] == value) return i;
    return n;
}

static void LEVEL(exponentials)(const float *x, size_t n, float top, float scale, float *y) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        f32x16 w = LEVEL(weight)(LEVEL(load)(x + i), top, scale);
        memcpy(y + i, &w, sizeof w);
    }
    if (i < n) {
        f32x16 w = LEVEL(weight)(LEVEL(load_tail)(x + i, n - i), top, scale);
        memcpy(y + i, &w, (n - i) * sizeof(float));
    }
}

static void LEVEL(exp_sums)(const float *x, size_t n, float top, float scale, double *sums) {
    for (size_t start = 0; start < n; start += GRAFT_LOGITS_GROUP) {
        size_t end = start + GRAFT_LOGITS_GROUP < n ? start + GRAFT_LOGITS_GROUP : n;
        f32x16 sum = 0;
        size_t i = start;
        for (; i + 16 <= end; i += 16) sum += LEVEL(weight)(LEVEL(load)(x + i), top, scale);
        if (i < end) sum += LEVEL(weight)(LEVEL(load_tail)(x + i, end - i), top, scale);
        double total = 0;
        for (int lane = 0; lane < GRAFT_LOGITS_LANES; lane++) total += (double)sum[lane];
        *sums++ = total;
    }
}

static size_t LEVEL(collect)(const float *x, size_t n, float cut, int32_t *ids, float *values) {
    size_t count = 0, i = 0;
    for (; i + 64 <= n; i += 64) {
        i32x16 hit = (LEVEL(load)(x + i) >= cut) | (LEVEL(load)(x + i + 16) >= cut) |
                     (LEVEL(load)(x + i + 32) >= cut) | (LEVEL(load)(x + i + 48) >= cut);
        if (!__builtin_reduce_or(hit)) continue;
        for (size_t j = i; j < i + 64; j++) {
            ids[count] = (int32_t)j;
            values[count] = x[j];
            count += x[j] >= cut;
        }
    }
    for (; i < n; i++) {
        ids[count] = (int32_t)i;
        values[count] = x[i];
        count += x[i] >= cut;
    }
    return count;
}
