// Counter-based random numbers, the same as the plugins' (`crates/plugin-sdk/src/random.rs`): Philox4x32-10.
#pragma once

#include "platform.cuh"

struct Words4 {
    uint32_t word[4];
};

// The four words of one counter `[low, high, stream, 0]`.
__device__ __forceinline__ Words4 philox(uint64_t counter, uint32_t stream, uint64_t seed) {
    uint32_t c[4] = {uint32_t(counter), uint32_t(counter >> 32), stream, 0};
    uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t high0 = __umulhi(0xd2511f53u, c[0]), low0 = 0xd2511f53u * c[0];
        const uint32_t high1 = __umulhi(0xcd9e8d57u, c[2]), low1 = 0xcd9e8d57u * c[2];
        c[0] = high1 ^ c[1] ^ key[0];
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key[1];
        c[3] = low0;
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    return Words4{{c[0], c[1], c[2], c[3]}};
}

// The number of one element: word (e mod 256) / 64 of counter 64 · (e / 256) + e mod 64.
__device__ __forceinline__ uint32_t philox_of_element(uint64_t element, uint32_t stream, uint64_t seed) {
    const Words4 words = philox(element / 256 * 64 + element % 64, stream, seed);
    const uint32_t which = uint32_t(element % 256 / 64);
    return which == 0 ? words.word[0] : which == 1 ? words.word[1] : which == 2 ? words.word[2] : words.word[3];
}
