// Magnitudes as integers: the bits of |x|, which are ordered as |x| is. NaN comes last.
#pragma once

#include "numbers.cuh"

// Keys of eight elements that were loaded together.
template <class Number>
__device__ __forceinline__ void magnitudes(const Eight<Number> &eight, uint32_t (&keys)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) keys[i] = eight.half[0].word[i / 2] >> (i % 2 * 16) & 0x7fffu;
}

template <>
__device__ __forceinline__ void magnitudes<F32>(const Eight<F32> &eight, uint32_t (&keys)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) keys[i] = eight.half[i / 4].word[i % 4] & 0x7fffffffu;
}

// The number that has this key; NaN for a key that no number has.
template <class Number>
__device__ __forceinline__ float magnitude_of(uint32_t key) {
    return key > 0x7fffu ? float_of_bits(0x7fc00000u) : Number::widen(uint16_t(key));
}

template <>
__device__ __forceinline__ float magnitude_of<F32>(uint32_t key) {
    return float_of_bits(key);
}

// What is kept of a trimmed expert.
struct Threshold {
    uint32_t key;   // larger magnitudes are kept, smaller ones are not
    uint32_t room;  // padding
    uint64_t below; // of those that equal it, those whose random number is below this; 2³²: all
};

// One threshold, and how far the search for it has come (thresholds.cu).
struct Search {
    uint64_t rank;             // K: 1 finds the largest
    uint64_t numel;            // of everything that it looks at
    uint32_t low, high, shift; // interval of magnitudes, high excluded; neighbouring 2^shift share a bin
    uint32_t found;
    Threshold threshold;
};
