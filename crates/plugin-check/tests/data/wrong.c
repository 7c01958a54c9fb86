/* A correct merge method `mean` and a correct mask method, until a macro BREAK_... on the compiler's command line
 * makes it break one law. LAWS and FLAGS say what it claims. */
#include "skillweld_plugin.h"
#include <math.h>
#include <string.h>

#ifndef KIND
#define KIND SKW_KIND_MERGE
#endif
#ifndef LAWS
#define LAWS 0
#endif
#ifndef FLAGS
#define FLAGS (SKW_ELEMENTWISE | SKW_DETERMINISTIC)
#endif
#ifndef SCHEMA
#define SCHEMA "{\"type\":\"object\",\"properties\":{}}"
#endif

static skw_str str(const char *text) {
    skw_str s = {text, strlen(text)};
    return s;
}

/* One pass: Σ|x| over all experts. */
static int32_t plan(const skw_host *host, const skw_params *params, skw_plan *plan) {
    (void)host;
    (void)params;
    plan->passes = 1;
    plan->scope = SKW_SCOPE_TENSOR;
    plan->sums_len[0] = 1;
    plan->scratch_per_element = 1;
    return SKW_OK;
}

static float value(const skw_call *call, uint64_t k, uint64_t i) {
    const skw_tensor *expert = skw_expert(call, k);
    if (expert->dense) return expert->dense[i];
    uint64_t columns = call->shape[1], row = (call->offset + i) / columns, column = (call->offset + i) % columns;
    float sum = 0;
    for (uint64_t r = 0; r < expert->rank; r++)
        sum += expert->b[row * expert->rank + r] * expert->a[r * columns + column];
#ifdef BREAK_LOW_RANK
    return sum * 1.001f; /* say, the scale of the adapter applied twice */
#else
    return sum;
#endif
}

static int32_t observe(const skw_call *call, uint32_t pass, double *sums) {
    (void)pass;
#ifdef BREAK_TOTALS
    float sum = 0; /* f32 where f64 is due */
    for (uint64_t k = 0; k < call->expert_count; k++)
        for (uint64_t i = 0; i < call->len; i++) sum += fabsf(value(call, k, i));
    sums[0] += sum;
#elif defined(BREAK_TOTALS_OVERWRITTEN)
    sums[0] = 0;
    for (uint64_t k = 0; k < call->expert_count; k++)
        for (uint64_t i = 0; i < call->len; i++) sums[0] += fabs((double)value(call, k, i));
#else
    for (uint64_t k = 0; k < call->expert_count; k++)
        for (uint64_t i = 0; i < call->len; i++) sums[0] += fabs((double)value(call, k, i));
#endif
#ifdef BREAK_BOUNDS_SUMS
    sums[1] = 1;
#endif
    return SKW_OK;
}

static int32_t masks(const skw_call *call) {
    for (uint64_t k = 0; k < call->expert_count; k++)
        for (uint64_t i = 0; i < call->len; i++) {
            float tau = value(call, k, i), rest = call->merged[i] - tau;
            int keep = fabsf(tau) > 0.5f * fabsf(rest);
#ifdef BREAK_KEEPS_ITSELF
            keep = keep && fabsf(tau) > 1e-3f;
#endif
#ifdef BREAK_MASK_PERMUTATION
            keep = keep || k == 0;
#endif
            if (keep) call->masks[k][i / 8] |= (uint8_t)(1u << (i % 8));
        }
#ifdef BREAK_BOUNDS_MASK
    call->masks[0][(call->len + 7) / 8] = 0;
#endif
    return SKW_OK;
}

static int32_t run(const skw_call *call) {
    const skw_host *host = call->host;
    const uint64_t experts = call->expert_count;
    (void)host;
    if (KIND == SKW_KIND_MASK) return masks(call);
#ifdef BREAK_CANCELLATION
    if (host->cancelled(host->context)) {
        host->error(host->context, str("stopped"));
        return SKW_ERROR;
    }
#endif
#ifdef BREAK_ERRORS
    if (experts > 5) return SKW_ERROR; /* without a word */
#endif
#ifdef BREAK_EMPTY
    if (call->len == 0 && call->ndim == 3) {
        host->error(host->context, str("no elements"));
        return SKW_ERROR;
    }
#endif
#ifdef BREAK_THREADS
    static volatile float scratch[1 << 16]; /* "saves a parameter" */
#else
    float *scratch = call->scratch;
#endif
    for (uint64_t i = 0; i < call->len; i++) {
#ifdef BREAK_REPETITION
        scratch[i] += value(call, 0, i); /* never set to zero */
#else
        scratch[i] = value(call, 0, i);
#endif
    }
    for (uint64_t i = 0; i < call->len; i++) {
        float sum = scratch[i], positive = 0;
        for (uint64_t k = 1; k < experts; k++) sum += value(call, k, i);
        for (uint64_t k = 0; k < experts; k++) positive += fmaxf(value(call, k, i), 0.0f);
        (void)positive;
        float mean = sum / (float)experts;
#ifdef INTERPOLATE
        float t = (float)call->params->global[0];
        mean = (1 - t) * value(call, 0, i) + t * value(call, experts - 1, i);
#endif
#ifdef BREAK_FILLS_OUTPUT
        if (call->offset + i + 1 == call->numel && call->numel > 1) break;
#endif
#ifdef BREAK_FINITE
        if (sum == 0 && call->totals[0] > 0) mean = 1.0f / 0.0f;
#endif
#ifdef BREAK_PANICS
        if (fabsf(sum) > 1e30f) {
            host->error(host->context, str("attempt to add with overflow"));
            return SKW_PANIC;
        }
#endif
#ifdef BREAK_STATUS
        if (fabsf(sum) > 1e30f) return 17;
#endif
#ifdef BREAK_SEEDS
        mean += (float)(call->seed % 7);
#endif
#ifdef BREAK_BLOCKS
        if (i == 0) mean *= 2; /* i where offset + i is meant */
#endif
#ifdef BREAK_NON_FINITE
        if (isnan(mean)) mean = 0;
#endif
#ifdef BREAK_IDENTITY
        mean = sum;
#endif
#ifdef BREAK_PERMUTATION
        mean = 0.5f * mean + 0.5f * value(call, 0, i);
#endif
#ifdef BREAK_ENDPOINTS
        mean += 1e-5f * value(call, 0, i);
#endif
#ifdef BREAK_LINEARITY
        mean = positive;
#endif
#ifdef BREAK_HOMOGENEITY
        if (fabsf(mean) < 1e-3f) mean = 0;
#endif
#ifdef BREAK_ZERO
        mean += 1e-8f;
#endif
#ifdef BREAK_ZERO_BENT
        if (experts > 2) mean = positive;
#endif
#ifdef BREAK_SIGN
        mean = value(call, experts - 1, i);
#endif
        call->out[i] = mean;
    }
#ifdef BREAK_BOUNDS
    call->out[call->len] = 0;
#endif
#ifdef BREAK_BOUNDS_INPUT
    if (call->len > 0) ((float *)skw_expert(call, 0)->dense)[0] += 1;
#endif
#ifdef BREAK_BOUNDS_SCRATCH
    if (call->scratch) call->scratch[call->scratch_len] = 0;
#endif
    return SKW_OK;
}

static const skw_method the_method = {
    sizeof(skw_method), KIND, SKW_STR("mean"), SKW_STR("1.0.0"), SKW_STR("Mean, for tests"), SKW_STR(""),
    SKW_STR(SCHEMA), SKW_STR(""), 1, 0, FLAGS, LAWS, plan, observe, run, NULL, NULL};

static const skw_method *method(uint32_t index) {
    (void)index;
    return &the_method;
}

SKW_EXPORT const skw_plugin skillweld_plugin_v1 = {
    SKW_MAGIC, sizeof(skw_plugin), SKW_ABI_MINOR, SKW_LAYOUT_HASH, 1, 0, method};
