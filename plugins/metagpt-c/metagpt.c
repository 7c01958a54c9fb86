/* MetaGPT (Zhou et al., EMNLP 2024, arXiv 2406.11385) as a Skillweld plugin in plain C99:
 *
 *     out = lambda * sum_k w_k tau_k,     w_k = ||tau_k||^2 / sum_j ||tau_j||^2
 *
 * which minimises the loss of the merged model, summed over the tasks, to second order and for task vectors at right
 * angles. Norms are taken over all tensors (the paper), or over each by itself. So the method needs to see everything
 * before it can compute anything: `plan` asks for a pass, `observe` adds up each block's share, the host adds those in
 * an order of its own that never changes, and `run` finds the sums in `totals`.
 *
 * Build, from the root of the repository:
 *
 *     cc -std=c99 -O3 -fPIC -shared -I crates/plugin-abi/include -o target/libskillweld_plugin_metagpt_c.so plugins/metagpt-c/metagpt.c
 *
 * SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "skillweld_plugin.h"

#include <stdio.h>
#include <string.h>

/* The fields of version 1.0 reach up to `out` and `sums_len`; a host of another size may hand over more or less. */
#define CALL_NEEDS (offsetof(skw_call, out) + sizeof(float *))
#define PLAN_NEEDS (offsetof(skw_plan, sums_len) + SKW_MAX_PASSES * sizeof(uint64_t))

/* Parameters, in the order of the schema. */
enum { LAMBDA, SCOPE, PARAMETERS };
/* Values of `scope`, in the order of its `enum`. */
enum { SCOPE_IS_GLOBAL, SCOPE_IS_TENSOR };

/* f64 sums of so many lanes: what a compiler turns into vectors, in an order that does not depend on which. */
#define LANES 8

/* Pushes a message to the host; the status to return with it. */
static int32_t fail(const skw_host *host, const char *message) {
    if (host && host->error) {
        skw_str text = {message, strlen(message)};
        host->error(host->context, text);
    }
    return SKW_ERROR;
}

static int32_t check(const skw_host *host, const skw_params *params) {
    if (params->global_count != PARAMETERS) {
        char message[80];
        snprintf(message, sizeof message, "metagpt: %d parameters expected, the host gave %llu", PARAMETERS,
                 (unsigned long long)params->global_count);
        return fail(host, message);
    }
    return SKW_OK;
}

static int32_t plan(const skw_host *host, const skw_params *params, skw_plan *plan) {
    if (plan->size < PLAN_NEEDS) {
        return fail(host, "metagpt: the host is older than version 1.0 of the plugin boundary");
    }
    const int32_t status = check(host, params);
    if (status == SKW_OK) {
        plan->passes = 1;
        plan->scope = params->global[SCOPE] == SCOPE_IS_TENSOR ? SKW_SCOPE_TENSOR : SKW_SCOPE_GLOBAL;
        plan->sums_len[0] = params->expert_count;
    }
    return status;
}

/* sums[k] += ||tau_k||^2 of this block. */
static int32_t observe(const skw_call *call, uint32_t pass, double *sums) {
    (void)pass;
    if (call->size < CALL_NEEDS) {
        return fail(call->host, "metagpt: the host is older than version 1.0 of the plugin boundary");
    }
    for (uint64_t k = 0; k < call->expert_count; k++) {
        const float *restrict tau = skw_expert(call, k)->dense;
        if (!tau) {
            return fail(call->host, "metagpt: dense task vectors expected");
        }
        double lanes[LANES] = {0};
        uint64_t i = 0;
        for (; i + LANES <= call->len; i += LANES) {
            for (int lane = 0; lane < LANES; lane++) {
                lanes[lane] += (double)tau[i + lane] * tau[i + lane];
            }
        }
        for (; i < call->len; i++) {
            lanes[i % LANES] += (double)tau[i] * tau[i];
        }
        for (int lane = 0; lane < LANES; lane++) {
            sums[k] += lanes[lane];
        }
    }
    return SKW_OK;
}

static int32_t run(const skw_call *call) {
    if (call->size < CALL_NEEDS) {
        return fail(call->host, "metagpt: the host is older than version 1.0 of the plugin boundary");
    }
    const int32_t status = check(call->host, call->params);
    if (status != SKW_OK) {
        return status;
    }
    if (call->totals_len != call->expert_count) {
        return fail(call->host, "metagpt: the host gave no sums of the pass that `plan` asked for");
    }
    double all = 0.0;
    for (uint64_t k = 0; k < call->expert_count; k++) {
        all += call->totals[k];
    }
    const double lambda = call->params->global[LAMBDA];
    float *restrict out = call->out;
    for (uint64_t i = 0; i < call->len; i++) {
        out[i] = 0.0f;
    }
    for (uint64_t k = 0; k < call->expert_count; k++) {
        const float *restrict tau = skw_expert(call, k)->dense;
        if (!tau) {
            return fail(call->host, "metagpt: dense task vectors expected");
        }
        /* Nothing but zeros weighs nothing. */
        const float weight = all == 0.0 ? 0.0f : (float)(lambda * (call->totals[k] / all));
        for (uint64_t i = 0; i < call->len; i++) {
            out[i] += weight * tau[i];
        }
    }
    return SKW_OK;
}

static const skw_method METAGPT = {
    .size = sizeof(skw_method),
    .kind = SKW_KIND_MERGE,
    .id = SKW_STR("metagpt"),
    .version = SKW_STR("1.0.0"),
    .summary = SKW_STR("sum of the task vectors, each weighed by its share of all squared norms"),
    .citation = SKW_STR("Zhou et al., MetaGPT, EMNLP 2024, arXiv 2406.11385"),
    .schema = SKW_STR("{\"type\":\"object\",\"properties\":{\"lambda\":{\"type\":\"number\",\"default\":1,"
                      "\"description\":\"factor of the merged task vector\"},\"scope\":{\"type\":\"string\","
                      "\"enum\":[\"global\",\"tensor\"],\"default\":\"global\",\"description\":\"norms over all "
                      "tensors (the paper), or over each by itself\"}},\"required\":[],\"additionalProperties\":"
                      "false}"),
    .min_experts = 1,
    .flags = SKW_TASK_VECTORS | SKW_ELEMENTWISE | SKW_DETERMINISTIC | SKW_PROPAGATES_NON_FINITE,
    .laws = SKW_LAW_IDENTITY | SKW_LAW_PERMUTATION | SKW_LAW_HOMOGENEOUS | SKW_LAW_ZERO,
    .plan = plan,
    .observe = observe,
    .run = run,
};

static const skw_method *method(uint32_t index) { return index == 0 ? &METAGPT : NULL; }

SKW_EXPORT const skw_plugin skillweld_plugin_v1 = {
    .magic = SKW_MAGIC,
    .size = sizeof(skw_plugin),
    .abi_minor = SKW_ABI_MINOR,
    .layout_hash = SKW_LAYOUT_HASH,
    .method_count = 1,
    .method = method,
};
