/* A plugin in which every detail can be spoilt from the compiler's command line. Its method `probe` gives the mean of
 * the experts times the parameter `scale`; the key of the tensor makes it misbehave in other ways. */
#include "skillweld_plugin.h"
#include <string.h>

#ifndef EXPORTED
#define EXPORTED skillweld_plugin_v1
#endif
#ifndef MAGIC
#define MAGIC SKW_MAGIC
#endif
#ifndef HASH
#define HASH SKW_LAYOUT_HASH
#endif
#ifndef PLUGIN_SIZE
#define PLUGIN_SIZE sizeof(skw_plugin)
#endif
#ifndef METHOD_SIZE
#define METHOD_SIZE sizeof(skw_method)
#endif
#ifndef COUNT
#define COUNT 1
#endif
#ifndef KIND
#define KIND SKW_KIND_MERGE
#endif
#ifndef ID
#define ID "probe"
#endif
#ifndef VERSION
#define VERSION "1.0.0"
#endif
#ifndef MASK
#define MASK ""
#endif
#ifndef FLAGS
#define FLAGS (SKW_ELEMENTWISE | SKW_DETERMINISTIC)
#endif
#ifndef MIN_EXPERTS
#define MIN_EXPERTS 1
#endif
#ifndef MAX_EXPERTS
#define MAX_EXPERTS 3
#endif
#ifndef SCHEMA
#define SCHEMA "{\"type\":\"object\",\"properties\":{\"scale\":{\"type\":\"number\",\"default\":1}}}"
#endif
#ifndef RUN
#define RUN run
#endif
#ifndef OBSERVE
#define OBSERVE observe
#endif
#ifndef RESCALE
#define RESCALE rescale
#endif
#ifndef PASSES
#define PASSES 1
#endif
#ifndef WHOLE
#define WHOLE 0
#endif
#ifndef SAMPLE
#define SAMPLE 0
#endif
#ifndef SCRATCH
#define SCRATCH 1
#endif
#ifndef CUDA
#define CUDA NULL
#endif
#ifndef CUDA_SIZE
#define CUDA_SIZE sizeof(skw_cuda)
#endif
#ifndef EXTENSION
#define EXTENSION SKW_CUDA_EXTENSION
#endif
#ifndef IMAGE
#define IMAGE "\x50\xed\x55\xba"
#endif
#ifndef IMAGE_LEN
#define IMAGE_LEN (sizeof(IMAGE) - 1)
#endif
#ifndef KERNEL
#define KERNEL "probe_run"
#endif
#ifndef THREADS
#define THREADS 256
#endif

static const skw_cuda device_code = {
    CUDA_SIZE, THREADS, SKW_STR(EXTENSION), (const uint8_t *)IMAGE, IMAGE_LEN, SKW_STR(KERNEL)};

static int32_t plan(const skw_host *host, const skw_params *params, skw_plan *plan) {
    (void)host;
    (void)params;
    plan->passes = PASSES;
    plan->scope = SKW_SCOPE_GLOBAL;
    plan->sums_len[0] = 2;
    plan->scratch_per_element = SCRATCH;
    plan->sample[0] = SAMPLE;
    plan->whole = WHOLE;
    return SKW_OK;
}

static int key_is(const skw_call *call, const char *key) {
    return call->key.len == strlen(key) && memcmp(call->key.ptr, key, call->key.len) == 0;
}

static skw_str str(const char *text) {
    skw_str s = {text, strlen(text)};
    return s;
}

/* Sums: the elements seen, and the number of calls. */
static int32_t observe(const skw_call *call, uint32_t pass, double *sums) {
    (void)pass;
    for (uint64_t i = 0; i < call->len; i++) sums[0] += skw_expert(call, 0)->dense[i];
    sums[1] += 1;
    if (key_is(call, "settled")) call->host->settled(call->host->context);
    return SKW_OK;
}

static int32_t run(const skw_call *call) {
    const skw_host *host = call->host;
    if (key_is(call, "fail")) {
        host->error(host->context, str("first words"));
        host->error(host->context, str("the last words count"));
        return SKW_ERROR;
    }
    if (key_is(call, "speechless")) return SKW_ERROR;
    if (key_is(call, "panic")) {
        host->error(host->context, str("index out of bounds"));
        return SKW_PANIC;
    }
    if (key_is(call, "strange")) return 42;
    if (key_is(call, "chatty")) {
        host->log(host->context, 2, str("a warning"));
        host->log(host->context, 4, str("not UTF-8: \xff"));
        host->progress(host->context, 0.25);
        host->progress(host->context, 7.0);
    }
    if (host->cancelled(host->context)) return SKW_CANCELLED;
    if (call->masks) {
        for (uint64_t k = 0; k < call->expert_count; k++) memset(call->masks[k], 0xff, (call->len + 7) / 8);
        return SKW_OK;
    }
    for (uint64_t i = 0; i < call->len; i++) {
        float sum = 0;
        for (uint64_t k = 0; k < call->expert_count; k++) {
            const skw_tensor *expert = skw_expert(call, k);
            if (expert->statistics) sum += expert->statistics[i] * (float)expert->statistics_len;
            if (expert->dense) {
                sum += expert->dense[i];
                continue;
            }
            uint64_t columns = call->shape[1], row = (call->offset + i) / columns, column = (call->offset + i) % columns;
            for (uint64_t r = 0; r < expert->rank; r++)
                sum += expert->b[row * expert->rank + r] * expert->a[r * columns + column];
        }
        call->out[i] = sum / (float)call->expert_count * (float)call->params->global[0];
        if (call->base) call->out[i] += call->base[i];
    }
    return SKW_OK;
}

static int32_t rescale(const skw_call *call, float *rescalers) {
    for (uint64_t k = 0; k < call->expert_count; k++) rescalers[k] = (float)(call->totals[0] / call->totals[1]);
    return SKW_OK;
}

static const skw_method the_method = {
    METHOD_SIZE, KIND, SKW_STR(ID), SKW_STR(VERSION), SKW_STR("Mean, for tests"), SKW_STR(""), SKW_STR(SCHEMA),
    SKW_STR(MASK), MIN_EXPERTS, MAX_EXPERTS, FLAGS, 0, plan, OBSERVE, RUN, RESCALE, CUDA};

#ifdef NULL_METHOD
static const skw_method *method(uint32_t index) {
    (void)index;
    return NULL;
}
#elif defined(NEWER)
/* What a host of version 1.0 sees of a plugin of version 1.7: longer structs with unknown fields. */
static const struct {
    skw_method known;
    uint64_t unknown[4];
} longer = {
    {sizeof longer, KIND, SKW_STR(ID), SKW_STR(VERSION), SKW_STR("Mean"), SKW_STR(""), SKW_STR(SCHEMA), SKW_STR(MASK),
     MIN_EXPERTS, MAX_EXPERTS, FLAGS | 1ull << 60, 1ull << 60, plan, OBSERVE, RUN, RESCALE, CUDA},
    {1, 2, 3, 4}};

static const skw_method *method(uint32_t index) {
    (void)index;
    return &longer.known;
}
#else
static const skw_method *method(uint32_t index) {
    (void)index;
    return &the_method;
}
#endif

#ifdef NEWER
SKW_EXPORT const struct {
    skw_plugin known;
    uint64_t unknown[4];
} EXPORTED = {{MAGIC, sizeof EXPORTED, 7, HASH, COUNT, 0, method}, {1, 2, 3, 4}};
#else
SKW_EXPORT const skw_plugin EXPORTED = {MAGIC, PLUGIN_SIZE, SKW_ABI_MINOR, HASH, COUNT, 0, method};
#endif
