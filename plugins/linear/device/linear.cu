// Θ = Σ w_k Θ_k, divided by Σ w_k when `normalize`, and the only expert times a scale: `run` of src/lib.rs on a GPU, bit for
// bit.
//
// Bound by memory: 4 (N + 1) bytes for an element of N experts. A thread sums eight neighbouring elements at a time.
//
// compile with: -fmad=false (the CPU rounds every product too)

#include "skillweld_cuda.h"

SKW_KERNEL(256, linear_run) {
    double divisor = 1.0;
    if (call->global[0] != 0.0) { // `normalize`
        divisor = 0.0;
        for (uint64_t k = 0; k < call->expert_count; k++) divisor += skw_parameter(call, 0, k);
    }
    SKW_FOR_EACH_GROUP(call, group) {
        skw_eight sum = {};
        for (uint64_t k = 0; k < call->expert_count; k++) {
            const float weight = float(skw_parameter(call, 0, k));
            const skw_eight expert = skw_load(call->experts[k], group);
            for (int i = 0; i < 8; i++) sum.value[i] += weight * expert.value[i];
        }
        if (divisor != 1.0)
            for (int i = 0; i < 8; i++) sum.value[i] /= float(divisor);
        skw_store(call->out, group, sum);
    }
}

SKW_KERNEL(256, passthrough_run) {
    const double scale = skw_parameter(call, 0, 0);
    SKW_FOR_EACH_GROUP(call, group) {
        skw_eight only = skw_load(call->experts[0], group);
        if (scale != 1.0)
            for (int i = 0; i < 8; i++) only.value[i] *= float(scale);
        skw_store(call->out, group, only);
    }
}
