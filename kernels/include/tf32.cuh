// f32 products on matrix units: a number is the sum of two that have tf32's 11 significant bits each.
#pragma once

#include "numbers.cuh"

// C (16×8, f32) += A (16×8, tf32) · B (8×8, tf32), a warp's. With g = lane / 4 and t = lane % 4: a[0] is A[g][t], a[1] row
// g + 8, a[2] column t + 4, a[3] both; b[0] is B[t][g], b[1] row t + 4; c[0, 1] is C[g][2t, 2t+1], c[2, 3] row g + 8.
// The units take the upper 19 bits of a word and ignore the rest.
__device__ __forceinline__ void multiply_add_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef SKILLWELD_EMULATED
    uint64_t left[2][32], right[32];
    emulation::exchange(WHOLE_WARP, &a[0], 8, left[0]);
    emulation::exchange(WHOLE_WARP, &a[2], 8, left[1]);
    emulation::exchange(WHOLE_WARP, &b[0], 8, right);
    const unsigned lane = emulation::lane(), g = lane / 4, t = lane % 4;
    auto half = [](uint64_t pair, unsigned upper) { return float_of_bits(uint32_t(pair >> (32 * upper)) & 0xffffe000u); };
    for (unsigned i = 0; i < 4; i++)
        for (unsigned k = 0; k < 8; k++)
            c[i] += half(left[k / 4][g * 4 + k % 4], i / 2) * half(right[(2 * t + i % 2) * 4 + k % 4], k / 4);
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// value = high + low but for at most 2⁻²¹ of it.
struct Tf32Pair {
    uint32_t high, low;
};

__device__ __forceinline__ Tf32Pair split_tf32(float value) {
    const uint32_t high = bits_of_float(value) & 0xffffe000u;
    // What cutting leaves is exact; it is rounded by adding half of the last bit that the units take.
    return Tf32Pair{high, bits_of_float(value - float_of_bits(high)) + 0x1000u};
}

// Eight stored elements as operands of the units: bf16 is exact in tf32, f32 needs a second word.
template <class Number>
struct Tf32Eight;

template <>
struct Tf32Eight<Bf16> {
    static constexpr int PARTS = 1;
    static __device__ __forceinline__ void split(const Eight<Bf16> &eight, uint32_t (&parts)[1][8]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            parts[0][2 * i] = eight.half[0].word[i] << 16;
            parts[0][2 * i + 1] = eight.half[0].word[i] & 0xffff0000u;
        }
    }
};

template <>
struct Tf32Eight<F32> {
    static constexpr int PARTS = 2;
    static __device__ __forceinline__ void split(const Eight<F32> &eight, uint32_t (&parts)[2][8]) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const Tf32Pair pair = split_tf32(float_of_bits(eight.half[i / 4].word[i % 4]));
            parts[0][i] = pair.high;
            parts[1][i] = pair.low;
        }
    }
};

// Whether a load has to see what others wrote while this kernel ran.
enum class Order { ANY, FRESH };

// Eight elements from `array` on, which is aligned to 16 bytes, or zeros.
template <class Number, Order ORDER = Order::ANY>
__device__ __forceinline__ Eight<Number> load_eight_if(bool present, const typename Number::Stored *array) {
    Eight<Number> eight = {};
    if (present) {
#pragma unroll
        for (int i = 0; i < int(sizeof(eight.half) / sizeof(Bytes16)); i++) {
            const Bytes16 *at = reinterpret_cast<const Bytes16 *>(array) + i;
            eight.half[i] = ORDER == Order::FRESH ? load_strong(at) : load_once(at);
        }
    }
    return eight;
}
