/* The mean of the task vectors, with one oddity from the compiler's command line: SLOW sleeps in every call, STUCK
 * does for an hour whatever signals come, LOOP never ends on long blocks and prints all the while, STUCK_LOADING does
 * not get past its initialiser, CRASH reads through a null pointer, WRONG counts the first expert twice, CHATTY logs and
 * prints, PANICKY fails on long blocks as a Rust plugin does that panics. */
#define _POSIX_C_SOURCE 199309L
#include "skillweld_plugin.h"
#include <stdio.h>
#include <time.h>

#if defined(SLOW) || defined(STUCK)
#define FLAGS (SKW_TASK_VECTORS | SKW_ELEMENTWISE | SKW_DETERMINISTIC)
#else
#define FLAGS (SKW_ELEMENTWISE | SKW_DETERMINISTIC)
#endif

#ifdef STUCK_LOADING
__attribute__((constructor)) static void load(void) {
    for (volatile int i = 0;; i++) {}
}
#endif

static int32_t run(const skw_call *call) {
#ifdef SLOW
    struct timespec wait = {0, 30 * 1000 * 1000};
    nanosleep(&wait, NULL);
#endif
#ifdef STUCK
    struct timespec hour = {3600, 0};
    puts("stuck");
    fflush(stdout);
    while (nanosleep(&hour, &hour) != 0) {}
#endif
#ifdef LOOP
    for (uint64_t i = 0; call->len > 100; i++) printf("still at it: %llu\n", (unsigned long long)i);
#endif
#ifdef PANICKY
    if (call->len > 100) {
        unsigned long long len = call->len;
        fprintf(stderr, "\nthread '<unnamed>' (%llu) panicked at src/lib.rs:20:9:\n", 1000 + len);
        fprintf(stderr, "index out of bounds: the len is %llu but the index is %llu\n", len, len);
        fprintf(stderr, "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n");
        skw_str message = SKW_STR("index out of bounds");
        call->host->error(call->host->context, message);
        return SKW_PANIC;
    }
#endif
#ifdef CRASH
    volatile float *nowhere = NULL;
    if (call->len > 100) call->out[0] = *nowhere;
#endif
#ifdef CHATTY
    printf("no newline here");
    fflush(stdout);
    skw_str line = SKW_STR("a word of warning");
    call->host->log(call->host->context, 2, line);
#endif
    for (uint64_t i = 0; i < call->len; i++) {
        float sum = 0;
        for (uint64_t k = 0; k < call->expert_count; k++) sum += skw_expert(call, k)->dense[i];
#ifdef WRONG
        sum += skw_expert(call, 0)->dense[i];
#endif
        call->out[i] = sum / (float)call->expert_count;
    }
    return SKW_OK;
}

static const skw_method odd = {
    sizeof(skw_method), SKW_KIND_MERGE, SKW_STR("odd"), SKW_STR("1.0.0"), SKW_STR("mean, for tests"), SKW_STR(""),
    SKW_STR("{\"type\":\"object\",\"properties\":{}}"), SKW_STR(""), 1, 0, FLAGS, SKW_LAW_PERMUTATION, NULL, NULL, run,
    NULL, NULL};

static const skw_method *method(uint32_t index) {
    (void)index;
    return &odd;
}

SKW_EXPORT const skw_plugin skillweld_plugin_v1 = {
    SKW_MAGIC, sizeof(skw_plugin), SKW_ABI_MINOR, SKW_LAYOUT_HASH, 1, 0, method};
