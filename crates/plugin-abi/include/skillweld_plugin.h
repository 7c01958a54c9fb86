/* Skillweld plugin boundary, version 1.3. See crates/plugin-abi/src/lib.rs for the rules; the two are kept equal by
 * crates/plugin-abi/tests/header.rs. C99 or C++. A plugin is a shared library that exports
 *
 *     const skw_plugin skillweld_plugin_v1 = { SKW_MAGIC, sizeof(skw_plugin), SKW_ABI_MINOR, SKW_LAYOUT_HASH, ... };
 *
 * Everything is f32, row-major. The host owns all memory. Functions may be called from several threads at once and
 * must not keep state. SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef SKILLWELD_PLUGIN_H
#define SKILLWELD_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SKW_MAGIC 0x444C574C4C494B53ull /* "SKILLWLD", little-endian */
#define SKW_ABI_MINOR 3u
#define SKW_LAYOUT_HASH 0xd3890e536668d4b5ull
#define SKW_MAX_PASSES 8

/* skw_method.kind */
#define SKW_KIND_MERGE 1u /* experts -> one tensor or one task vector */
#define SKW_KIND_MASK 2u  /* expert task vectors and the merged one -> bits */

/* skw_method.flags */
#define SKW_TASK_VECTORS (1ull << 0)          /* experts are task vectors; the output is one too */
#define SKW_NEEDS_BASE (1ull << 1)            /* reads skw_call.base */
#define SKW_ELEMENTWISE (1ull << 2)           /* the host may cut tensors into blocks */
#define SKW_MATRIX (1ull << 3)                /* wants whole tensors */
#define SKW_LOW_RANK (1ull << 4)              /* accepts experts as factors B*A */
#define SKW_DETERMINISTIC (1ull << 5)         /* does not use skw_call.seed */
#define SKW_EMITS_MASKS (1ull << 6)           /* merge: belongs to skw_method.mask; mask: has rescalers */
#define SKW_PROPAGATES_NON_FINITE (1ull << 7) /* NaN and infinity in, NaN or infinity out */
#define SKW_OPTIONAL_BASE (1ull << 8)         /* 1.3; with SKW_TASK_VECTORS: weights where there is no base model */
#define SKW_ROWS (1ull << 9)                  /* the host may cut tensors between rows; a vector is one row */
#define SKW_NEEDS_STATISTICS (1ull << 10)     /* 1.3: merge: reads skw_tensor.statistics */
#define SKW_ANY_SHAPE (1ull << 11)            /* 1.3: with SKW_MATRIX: tensors of other than two dimensions too */

/* skw_method.laws: what skillweld plugins check may hold the method to */
#define SKW_LAW_IDENTITY (1ull << 0)       /* identical experts give that expert */
#define SKW_LAW_PERMUTATION (1ull << 1)    /* the order of experts does not matter */
#define SKW_LAW_ENDPOINTS (1ull << 2)      /* t = 0 gives the first, t = 1 the second */
#define SKW_LAW_LINEAR (1ull << 3)         /* merge(x + y) = merge(x) + merge(y) */
#define SKW_LAW_HOMOGENEOUS (1ull << 4)    /* merge(c x) = c merge(x), c > 0 */
#define SKW_LAW_ZERO (1ull << 5)           /* zero task vectors add nothing */
#define SKW_LAW_SIGN_AGREEMENT (1ull << 6) /* nonzero elements have the sign of the sum */
#define SKW_LAW_KEEPS_ITSELF (1ull << 7)   /* mask of a single expert keeps all its nonzero elements */

/* what functions return */
#define SKW_OK 0
#define SKW_ERROR 1
#define SKW_PANIC 2
#define SKW_CANCELLED 3

/* skw_plan.scope */
#define SKW_SCOPE_TENSOR 1u
#define SKW_SCOPE_GLOBAL 2u

typedef struct skw_str { /* UTF-8, not NUL-terminated */
    const char *ptr;
    size_t len;
} skw_str;

/* Wraps a string literal. */
#define SKW_STR(literal) { literal, sizeof(literal) - 1 }

typedef struct skw_host { /* callbacks, valid during the call */
    uint64_t size;
    void *context;
    void (*error)(void *context, skw_str message);
    void (*log)(void *context, uint32_t level, skw_str message); /* 1 error, 2 warning, 3 info, 4 debug */
    void (*progress)(void *context, double fraction);
    int32_t (*cancelled)(void *context); /* non-zero: return SKW_CANCELLED soon */
    void (*settled)(void *context);      /* 1.1, else NULL; in observe: the pass has nothing to add in any block */
    void (*path)(void *context, skw_str name); /* 1.3, else NULL; in run: how this tensor is computed, [a-z0-9_]+ */
} skw_host;

typedef struct skw_params { /* in the order of the schema; booleans 0 or 1, strings their position in enum */
    uint64_t size;
    const double *global;
    uint64_t global_count;
    const double *per_expert; /* [parameter * expert_count + expert] */
    uint64_t per_expert_count;
    uint64_t expert_count;
} skw_params;

typedef struct skw_plan { /* zeroed by the host, but for size */
    uint64_t size;
    uint32_t passes; /* of observe */
    uint32_t scope;  /* SKW_SCOPE_* of the totals */
    uint64_t sums_len[SKW_MAX_PASSES];
    uint64_t scratch_per_element; /* floats */
    uint64_t sample[SKW_MAX_PASSES]; /* 1.1: one element of so many is enough for the pass; 0 or 1: all */
    uint64_t whole; /* 1.3: non-zero with SKW_ELEMENTWISE: with these parameters tensors come in one piece */
} skw_plan;

typedef struct skw_tensor { /* one expert in a block: dense, or factors with SKW_LOW_RANK */
    const float *dense;
    const float *b; /* m x rank */
    const float *a; /* rank x n */
    uint64_t rank;
    const float *statistics; /* 1.3: SKW_NEEDS_STATISTICS: len values, or n x n with SKW_MATRIX and a tensor of m x n */
    uint64_t statistics_len;
} skw_tensor;

typedef struct skw_call {
    uint64_t size;
    const skw_host *host;
    const skw_params *params;
    skw_str key;
    const uint64_t *shape; /* of the whole tensor */
    uint64_t ndim;
    uint64_t numel;
    uint64_t offset; /* first element of this block; a multiple of 8 */
    uint64_t len;    /* elements in this block */
    uint64_t seed;   /* the same for every block of a tensor */
    uint64_t expert_count;
    const skw_tensor *experts; /* expert_stride bytes apart */
    uint64_t expert_stride;
    const float *base;    /* NULL unless SKW_NEEDS_BASE */
    const float *merged;  /* mask methods: the merged task vector */
    const double *totals; /* of all finished passes */
    uint64_t totals_len;
    float *out;            /* merge: len values to fill */
    uint8_t *const *masks; /* mask: expert_count times ceil(len / 8) zeroed bytes, element 8j + i is bit i of byte j */
    float *scratch;
    uint64_t scratch_len;
} skw_call;

#define SKW_CUDA_EXTENSION "skillweld.cuda/1"

typedef struct skw_cuda { /* a kernel that does what run does; skillweld_cuda.h is for its source */
    uint32_t size;    /* sizeof(skw_cuda) */
    uint32_t threads; /* of a block: a multiple of 32, at most 1024 */
    skw_str extension; /* SKW_CUDA_EXTENSION */
    const uint8_t *image; /* a fatbin */
    uint64_t image_len;
    skw_str run; /* the kernel's name; its parameter is a pointer to a skw_cuda_call */
} skw_cuda;

typedef struct skw_method {
    uint32_t size; /* sizeof(skw_method) */
    uint32_t kind;
    skw_str id;       /* [a-z0-9_]+ */
    skw_str version;  /* "1.0.0" */
    skw_str summary;  /* one line */
    skw_str citation; /* paper or source */
    skw_str schema;   /* JSON Schema of the parameters; "x-per-expert": true for one value an expert */
    skw_str mask;     /* SKW_EMITS_MASKS on a merge method: id of its mask method */
    uint32_t min_experts;
    uint32_t max_experts; /* 0: no limit */
    uint64_t flags;
    uint64_t laws;
    int32_t (*plan)(const skw_host *host, const skw_params *params, skw_plan *plan); /* NULL: no passes, no scratch */
    int32_t (*observe)(const skw_call *call, uint32_t pass, double *sums);           /* adds to sums */
    int32_t (*run)(const skw_call *call);
    int32_t (*rescale)(const skw_call *call, float *rescalers); /* mask: one factor an expert, from totals */
    const skw_cuda *cuda; /* 1.2: device code for run, or NULL; only with SKW_ELEMENTWISE */
} skw_method;

typedef struct skw_plugin {
    uint64_t magic; /* SKW_MAGIC */
    uint32_t size;  /* sizeof(skw_plugin) */
    uint32_t abi_minor;
    uint64_t layout_hash;
    uint32_t method_count;
    uint32_t reserved;
    const skw_method *(*method)(uint32_t index);
} skw_plugin;

/* The index-th expert of a call. */
static inline const skw_tensor *skw_expert(const skw_call *call, uint64_t index) {
    return (const skw_tensor *)((const char *)call->experts + index * call->expert_stride);
}

#if defined(_WIN32)
#define SKW_EXPORT __declspec(dllexport)
#else
#define SKW_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
}
#endif
#endif
