// The counter-based random numbers of the plugin SDK: Philox4x32-10, arranged in tiles of 256 elements. Element
// 256·T + 64·w + c of a tensor gets word w of counter 64·T + c.
#pragma once

#include "platform.cuh"

struct Random {
    uint32_t key[2], stream;

    __device__ __forceinline__ Random(uint64_t seed, uint32_t stream)
        : key{uint32_t(seed), uint32_t(seed >> 32)}, stream(stream) {}

    // The four words of counter n.
    __device__ __forceinline__ void words(uint64_t n, uint32_t (&word)[4]) const {
        word[0] = uint32_t(n);
        word[1] = uint32_t(n >> 32);
        word[2] = stream;
        word[3] = 0;
        uint32_t key0 = key[0], key1 = key[1];
#pragma unroll
        for (int round = 0; round < 10; round++) {
            const uint64_t first = uint64_t(0xd2511f53u) * word[0], second = uint64_t(0xcd9e8d57u) * word[2];
            word[0] = uint32_t(second >> 32) ^ word[1] ^ key0;
            word[1] = uint32_t(second);
            word[2] = uint32_t(first >> 32) ^ word[3] ^ key1;
            word[3] = uint32_t(first);
            key0 += 0x9e3779b9u;
            key1 += 0xbb67ae85u;
        }
    }
};
