// M_k = 1[ |τ_k| > λ_k |τ − τ_k| ]: `Tall::run` of src/lib.rs on a GPU, bit for bit.
//
// Bound by memory: 4 (N + 1) bytes in and N/8 out for an element of N experts. A thread makes one byte of every mask.
//
// compile with: -fmad=false (the CPU rounds every product too)

#include "skillweld_cuda.h"

SKW_KERNEL(256, tall_run) {
    SKW_FOR_EACH_GROUP(call, group) {
        const skw_eight merged = skw_load(call->merged, group);
        for (uint64_t k = 0; k < call->expert_count; k++) {
            const float lambda = float(skw_parameter(call, 0, k));
            const skw_eight expert = skw_load(call->experts[k], group);
            uint32_t kept = 0;
            for (int i = 0; i < 8; i++) {
                const float others = lambda * fabsf(merged.value[i] - expert.value[i]);
                kept |= uint32_t(fabsf(expert.value[i]) > others) << i;
            }
            call->masks[k][group] = uint8_t(kept);
        }
    }
}
