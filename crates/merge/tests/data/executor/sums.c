/* Three ways to write the sum of weighted task vectors: as a method on whole matrices, as one that multiplies the
 * factors of adapters itself, and as one that does so block by block. And a mask method that takes factors. */
#include "skillweld_plugin.h"
#include <string.h>

static int32_t fail(const skw_call *call, const char *why) {
    skw_str text = {why, strlen(why)};
    call->host->error(call->host->context, text);
    return SKW_ERROR;
}

/* Element i of the block of expert k, whichever way it came. */
static double value(const skw_call *call, uint64_t k, uint64_t i) {
    const skw_tensor *expert = skw_expert(call, k);
    if (expert->dense) return expert->dense[i];
    uint64_t columns = call->shape[1], row = (call->offset + i) / columns, column = (call->offset + i) % columns;
    double sum = 0;
    for (uint64_t r = 0; r < expert->rank; r++)
        sum += (double)expert->b[row * expert->rank + r] * expert->a[r * columns + column];
    return sum;
}

static int32_t sum(const skw_call *call) {
    for (uint64_t i = 0; i < call->len; i++) {
        double out = 0;
        for (uint64_t k = 0; k < call->expert_count; k++) out += call->params->per_expert[k] * value(call, k, i);
        call->out[i] = (float)out;
    }
    return SKW_OK;
}

static int32_t sum_whole(const skw_call *call) {
    if (call->offset != 0 || call->len != call->numel) return fail(call, "not the whole tensor");
    skw_str factored = SKW_STR("factored"), dense = SKW_STR("dense");
    uint64_t factors = 0;
    for (uint64_t k = 0; k < call->expert_count; k++) factors += !skw_expert(call, k)->dense;
    call->host->path(call->host->context, factors == call->expert_count ? factored : dense);
    return sum(call);
}

static int32_t sum_dense(const skw_call *call) {
    for (uint64_t k = 0; k < call->expert_count; k++)
        if (!skw_expert(call, k)->dense) return fail(call, "factors, but this method did not ask for them");
    return sum_whole(call);
}

/* Keeps what an expert adds to. */
static int32_t positive(const skw_call *call) {
    for (uint64_t k = 0; k < call->expert_count; k++)
        for (uint64_t i = 0; i < call->len; i++)
            if (value(call, k, i) > 0) call->masks[k][i / 8] |= (uint8_t)(1u << (i % 8));
    return SKW_OK;
}

#define WEIGHT \
    "{\"type\":\"object\",\"properties\":{\"weight\":{\"type\":\"number\",\"default\":1,\"x-per-expert\":true}}}"
#define METHOD(KIND, NAME, SCHEMA, FLAGS, RUN) \
    { \
        .size = sizeof(skw_method), .kind = KIND, .id = SKW_STR(NAME), .version = SKW_STR("1.0.0"), \
        .summary = SKW_STR("for a test"), .citation = SKW_STR(""), .schema = SKW_STR(SCHEMA), .min_experts = 1, \
        .flags = SKW_TASK_VECTORS | SKW_DETERMINISTIC | (FLAGS), .run = RUN, \
    }

static const skw_method methods[] = {
    METHOD(SKW_KIND_MERGE, "whole", WEIGHT, SKW_MATRIX, sum_dense),
    METHOD(SKW_KIND_MERGE, "whole_factors", WEIGHT, SKW_MATRIX | SKW_LOW_RANK, sum_whole),
    METHOD(SKW_KIND_MERGE, "block_factors", WEIGHT, SKW_ELEMENTWISE | SKW_LOW_RANK, sum),
    METHOD(SKW_KIND_MASK, "positive", "{\"type\":\"object\",\"properties\":{}}", SKW_ELEMENTWISE | SKW_LOW_RANK,
           positive),
};

static const skw_method *method(uint32_t index) { return &methods[index]; }

SKW_EXPORT const skw_plugin skillweld_plugin_v1 = {
    SKW_MAGIC, sizeof(skw_plugin), SKW_ABI_MINOR, SKW_LAYOUT_HASH, sizeof methods / sizeof methods[0], 0, method,
};
