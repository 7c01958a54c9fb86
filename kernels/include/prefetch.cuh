// Bringing what the next kernel reads into the L2 while this one runs.
#pragma once

#include "platform.cuh"

// Bytes from `address` on, both multiples of 16.
struct MemoryRange {
    const unsigned char *address;
    uint64_t bytes;
};

constexpr uint32_t PREFETCH_BYTES = 2048; // of a thread at a time

// Asks for all ranges, cut among `blocks` blocks of which this is number `block`.
__device__ __forceinline__ void prefetch_ranges(const MemoryRange *ranges, uint32_t count, uint32_t block, uint32_t blocks) {
    for (uint32_t index = 0; index < count; index++) {
        const MemoryRange range = ranges[index];
        const uint64_t stride = uint64_t(blocks) * blockDim.x * PREFETCH_BYTES;
        for (uint64_t at = (uint64_t(block) * blockDim.x + threadIdx.x) * PREFETCH_BYTES; at < range.bytes; at += stride) {
            const uint64_t left = range.bytes - at;
            const uint32_t bytes = left < PREFETCH_BYTES ? uint32_t(left) : PREFETCH_BYTES;
#ifdef SKILLWELD_EMULATED
            // What is asked for must be there.
            for (uint32_t i = 0; i < bytes; i += 16) (void)*static_cast<const volatile unsigned char *>(range.address + at + i);
#elif __CUDA_ARCH__ >= 900
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(range.address + at), "r"(bytes) : "memory");
#else
            for (uint32_t i = 0; i < bytes; i += 32) asm volatile("prefetch.global.L2 [%0];" ::"l"(range.address + at + i));
#endif
        }
    }
}
