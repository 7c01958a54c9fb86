/* MagMax (Marczak et al., ECCV 2024, arXiv 2407.06322) as a Skillweld plugin in plain C99:
 *
 *     out[i] = lambda * tau_k[i], k being the expert with the largest |tau_k[i]|; among equals the first.
 *
 * Build, from the root of the repository:
 *
 *     cc -std=c99 -O3 -fPIC -shared -I crates/plugin-abi/include -o target/libskillweld_plugin_magmax_c.so plugins/magmax-c/magmax.c
 *
 * SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "skillweld_plugin.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The fields of version 1.0 reach up to `out`; a host of another size may hand over more or less. */
#define CALL_NEEDS (offsetof(skw_call, out) + sizeof(float *))

/* Pushes a message to the host; the status to return with it. */
static int32_t fail(const skw_host *host, const char *message) {
    if (host && host->error) {
        skw_str text = {message, strlen(message)};
        host->error(host->context, text);
    }
    return SKW_ERROR;
}

static int32_t run(const skw_call *call) {
    if (call->size < CALL_NEEDS) {
        return fail(call->host, "magmax: the host is older than version 1.0 of the plugin boundary");
    }
    if (call->params->global_count != 1) {
        char message[80];
        snprintf(message, sizeof message, "magmax: 1 parameter expected, the host gave %llu",
                 (unsigned long long)call->params->global_count);
        return fail(call->host, message);
    }
    const float lambda = (float)call->params->global[0];
    float *restrict out = call->out;
    for (uint64_t i = 0; i < call->len; i++) {
        out[i] = 0.0f;
    }
    for (uint64_t k = 0; k < call->expert_count; k++) {
        const float *restrict tau = skw_expert(call, k)->dense;
        if (!tau) {
            return fail(call->host, "magmax: dense task vectors expected");
        }
        for (uint64_t i = 0; i < call->len; i++) {
            /* A NaN is never at most anything: it is taken when it comes, and kept because it differs from itself. */
            const float new = tau[i], old = out[i];
            out[i] = (fabsf(new) <= fabsf(old)) | (old != old) ? old : new;
        }
    }
    for (uint64_t i = 0; i < call->len; i++) {
        out[i] *= lambda;
    }
    return SKW_OK;
}

static const skw_method MAGMAX = {
    .size = sizeof(skw_method),
    .kind = SKW_KIND_MERGE,
    .id = SKW_STR("magmax"),
    .version = SKW_STR("1.0.0"),
    .summary = SKW_STR("the task vector entry of largest magnitude"),
    .citation = SKW_STR("Marczak et al., MagMax, ECCV 2024, arXiv 2407.06322"),
    .schema = SKW_STR("{\"type\":\"object\",\"properties\":{\"lambda\":{\"type\":\"number\",\"default\":1,"
                      "\"description\":\"factor of the merged task vector\"}},"
                      "\"required\":[],\"additionalProperties\":false}"),
    .min_experts = 1,
    .flags = SKW_TASK_VECTORS | SKW_ELEMENTWISE | SKW_DETERMINISTIC | SKW_PROPAGATES_NON_FINITE,
    .laws = SKW_LAW_IDENTITY | SKW_LAW_HOMOGENEOUS | SKW_LAW_ZERO,
    .run = run,
};

static const skw_method *method(uint32_t index) { return index == 0 ? &MAGMAX : NULL; }

SKW_EXPORT const skw_plugin skillweld_plugin_v1 = {
    .magic = SKW_MAGIC,
    .size = sizeof(skw_plugin),
    .abi_minor = SKW_ABI_MINOR,
    .layout_hash = SKW_LAYOUT_HASH,
    .method_count = 1,
    .method = method,
};
