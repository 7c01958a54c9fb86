// What the one launch of a whole action expert works on: its layers, its sizes, and where its blocks hand numbers over.
#pragma once

#include "attention.cuh"
#include "exchange.cuh"
#include "matrix.cuh"
#include "skinny.cuh"

namespace {

constexpr uint32_t MOST_THREADS = 512;
constexpr uint32_t MOST_WARPS = MOST_THREADS / WARP;
constexpr uint32_t STEPS = 2; // of 32 inputs, all that a warp has
constexpr int WIDE = 2;       // heads up to 128 wide
constexpr uint32_t GROUPS = 2;

// One block of the expert. Weights are bf16, features × width; keys and values bf16, tokens × width.
struct Layer {
    const uint16_t *query_weights; // 2 · width features
    const float *query_bias;
    const uint16_t *out_weights;
    const float *out_bias;
    const float *gain, *shift;
    const uint16_t *feed_weights;
    const float *feed_bias;
    const uint16_t *keys[GROUPS], *values[GROUPS];
    uint32_t counts[GROUPS];
    float scales[GROUPS];
};

struct Sizes {
    uint32_t rows, heads, head_dim, layers, actions;
    uint32_t splits; // parts of a head's keys
    uint32_t lanes;  // the power of two from `splits` on
    uint32_t most_parts; // warps that one part has at most
    float epsilon;
};

// Where the exchange has feature `feature` of row `row`: so that the 16 bytes which the lanes of a warp load together for a step
// of 32 inputs (inputs 8t + 4i … of row g) lie side by side, and no sector is asked for twice.
__device__ __forceinline__ uint32_t exchange_place(uint32_t row, uint32_t feature) {
    const uint32_t step = feature / INPUTS, t = feature / 8 % 4, half = feature / 4 % 2;
    return (step * 2 + half) * (ROWS * INPUTS / 2) + row * (INPUTS / 2) + t * 4 + feature % 4;
}

// Features of a row with the last step's filled up.
__device__ __forceinline__ uint32_t whole_steps(uint32_t width) { return (width + INPUTS - 1) / INPUTS * INPUTS; }

// Features first … end − 1 are a block's.
struct Range {
    uint32_t first, end;
};

__device__ __forceinline__ Range features_of_block(uint32_t features) {
    const uint32_t each = (features + gridDim.x - 1) / gridDim.x;
    return Range{min(blockIdx.x * each, features), min((blockIdx.x + 1) * each, features)};
}

// Where blocks hand numbers over; two places of each, as exchange.cuh says. In floats.
struct Exchange {
    float *trunk, *attended, *sums;           // 8 × width in whole steps, as `exchange_place` says
    float *queries;                           // the same for each head and group: (head · 2 + group) · 8 × head_dim
    float *parts;                             // heads × splits × 8 × head_dim
    float *part_scales;                       // heads × splits × 8: largest score, sum of weights, and two words of nothing

    __device__ __forceinline__ Exchange(float *memory, uint32_t place, uint32_t width, const Sizes &sizes) {
        const uint64_t rows = uint64_t(ROWS) * whole_steps(width), items = uint64_t(sizes.heads) * sizes.splits;
        const uint64_t query_rows = uint64_t(sizes.heads) * GROUPS * QUERIES * whole_steps(sizes.head_dim);
        float *at = memory + place * (3 * rows + query_rows + items * QUERIES * (sizes.head_dim + 4));
        trunk = at;
        attended = trunk + rows;
        sums = attended + rows;
        queries = sums + rows;
        parts = queries + query_rows;
        part_scales = parts + items * QUERIES * sizes.head_dim;
    }
};

} // namespace
