// The action expert's linear layers for its handful of rows: out = x Wᵀ + b with what stands before and after it,
//   plain:                 the queries of both groups,
//   residual + …:          after the attention,
//   ReLU(LayerNorm(x) …):  the feed-forward layer, and without ReLU the last one.
//
// Bound by latency: a layer's weights are 1.6 to 3.2 MB, less than a microsecond of memory. So every block takes few
// features, its blocks begin and load while the kernel before still runs (wait_for_kernel_before), its warps share the inputs, all weights are under way before the rows are asked for, and sums of warps meet in
// shared memory once (skinny.cuh).

#include "../include/skinny.cuh"

namespace {

constexpr uint32_t MOST_THREADS = 512;
constexpr uint32_t MOST_WARPS = MOST_THREADS / WARP;
constexpr uint32_t STEPS = 2; // of a warp that are under way together

struct Layer {
    const uint16_t *weights; // features × width
    const float *bias;
    const float *residual; // rows × features, or null
    const float *gain, *shift; // of the norm before it, or null
    float epsilon;
    uint32_t relu;
    uint32_t width, features;
};

// Block (b, r): features TILES · 8 · b … of rows 8 r …, in TILES · 64 threads or more. Shared memory: TILES · 64 sums a warp, then 8 moments a warp.
template <int TILES>
__device__ __forceinline__ void linear(const float *x, const Layer &layer, float *out, uint32_t rows) {
    SHARED_MEMORY(shared);
    const uint32_t warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint32_t g = lane / 4, t = lane % 4, row = blockIdx.y * ROWS + g;
    const uint32_t steps = (layer.width + INPUTS - 1) / INPUTS, first_feature = blockIdx.x * TILES * FEATURES;
    float *parts = reinterpret_cast<float *>(shared);
    Moments *moments = reinterpret_cast<Moments *>(parts + warps * TILES * ROWS * FEATURES);

    let_next_begin();
    const bool normed = layer.gain != nullptr;
    WeightStep weights[STEPS][TILES];
    RowStep gains[STEPS], shifts[STEPS];
    const auto load_round = [&](uint32_t first) {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) {
            const uint32_t step = first + i * warps;
#pragma unroll
            for (uint32_t tile = 0; tile < TILES; tile++)
                weights[i][tile] =
                    load_weights(layer.weights, layer.width, first_feature + tile * FEATURES + g, layer.features, step);
            gains[i] = load_rows(layer.gain, normed ? 1 : 0, layer.width, 0, step);
            shifts[i] = load_rows(layer.shift, normed ? 1 : 0, layer.width, 0, step);
        }
    };
    load_round(warp);
    // What this thread adds at the end.
    const uint32_t place = threadIdx.x % (ROWS * FEATURES);
    const uint32_t out_row = blockIdx.y * ROWS + place / FEATURES;
    const uint32_t out_feature = first_feature + threadIdx.x / (ROWS * FEATURES) * FEATURES + place % FEATURES;
    const bool writes = threadIdx.x < TILES * ROWS * FEATURES && out_row < rows && out_feature < layer.features;
    const uint64_t out_at = uint64_t(out_row) * layer.features + out_feature;
    float total = writes ? layer.bias[out_feature] : 0.0f;

    wait_for_kernel_before(); // it wrote x and residual, or read what is written here
    RowStep x_steps[STEPS];
    const auto load_rows_of = [&](uint32_t first) {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) x_steps[i] = load_rows<Order::FRESH>(x, rows, layer.width, row, first + i * warps);
    };
    load_rows_of(warp);
    if (writes && layer.residual != nullptr) total += layer.residual[out_at];

    Norm norm = {};
    if (normed) {
        Moments mine = {};
        for (uint32_t first = warp; first < steps; first += STEPS * warps) {
            if (first != warp) load_rows_of(first);
            bool present[STEPS];
            float count = 0.0f;
#pragma unroll
            for (uint32_t i = 0; i < STEPS; i++) {
                present[i] = INPUTS * (first + i * warps) + 8 * t < layer.width;
                count += present[i] ? 8.0f : 0.0f;
            }
            count = sum_of_four_lanes(count);
            const Moments more = moments_of(x_steps, present, count, 1.0f / count);
            mine = first == warp ? more : merge(mine, more);
        }
        if (t == 0) moments[warp * ROWS + g] = mine;
        __syncthreads(); // the moments of all warps are there
        norm = norm_of<MOST_WARPS>(moments, warps, 1.0f / float(layer.width), layer.epsilon);
        if (steps > STEPS * warps) load_rows_of(warp);
    }
    float sums[TILES][4] = {};
    for (uint32_t first = warp; first < steps; first += STEPS * warps) {
        if (first != warp) {
            load_round(first);
            load_rows_of(first);
        }
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) {
            if (normed) normalise(x_steps[i], norm, gains[i], shifts[i]); // past the end gain and shift are zero
            multiply_step(sums, x_steps[i], weights[i]);
        }
    }
    leave_sums(parts + warp * TILES * ROWS * FEATURES, sums);
    __syncthreads(); // the sums of all warps are there
    if (!writes) return;
#pragma unroll
    for (uint32_t other = 0; other < MOST_WARPS; other++)
        if (other < warps) total += parts[other * TILES * ROWS * FEATURES + threadIdx.x];
    out[out_at] = layer.relu != 0 ? fmaxf(total, 0.0f) : total;
}

} // namespace

#define EXPERT_LINEAR(TILES)                                                                                             \
    KERNEL(MOST_THREADS, expert_linear_##TILES,                                                                          \
           (const float *x, const uint16_t *weights, const float *bias, const float *residual, const float *gain,        \
            const float *shift, float epsilon, uint32_t relu, uint32_t rows, uint32_t width, uint32_t features, float *out)) { \
        linear<TILES>(x, Layer{weights, bias, residual, gain, shift, epsilon, relu, width, features}, out, rows);        \
    }

EXPERT_LINEAR(1)
EXPERT_LINEAR(2)
