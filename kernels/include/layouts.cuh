// Which elements of a tensor a thread takes. A block of 256 threads takes 2048 neighbouring ones at once; those past the last
// whole UNIT of a tensor are taken one a thread.
#pragma once

#include "numbers.cuh"
#include "random.cuh"

constexpr uint32_t LAYOUT_THREADS = 256;
constexpr uint64_t LAYOUT_ELEMENTS = LAYOUT_THREADS * 8;

// Eight neighbours: one 16-byte access of bf16.
template <class Number>
struct Neighbours {
    using Stored = typename Number::Stored;
    static constexpr int COUNT = 8;
    static constexpr uint64_t UNIT = 8;
    Eight<Number> eight;

    // The first of the thread's elements, within the block's.
    static __device__ __forceinline__ uint64_t first() { return threadIdx.x * 8; }
    __device__ __forceinline__ void load(const Stored *array, uint64_t first) {
        eight = load_eight<Number>(array, first, first + 8);
    }
    static __device__ __forceinline__ void store(Stored *array, uint64_t first, const float (&values)[8]) {
        store_eight<Number>(array, first, first + 8, values);
    }
    __device__ __forceinline__ float value(int i) const;
};

template <class Number>
__device__ __forceinline__ float Neighbours<Number>::value(int i) const {
    return Number::widen(uint16_t(eight.half[0].word[i / 2] >> (i % 2 * 16)));
}
template <>
__device__ __forceinline__ float Neighbours<F32>::value(int i) const {
    return float_of_bits(eight.half[i / 4].word[i % 4]);
}

// Two neighbours from each of four rows that lie 64 elements apart: those whose random numbers two counters give. Value
// 2·w + c of a thread belongs to word w of its counter c.
template <class Number>
struct Rows {
    using Stored = typename Number::Stored;
    static constexpr int COUNT = 8;
    static constexpr uint64_t UNIT = 256;
    struct __align__(2 * sizeof(Stored)) Two {
        Stored value[2];
    };
    Two row[4];

    static __device__ __forceinline__ uint64_t first() { return threadIdx.x / WARP * 256 + threadIdx.x % WARP * 2; }
    static __device__ __forceinline__ void draw(const Random &random, uint64_t first, uint32_t (&numbers)[8]) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            uint32_t word[4];
            random.words(first / 256 * 64 + first % 64 + c, word);
#pragma unroll
            for (int w = 0; w < 4; w++) numbers[2 * w + c] = word[w];
        }
    }
    __device__ __forceinline__ void load(const Stored *array, uint64_t first) {
#pragma unroll
        for (int w = 0; w < 4; w++) row[w] = *reinterpret_cast<const Two *>(array + first + w * 64);
    }
    static __device__ __forceinline__ void store(Stored *array, uint64_t first, const float (&values)[8]) {
#pragma unroll
        for (int w = 0; w < 4; w++)
            *reinterpret_cast<Two *>(array + first + w * 64) =
                Two{Number::round(values[2 * w]), Number::round(values[2 * w + 1])};
    }
    __device__ __forceinline__ float value(int i) const { return Number::widen(row[i / 2].value[i % 2]); }
};

// One element.
template <class Number>
struct Single {
    using Stored = typename Number::Stored;
    static constexpr int COUNT = 1;
    Stored stored;

    static __device__ __forceinline__ void draw(const Random &random, uint64_t first, uint32_t (&numbers)[1]) {
        uint32_t word[4];
        random.words(first / 256 * 64 + first % 64, word);
        numbers[0] = first & 128 ? (first & 64 ? word[3] : word[2]) : (first & 64 ? word[1] : word[0]);
    }
    __device__ __forceinline__ void load(const Stored *array, uint64_t first) { stored = array[first]; }
    static __device__ __forceinline__ void store(Stored *array, uint64_t first, const float (&values)[1]) {
        array[first] = Number::round(values[0]);
    }
    __device__ __forceinline__ float value(int) const { return Number::widen(stored); }
};
