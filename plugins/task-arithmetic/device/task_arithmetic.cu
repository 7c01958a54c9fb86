// τ = λ Σ w_k τ_k, divided by Σ w_k when `normalize`: `TaskArithmetic::run` of src/arithmetic.rs on a GPU, bit for bit.
//
// Bound by memory: 4 (N + 1) bytes for an element of N experts. A thread sums eight neighbouring elements at a time.
//
// compile with: -fmad=false (the CPU rounds every product too)

#include "skillweld_cuda.h"

SKW_KERNEL(256, task_arithmetic_run) {
    // Parameters in the schema's order: `weight` of each expert; `normalize`, `lambda`.
    const bool normalize = call->global[0] != 0.0;
    const float lambda = float(call->global[1]);
    float total = 0.0f;
    for (uint64_t k = 0; k < call->expert_count; k++) total += float(skw_parameter(call, 0, k));
    const float divisor = normalize && fabsf(total) >= 1e-8f ? total : 1.0f;
    SKW_FOR_EACH_GROUP(call, group) {
        skw_eight sum = {};
        for (uint64_t k = 0; k < call->expert_count; k++) {
            const float weight = float(skw_parameter(call, 0, k));
            const skw_eight expert = skw_load(call->experts[k], group);
            for (int i = 0; i < 8; i++) sum.value[i] += weight * expert.value[i];
        }
        if (divisor != 1.0f)
            for (int i = 0; i < 8; i++) sum.value[i] /= divisor;
        if (lambda != 1.0f)
            for (int i = 0; i < 8; i++) sum.value[i] *= lambda;
        skw_store(call->out, group, sum);
    }
}
