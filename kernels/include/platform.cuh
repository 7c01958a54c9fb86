// What every kernel is written against: the few names that differ between a GPU and the emulation on a CPU.
//
// Rules that keep kernels emulable: dynamic shared memory only, through SHARED_MEMORY; entry points through KERNEL; inline
// PTX only inside functions of this folder, each with an emulated twin beside it.
#pragma once

#include <stdint.h>

#ifdef SKILLWELD_EMULATED

#include "../emulation/shim.h"

#define KERNEL(threads, name, parameters)                                        \
    static void name parameters;                                                 \
    static ::emulation::Registered registered_##name(#name, threads, &name);     \
    static void name parameters

#define KERNEL_RESIDENT(threads, blocks, name, parameters) KERNEL(threads, name, parameters)

#define SHARED_MEMORY(pointer) unsigned char *pointer = ::emulation::shared_memory()

#else

// `threads` is the largest block the kernel is launched with.
#define KERNEL(threads, name, parameters) extern "C" __global__ void __launch_bounds__(threads) name parameters

// The same with at least `blocks` blocks at once on a multiprocessor: the compiler gives each thread no more registers.
#define KERNEL_RESIDENT(threads, blocks, name, parameters) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name parameters

#define SHARED_MEMORY(pointer)                                            \
    extern __shared__ __align__(128) unsigned char skillweld_shared[];    \
    unsigned char *pointer = skillweld_shared

#endif

#ifndef SKILLWELD_EMULATED
// A barrier for `threads` threads of a block, whole warps that all name the same `id` (1 … 15); 0 is __syncthreads().
__device__ __forceinline__ void sync_named(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
#endif

#define WARP 32u
#define WHOLE_WARP 0xffffffffu

// 16 bytes, the widest single access of a thread.
struct __align__(16) Bytes16 {
    uint32_t word[4];
};

// Reads 16 bytes that this kernel reads once: they pass by the first cache.
__device__ __forceinline__ Bytes16 load_once(const void *address) {
    Bytes16 value;
#ifdef SKILLWELD_EMULATED
    value = *static_cast<const Bytes16 *>(address);
#else
    asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(value.word[0]), "=r"(value.word[1]), "=r"(value.word[2]), "=r"(value.word[3])
        : "l"(address));
#endif
    return value;
}

// Reads past what this multiprocessor has cached, and in the order in which it stands: what other blocks or the kernel before
// wrote while this one ran.
__device__ __forceinline__ Bytes16 load_strong(const void *address) {
    Bytes16 value;
#ifdef SKILLWELD_EMULATED
    value = *static_cast<const Bytes16 *>(address);
#else
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.word[0]), "=r"(value.word[1]), "=r"(value.word[2]), "=r"(value.word[3])
                 : "l"(address)
                 : "memory");
#endif
    return value;
}

// Writes 16 bytes that nobody reads again soon.
__device__ __forceinline__ void store_once(void *address, Bytes16 value) {
#ifdef SKILLWELD_EMULATED
    *static_cast<Bytes16 *>(address) = value;
#else
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.word[0]), "r"(value.word[1]),
                 "r"(value.word[2]), "r"(value.word[3])
                 : "memory");
#endif
}

// Asks the L2 for the 128 bytes around an address.
__device__ __forceinline__ void prefetch(const void *address) {
#ifndef SKILLWELD_EMULATED
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
    (void)address;
#endif
}

// Lets the blocks of the kernel after this one begin while this one still runs, if it was launched that way
// (Target::launch_early) and once all blocks here have said so. They wait before they touch what is written here.
__device__ __forceinline__ void let_next_begin() {
#if !defined(SKILLWELD_EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the kernel before this one has ended and all that it wrote is there; at once, if this was not launched early.
__device__ __forceinline__ void wait_for_kernel_before() {
#if !defined(SKILLWELD_EMULATED) && __CUDA_ARCH__ >= 900
    // The warp meets first, or the assembler moves loads that stand before to behind it.
    asm volatile("bar.warp.sync 0xffffffff;\n\tgriddepcontrol.wait;" ::: "memory");
#endif
}

// Adds to a counter in memory and gives what it was. What this thread, and those it has met at a barrier, wrote before is
// seen by whoever counts later; what was written before others counted is seen from here on.
__device__ __forceinline__ uint32_t add_in_order(uint32_t *counter, uint32_t value) {
#ifdef SKILLWELD_EMULATED
    return atomicAdd(counter, value);
#else
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(value) : "memory");
    return before;
#endif
}

// Sum over the 32 lanes of a warp, the same in all of them.
__device__ __forceinline__ float warp_sum(float value) {
    for (uint32_t step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(WHOLE_WARP, value, step);
    return value;
}

// Largest value of the 32 lanes of a warp, the same in all of them.
__device__ __forceinline__ float warp_max(float value) {
    for (uint32_t step = WARP / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(WHOLE_WARP, value, step));
    return value;
}
