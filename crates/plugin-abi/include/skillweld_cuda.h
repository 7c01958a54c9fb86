/* What a plugin's kernel sees: extension skillweld.cuda/1. Include it from a .cu file and write
 *
 *     SKW_KERNEL(256, my_method_run) {
 *         SKW_FOR_EACH_GROUP(call, group) {
 *             skw_eight sum = skw_load(call->experts[0], group);
 *             ...
 *             skw_store(call->out, group, sum);
 *         }
 *     }
 *
 * which must give the same bits as the method's `run` on the CPU: compile with -fmad=false, compute in f32 in the same
 * order, convert parameters where the CPU does. `nvcc -fatbin -O3 -fmad=false -gencode=arch=compute_80,code=sm_80 ...
 * -gencode=arch=compute_80,code=compute_80`: the last one is PTX, for GPUs to come. See crates/plugin-abi/src/cuda.rs; the
 * two are kept equal by crates/plugin-abi/tests/header.rs. SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef SKILLWELD_CUDA_H
#define SKILLWELD_CUDA_H

#include <stdint.h>

/* Arrays begin on 16 bytes; those of len floats may be read, and out written, up to the next multiple of 8. */
typedef struct skw_cuda_call {
    uint64_t size;
    uint64_t len;    /* elements in this block */
    uint64_t offset; /* first element of this block; a multiple of 8 */
    uint64_t numel;  /* elements of the whole tensor */
    uint64_t seed;   /* the same for every block of a tensor */
    uint64_t expert_count;
    const float *const *experts;
    const float *base;    /* NULL unless SKW_NEEDS_BASE */
    const float *merged;  /* mask methods: the merged task vector */
    const double *totals; /* of all passes */
    uint64_t totals_len;
    const double *global; /* parameters in the order of the schema; booleans 0 or 1, strings their position in enum */
    uint64_t global_count;
    const double *per_expert; /* [parameter * expert_count + expert] */
    uint64_t per_expert_count;
    float *out;            /* merge: len values to fill */
    uint8_t *const *masks; /* mask: expert_count times ceil(len / 8) zeroed bytes, element 8j + i is bit i of byte j */
} skw_cuda_call;

#if defined(__CUDACC__) || defined(SKILLWELD_EMULATED)

#ifdef SKILLWELD_EMULATED /* Skillweld's own tests run its plugins' kernels on a CPU */
#define SKW_KERNEL(threads, name)                                              \
    static void name(const skw_cuda_call *call);                               \
    static ::emulation::Registered registered_##name(#name, threads, &name);   \
    static void name(const skw_cuda_call *call)
#else
/* `threads` is what the method says of its blocks. */
#define SKW_KERNEL(threads, name) \
    extern "C" __global__ void __launch_bounds__(threads) name(const skw_cuda_call *__restrict__ call)
#endif

/* Runs over the groups of 8 elements that are this thread's. */
#define SKW_FOR_EACH_GROUP(call, group)                                                                     \
    for (uint64_t group = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x, groups = ((call)->len + 7) / 8;  \
         group < groups; group += uint64_t(gridDim.x) * blockDim.x)

/* Eight neighbouring values. */
struct __align__(16) skw_eight {
    float value[8];
};

static __device__ __forceinline__ skw_eight skw_load(const float *array, uint64_t group) {
    return reinterpret_cast<const skw_eight *>(array)[group];
}

static __device__ __forceinline__ void skw_store(float *array, uint64_t group, const skw_eight &eight) {
    reinterpret_cast<skw_eight *>(array)[group] = eight;
}

/* The j-th per-expert parameter of expert k. */
static __device__ __forceinline__ double skw_parameter(const skw_cuda_call *call, uint64_t j, uint64_t k) {
    return call->per_expert[j * call->expert_count + k];
}

#endif
#endif
