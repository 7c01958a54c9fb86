// A linear layer's operands, and what it does with its result while it is in registers.
#pragma once

#include "numbers.cuh"

// What becomes of y = x · Wᵀ + bias; the numbers are those of `ops::LinearThen` in Rust.
enum Then : uint32_t {
    KEEP = 0,
    GELU = 1,      // ½ y (1 + erf(y / √2))
    ADD_TO = 2,    // beside + scale ⊙ y
    SILU_GATE = 3, // silu(beside) ⊙ y
    RELU = 4,
};

struct Linear {
    const void *x;       // rows × inner
    const void *weight;  // columns × inner
    const float *bias;   // one a column, or null
    const void *beside;  // rows × columns of y's dtype: a residual or a gate
    const float *scale;  // one a column, or null
    void *y;             // rows × columns
    uint32_t rows, columns, inner, then;
};

// A launch passes scalars only.
#define LINEAR_PARAMETERS                                                                                               \
    const void *x, const void *weight, const float *bias, const void *beside, const float *scale, void *y, uint32_t rows, \
        uint32_t columns, uint32_t inner, uint32_t then
#define LINEAR_ARGUMENTS \
    Linear { x, weight, bias, beside, scale, y, rows, columns, inner, then }

// `value` is y before the bias; `beside` the residual or the gate, if there is one.
__device__ __forceinline__ float finished(const Linear &linear, uint32_t column, float value, float beside) {
    if (linear.bias) value += linear.bias[column];
    switch (linear.then) {
    case GELU: return 0.5f * value * (1.0f + erff(value * 0.70710678118654752f));
    case ADD_TO: return linear.scale ? beside + linear.scale[column] * value : beside + value;
    case SILU_GATE: return beside / (1.0f + expf(-beside)) * value;
    case RELU: return fmaxf(value, 0.0f);
    default: return value;
    }
}

// Writes one element of y.
template <class Number>
__device__ __forceinline__ void finish(const Linear &linear, uint64_t row, uint32_t column, float value) {
    using Stored = typename Number::Stored;
    const uint64_t at = row * linear.columns + column;
    const float beside = linear.beside ? Number::widen(static_cast<const Stored *>(linear.beside)[at]) : 0.0f;
    static_cast<Stored *>(linear.y)[at] = Number::round(finished(linear, column, value, beside));
}

// The same for eight elements of a row from `column` on, a multiple of 8; `values` begin on 16 bytes.
template <class Number>
__device__ __forceinline__ void finish_eight(const Linear &linear, uint64_t row, uint32_t column, const float *values) {
    using Stored = typename Number::Stored;
    if (linear.columns % 8 != 0) { // rows do not begin on 16 bytes
#pragma unroll 1
        for (uint32_t i = 0; i < 8 && column + i < linear.columns; i++) finish<Number>(linear, row, column + i, values[i]);
        return;
    }
    const uint64_t at = row * linear.columns + column, numel = at + 8;
    float beside[8] = {}, result[8];
    if (linear.beside) load_eight<Number>(static_cast<const Stored *>(linear.beside), at, numel).widen(beside);
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) result[i] = finished(linear, column + i, values[i], beside[i]);
    store_eight<Number>(static_cast<Stored *>(linear.y), at, numel, result);
}
