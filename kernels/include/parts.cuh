// What blocks leave for each other in global memory: written and read past the first cache, which each has for itself.
#pragma once

#include "platform.cuh"

// Four floats at a multiple of 16 bytes. Who tells others of them calls __threadfence() in between.
__device__ __forceinline__ void leave_four(float *at, const float (&value)[4]) {
#ifdef SKILLWELD_EMULATED
    for (int i = 0; i < 4; i++) at[i] = value[i];
#else
    asm volatile("st.global.cg.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(value[0]), "f"(value[1]), "f"(value[2]),
                 "f"(value[3])
                 : "memory");
#endif
}

__device__ __forceinline__ void fetch_four(float (&value)[4], const float *at) {
#ifdef SKILLWELD_EMULATED
    for (int i = 0; i < 4; i++) value[i] = at[i];
#else
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value[0]), "=f"(value[1]), "=f"(value[2]), "=f"(value[3])
                 : "l"(at)
                 : "memory");
#endif
}
