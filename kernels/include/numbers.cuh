// How numbers are stored: bf16, f16 and f32, eight at a time. Everything is computed in f32 and rounded once, to nearest,
// ties to even, as the CPU does.
#pragma once

#include "platform.cuh"

__device__ __forceinline__ float float_of_bits(uint32_t bits) {
#ifdef SKILLWELD_EMULATED
    return emulation::bit_cast<float>(bits);
#else
    return __uint_as_float(bits);
#endif
}

__device__ __forceinline__ uint32_t bits_of_float(float value) {
#ifdef SKILLWELD_EMULATED
    return emulation::bit_cast<uint32_t>(value);
#else
    return __float_as_uint(value);
#endif
}

struct Bf16 {
    using Stored = uint16_t;
    static __device__ __forceinline__ float widen(uint16_t bits) { return float_of_bits(uint32_t(bits) << 16); }
    static __device__ __forceinline__ uint16_t round(float value) {
        uint32_t bits = bits_of_float(value);
        // A NaN stays one: rounding could carry it into infinity.
        if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t((bits >> 16) | 0x40u);
        return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    // Two values in one word, `low` first in memory.
    static __device__ __forceinline__ uint32_t round_pair(float low, float high) {
#ifdef SKILLWELD_EMULATED
        return uint32_t(round(low)) | uint32_t(round(high)) << 16;
#else
        uint32_t packed;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
        return packed;
#endif
    }
};

struct F16 {
    using Stored = uint16_t;
    static __device__ __forceinline__ float widen(uint16_t bits) {
#ifdef SKILLWELD_EMULATED
        return emulation::float_of_half(bits);
#else
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
#endif
    }
    static __device__ __forceinline__ uint16_t round(float value) {
#ifdef SKILLWELD_EMULATED
        return emulation::half_of_float(value);
#else
        uint16_t bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
        return bits;
#endif
    }
    static __device__ __forceinline__ uint32_t round_pair(float low, float high) {
        return uint32_t(round(low)) | uint32_t(round(high)) << 16;
    }
};

struct F32 {
    using Stored = float;
    static __device__ __forceinline__ float widen(float value) { return value; }
    static __device__ __forceinline__ float round(float value) { return value; }
};

// Eight neighbouring elements as they are stored: 16 bytes of bf16 or f16, 32 of f32.
template <class Number>
struct Eight {
    Bytes16 half[1];

    __device__ __forceinline__ void widen(float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            values[2 * i] = Number::widen(uint16_t(half[0].word[i]));
            values[2 * i + 1] = Number::widen(uint16_t(half[0].word[i] >> 16));
        }
    }
    static __device__ __forceinline__ Eight round(const float (&values)[8]) {
        Eight result;
#pragma unroll
        for (int i = 0; i < 4; i++) result.half[0].word[i] = Number::round_pair(values[2 * i], values[2 * i + 1]);
        return result;
    }
};

template <>
struct Eight<F32> {
    Bytes16 half[2];

    __device__ __forceinline__ void widen(float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = float_of_bits(half[i / 4].word[i % 4]);
    }
    static __device__ __forceinline__ Eight round(const float (&values)[8]) {
        Eight result;
#pragma unroll
        for (int i = 0; i < 8; i++) result.half[i / 4].word[i % 4] = bits_of_float(values[i]);
        return result;
    }
};

// Elements `first` … `first + 7` of a 16-byte aligned array of `numel`; those past its end read as zero.
template <class Number>
__device__ __forceinline__ Eight<Number> load_eight(const typename Number::Stored *array, uint64_t first, uint64_t numel) {
    Eight<Number> eight;
    if (first + 8 <= numel) {
        const Bytes16 *at = reinterpret_cast<const Bytes16 *>(array + first);
#pragma unroll
        for (int i = 0; i < int(sizeof(eight.half) / sizeof(Bytes16)); i++) eight.half[i] = load_once(at + i);
    } else {
        float values[8];
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = first + i < numel ? Number::widen(array[first + i]) : 0.0f;
        eight = Eight<Number>::round(values);
    }
    return eight;
}

// The opposite; nothing is written past the array's end.
template <class Number>
__device__ __forceinline__ void store_eight(typename Number::Stored *array, uint64_t first, uint64_t numel,
                                            const float (&values)[8]) {
    if (first + 8 <= numel) {
        Eight<Number> eight = Eight<Number>::round(values);
        Bytes16 *at = reinterpret_cast<Bytes16 *>(array + first);
#pragma unroll
        for (int i = 0; i < int(sizeof(eight.half) / sizeof(Bytes16)); i++) store_once(at + i, eight.half[i]);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (first + i < numel) array[first + i] = Number::round(values[i]);
    }
}
