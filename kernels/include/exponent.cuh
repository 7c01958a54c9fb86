// Powers of two for a softmax.
#pragma once

#include "platform.cuh"

// 2^x to 2 ulp; 0 for −∞ and wherever the result would be below the smallest normal number.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef SKILLWELD_EMULATED
    const float power = std::exp2(x);
    return power < 1.17549435e-38f ? 0.0f : power;
#else
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#endif
}
