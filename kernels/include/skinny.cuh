// Products of few rows with a large matrix, x · Wᵀ: eight rows of x and eight features of W a tile, inputs cut into steps of
// 32 that warps share. Operands come from memory straight into the places that the matrix units want, 16 bytes a load; rows
// are f32 (two tf32 each), weights bf16 (exact in tf32), sums f32.
#pragma once

#include "tf32.cuh"

constexpr uint32_t ROWS = 8;     // of a tile
constexpr uint32_t FEATURES = 8; // of a tile
constexpr uint32_t INPUTS = 32;  // of a step

// What a lane holds of a step: inputs 32s + 8t … of row g, or of feature g (g = lane / 4, t = lane % 4).
struct RowStep {
    float element[8];
};
using WeightStep = Eight<Bf16>;

// Of row `row` of `rows` rows in memory; zeros past their ends.
template <Order ORDER = Order::ANY>
__device__ __forceinline__ RowStep load_rows(const float *x, uint32_t rows, uint32_t width, uint32_t row, uint32_t step) {
    const uint32_t input = INPUTS * step + 8 * (threadIdx.x % 4);
    RowStep result;
    load_eight_if<F32, ORDER>(row < rows && input < width, x + uint64_t(row) * width + input).widen(result.element);
    return result;
}

__device__ __forceinline__ WeightStep load_weights(const uint16_t *weights, uint32_t width, uint32_t feature, uint32_t end,
                                                   uint32_t step) {
    const uint32_t input = INPUTS * step + 8 * (threadIdx.x % 4);
    return load_eight_if<Bf16>(feature < end && input < width, weights + uint64_t(feature) * width + input);
}

// sum[i] += rows · weights[i]ᵀ. Rows 0 … 7 of the units' A are the rows' upper parts, rows 8 … 15 their lower ones.
template <int TILES>
__device__ __forceinline__ void multiply_step(float (&sum)[TILES][4], const RowStep &rows, const WeightStep (&weights)[TILES]) {
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        const Tf32Pair even = split_tf32(rows.element[i]), odd = split_tf32(rows.element[i + 1]);
        const uint32_t a[4] = {even.high, even.low, odd.high, odd.low};
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const uint32_t word = weights[tile].half[0].word[i / 2];
            const uint32_t b[2] = {word << 16, word & 0xffff0000u};
            multiply_add_tf32(sum[tile], a, b);
        }
    }
}

// Leaves a warp's sums in `parts`, TILES · 64 values: row r, feature f of tile i at 64 i + 8 r + f.
template <int TILES>
__device__ __forceinline__ void leave_sums(float *parts, const float (&sum)[TILES][4]) {
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        float *to = parts + ROWS * FEATURES * tile + 2 * (threadIdx.x % WARP);
        to[0] = sum[tile][0] + sum[tile][2];
        to[1] = sum[tile][1] + sum[tile][3];
    }
}

__device__ __forceinline__ float sum_of_four_lanes(float value) {
    value += __shfl_xor_sync(WHOLE_WARP, value, 1);
    return value + __shfl_xor_sync(WHOLE_WARP, value, 2);
}

// Number, mean and Σ (x − mean)² of some elements of a row.
struct __align__(16) Moments {
    float count, mean, squares, unused;
};

__device__ __forceinline__ Moments merge(const Moments &a, const Moments &b) {
    const float count = a.count + b.count, apart = b.mean - a.mean;
    const float part = count > 0.0f ? b.count / count : 0.0f;
    return Moments{count, a.mean + apart * part, a.squares + b.squares + apart * apart * a.count * part, 0.0f};
}

// Of what a warp has of row g: `count` elements, `inverse` = 1 / count. Steps that are not `present` are zero.
template <int STEPS>
__device__ __forceinline__ Moments moments_of(const RowStep (&x)[STEPS], const bool (&present)[STEPS], float count,
                                              float inverse) {
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8 * STEPS; i++) sum += x[i / 8].element[i % 8];
    const float mean = sum_of_four_lanes(sum) * inverse;
#pragma unroll
    for (int i = 0; i < 8 * STEPS; i++) {
        const float apart = present[i / 8] ? x[i / 8].element[i % 8] - mean : 0.0f;
        squares += apart * apart;
    }
    return Moments{count, mean, sum_of_four_lanes(squares), 0.0f};
}

// What normalises row g: mean and 1 / √(variance + ε), from the moments that every warp left at [warp · 8 + row].
struct Norm {
    float mean, scale;
};

// At most MOST_WARPS warps; each of the four lanes of a row adds up every fourth.
template <uint32_t MOST_WARPS>
__device__ __forceinline__ Norm norm_of(const Moments *left, uint32_t warps, float inverse_width, float epsilon) {
    const uint32_t g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    Moments parts[MOST_WARPS / 4];
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < MOST_WARPS / 4; i++) {
        parts[i] = Moments{};
        if (t + 4 * i < warps) parts[i] = left[(t + 4 * i) * ROWS + g];
        sum += parts[i].count * parts[i].mean;
    }
    const float mean = sum_of_four_lanes(sum) * inverse_width;
#pragma unroll
    for (uint32_t i = 0; i < MOST_WARPS / 4; i++)
        squares += parts[i].squares + parts[i].count * (parts[i].mean - mean) * (parts[i].mean - mean);
    return Norm{mean, rsqrtf(sum_of_four_lanes(squares) * inverse_width + epsilon)};
}

// (x − mean) · scale · gain + shift for a lane's part of a step.
__device__ __forceinline__ void normalise(RowStep &rows, const Norm &norm, const RowStep &gain, const RowStep &shift) {
#pragma unroll
    for (int i = 0; i < 8; i++)
        rows.element[i] = (rows.element[i] - norm.mean) * norm.scale * gain.element[i] + shift.element[i];
}
