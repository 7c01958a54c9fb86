// Attention of up to eight queries of one head by one warp, eight keys at a time, all in registers: keys and values come
// from memory straight into the places that the matrix units want, 16 bytes a load, and scores become their operands again
// without moving between lanes. Queries and weights of keys are f32 (two tf32 each), so nothing is rounded to bf16.
#pragma once

#include "tf32.cuh"

constexpr uint32_t QUERIES = 8;     // of a tile
constexpr uint32_t KEYS = 8;        // of a tile
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float NOTHING = -3e38f;   // the largest score before there is any; finite, so that no difference is NaN
constexpr uint32_t WIDE_DIMS = 64;  // elements of a head that one set of accumulators holds; two steps of 32

// Eight keys as a lane holds them: elements 32s + 8t … of key g (g = lane / 4, t = lane % 4). Past the head's and the keys'
// ends there are zeros.
template <class Number, int WIDE>
struct KeyTile {
    Eight<Number> key[2 * WIDE];

    __device__ __forceinline__ void load(const typename Number::Stored *keys, uint64_t stride, uint32_t first,
                                         uint32_t count, uint32_t head_dim) {
        const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (uint32_t s = 0; s < 2 * WIDE; s++) {
            const uint32_t dim = 32 * s + 8 * t, index = first + g;
            key[s] = load_eight_if<Number>(dim < head_dim && index < count, keys + index * stride + dim);
        }
    }
};

// Sixty-four elements of their values: elements 64w + 8g … of values 2t and 2t + 1.
template <class Number>
struct ValueTile {
    Eight<Number> value[2];

    __device__ __forceinline__ void load(const typename Number::Stored *values, uint64_t stride, uint32_t first,
                                         uint32_t count, uint32_t wide, uint32_t head_dim) {
        const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t dim = WIDE_DIMS * wide + 8 * g, index = first + 2 * t + i;
            value[i] = load_eight_if<Number>(dim < head_dim && index < count, values + index * stride + dim);
        }
    }
};

// Cosines and sines for a lane's elements of one query: rows are half a head long and read by column mod half. All loads are
// under way before the first is used.
template <int WIDE>
struct RotaryTile {
    Bytes16 cosines[4 * WIDE], sines[4 * WIDE];

    __device__ __forceinline__ void load(const float *cosine_rows, const float *sine_rows, uint32_t row, uint32_t head_dim) {
        const uint32_t half = head_dim / 2;
#pragma unroll
        for (uint32_t i = 0; i < 4 * WIDE; i++) { // half is a multiple of four: four columns do not wrap
            const uint32_t column = 32 * (i / 2) + 8 * (threadIdx.x % 4) + 4 * (i % 2);
            const uint32_t at = row * half + (column < half ? column : column - half);
            cosines[i] = sines[i] = Bytes16{};
            if (column < head_dim) {
                cosines[i] = *reinterpret_cast<const Bytes16 *>(cosine_rows + at);
                sines[i] = *reinterpret_cast<const Bytes16 *>(sine_rows + at);
            }
        }
    }

    __device__ __forceinline__ float cosine(uint32_t element) const {
        return float_of_bits(cosines[element / 4].word[element % 4]);
    }
    __device__ __forceinline__ float sine(uint32_t element) const {
        return float_of_bits(sines[element / 4].word[element % 4]);
    }
};

// Queries of one group as a lane holds them: elements 32s + 8t … of query g, multiplied with what makes a score the
// exponent of 2.
template <int WIDE>
struct QueryTile {
    float element[2 * WIDE][8];

    // Turns the pairs (2i, 2i+1) by what `table` holds.
    __device__ __forceinline__ void turn(const RotaryTile<WIDE> &table) {
#pragma unroll
        for (uint32_t i = 0; i < 16 * WIDE; i += 2) {
            float(&pair)[8] = element[i / 8];
            const float even = pair[i % 8], odd = pair[i % 8 + 1];
            pair[i % 8] = even * table.cosine(i) - odd * table.sine(i);
            pair[i % 8 + 1] = odd * table.cosine(i + 1) + even * table.sine(i + 1);
        }
    }

    __device__ __forceinline__ void scale(float by) {
#pragma unroll
        for (uint32_t s = 0; s < 2 * WIDE; s++)
#pragma unroll
            for (uint32_t i = 0; i < 8; i++) element[s][i] *= by;
    }
};

// What a warp has seen so far: for query g the largest score and the sum of its lane's weights relative to it; and Σ weight
// · value, of queries 2t and 2t + 1 and elements 64w + 8g + 2j and + 1 in sum[w][j][0], [1] and [2], [3].
template <int WIDE>
struct Attended {
    float largest, weight;
    float sum[WIDE][4][4];

    __device__ __forceinline__ void clear() {
        largest = NOTHING;
        weight = 0.0f;
#pragma unroll
        for (int w = 0; w < WIDE; w++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[w][j][i] = 0.0f;
    }

    // Weights of a tile's keys 2t and 2t + 1 for query g; the first `count` keys count, and there is one at least. What was
    // summed before is brought to the largest score of now.
    template <class Number>
    __device__ __forceinline__ void weigh(const QueryTile<WIDE> &query, const KeyTile<Number, WIDE> &tile, uint32_t count,
                                          float &first, float &second) {
        using Parts = Tf32Eight<Number>;
        const uint32_t lane = threadIdx.x % WARP, t = lane % 4;
        // Rows 0 … 7 of A are the queries' upper parts, rows 8 … 15 their lower ones. Two sums, so that products wait less.
        float score[2][4] = {};
#pragma unroll
        for (uint32_t s = 0; s < 2 * WIDE; s++) {
            uint32_t key[Parts::PARTS][8];
            Parts::split(tile.key[s], key);
#pragma unroll
            for (uint32_t i = 0; i < 8; i += 2) {
                const Tf32Pair even = split_tf32(query.element[s][i]), odd = split_tf32(query.element[s][i + 1]);
                const uint32_t a[4] = {even.high, even.low, odd.high, odd.low};
#pragma unroll
                for (int part = 0; part < Parts::PARTS; part++) {
                    const uint32_t b[2] = {key[part][i], key[part][i + 1]};
                    multiply_add_tf32(score[i / 2 % 2], a, b);
                }
            }
        }
        first = score[0][0] + score[1][0] + (score[0][2] + score[1][2]); // key 2t, of query g
        second = score[0][1] + score[1][1] + (score[0][3] + score[1][3]);
        if (2 * t >= count) first = -INFINITY;
        if (2 * t + 1 >= count) second = -INFINITY;

        float most = fmaxf(first, second);
        most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, 1));
        most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, 2));
        most = fmaxf(most, largest);
        const float fade = exp2f(largest - most);
        first = exp2f(first - most);
        second = exp2f(second - most);
        largest = most;
        weight = weight * fade + first + second;
        const float fades[2] = {__shfl_sync(WHOLE_WARP, fade, 8 * t), __shfl_sync(WHOLE_WARP, fade, 8 * t + 4)};
#pragma unroll
        for (int w = 0; w < WIDE; w++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[w][j][i] *= fades[i % 2];
    }

    // Adds weight · value for sixty-four elements. Weights are B: keys 2t and 2t + 1 stand in its rows t and t + 4, so they
    // are where they are needed already.
    template <class Number>
    __device__ __forceinline__ void add(float (&to)[4][4], const ValueTile<Number> &tile, float first, float second) {
        using Parts = Tf32Eight<Number>;
        const Tf32Pair even = split_tf32(first), odd = split_tf32(second);
        const uint32_t high[2] = {even.high, odd.high}, low[2] = {even.low, odd.low};
        uint32_t values[2][Parts::PARTS][8];
        Parts::split(tile.value[0], values[0]);
        Parts::split(tile.value[1], values[1]);
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
#pragma unroll
            for (int part = 0; part < Parts::PARTS; part++) {
                const uint32_t a[4] = {values[0][part][2 * j], values[0][part][2 * j + 1], values[1][part][2 * j],
                                       values[1][part][2 * j + 1]};
                multiply_add_tf32(to[j], a, high);
                if (part == 0) multiply_add_tf32(to[j], a, low);
            }
    }
};

// For every part of a head's keys, a warp's or a block's: largest score, sum of weights, and Σ weight · value, of eight
// queries.
struct AttentionParts {
    float *largest, *weight; // part · 8 + query
    float *sum;              // (part · 8 + query) · head_dim + element
};

// Leaves what a warp has seen as part `part`.
template <int WIDE>
__device__ __forceinline__ void leave_part(const AttentionParts &parts, uint32_t part, const Attended<WIDE> &attended,
                                           uint32_t head_dim) {
    const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float weight = attended.weight + __shfl_xor_sync(WHOLE_WARP, attended.weight, 1);
    weight += __shfl_xor_sync(WHOLE_WARP, weight, 2);
    if (t == 0) {
        parts.largest[part * QUERIES + g] = attended.largest;
        parts.weight[part * QUERIES + g] = weight;
    }
#pragma unroll
    for (uint32_t w = 0; w < WIDE; w++)
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
#pragma unroll
            for (uint32_t j = 0; j < 4; j += 2) {
                const uint32_t dim = WIDE_DIMS * w + 8 * g + 2 * j;
                const auto &sum = attended.sum[w];
                const Bytes16 four = {bits_of_float(sum[j][i]), bits_of_float(sum[j][2 + i]), bits_of_float(sum[j + 1][i]),
                                      bits_of_float(sum[j + 1][2 + i])};
                float *to = parts.sum + uint64_t(part * QUERIES + 2 * t + i) * head_dim + dim;
                if (dim < head_dim) *reinterpret_cast<Bytes16 *>(to) = four;
            }
}

// Combines four elements of one query from `count` parts, each counting by its largest score beside that of all. BATCH parts
// are under way together.
template <uint32_t BATCH>
__device__ __forceinline__ void combine(const AttentionParts &parts, uint32_t count, uint32_t query, uint32_t element,
                                        uint32_t head_dim, float &most, float &weight, float (&sum)[4]) {
    most = NOTHING;
    weight = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] = 0.0f;
#pragma unroll 1
    for (uint32_t first = 0; first < count; first += BATCH) {
        const float *largest_at = parts.largest + first * QUERIES + query, *weight_at = parts.weight + first * QUERIES + query;
        const float *sum_at = parts.sum + (first * QUERIES + query) * head_dim + element;
        const uint32_t stride = QUERIES * head_dim;
        float largest[BATCH], weights[BATCH];
        Bytes16 fours[BATCH];
        float now = most;
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const bool present = first + i < count;
            largest[i] = present ? largest_at[i * QUERIES] : NOTHING;
            weights[i] = present ? weight_at[i * QUERIES] : 0.0f;
            fours[i] = Bytes16{};
            if (present) fours[i] = *reinterpret_cast<const Bytes16 *>(sum_at + i * stride);
        }
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) now = fmaxf(now, largest[i]);
        const float fade = exp2f(most - now);
        most = now;
        weight *= fade;
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] *= fade;
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const float by = exp2f(largest[i] - most);
            weight += by * weights[i];
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] += by * float_of_bits(fours[i].word[j]);
        }
    }
}
