// Matrices whose rows begin on 16 bytes: their values, then zeros up to the next multiple of eight.
#pragma once

#include "numbers.cuh"

// Eight neighbouring elements that other kernels use too: they go through the caches.
template <class Number>
__device__ __forceinline__ void read_eight(const typename Number::Stored *at, float (&values)[8]) {
    reinterpret_cast<const Eight<Number> *>(at)->widen(values);
}

// The opposite.
template <class Number>
__device__ __forceinline__ void write_eight(typename Number::Stored *at, const float (&values)[8]) {
    *reinterpret_cast<Eight<Number> *>(at) = Eight<Number>::round(values);
}
