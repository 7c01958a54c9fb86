// The K-th largest |τ| of every expert, exactly, without sorting: counts of magnitudes (as integers, magnitude.cuh) in an
// interval that narrows.
//
// A sample of the elements guesses an interval of few magnitudes that should hold the K-th largest; one sweep over
// everything then only compares, and counts the few elements that lie within. Where the sample misled, or magnitudes are
// too many for the bins (f32), later sweeps go on with what is left; blocks whose search has ended return at once. All is
// decided on the device, so that the sweeps are asked for together.
//
// Bound by memory: T bytes an element and expert a sweep; one sweep, mostly, of bf16 and f16, two of f32.

#include "../include/magnitude.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t ROUNDS = 4;
constexpr uint64_t CHUNK = uint64_t(THREADS) * ROUNDS * 8;
constexpr uint32_t BINS = 8192;

// One tensor.
struct ThresholdPiece {
    uint64_t numel;
    uint64_t first_tile; // chunks of the pieces before it
};

// Eight elements beside an interval: how many lie at or over it (in two halves of a word), and which within: bit j for
// element 2j, bit 16 + j for element 2j + 1.
struct Beside {
    uint32_t above_pairs, within;
};

// Two 16-bit magnitudes in one word, both compared by one subtraction: with bit 15 set before, it stays set exactly where
// the magnitude is not smaller.
template <class Number>
__device__ __forceinline__ Beside beside(const Eight<Number> &eight, uint32_t low, uint32_t high) {
    Beside result = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const uint32_t pair = (eight.half[0].word[j] & 0x7fff7fffu) | 0x80008000u;
        const uint32_t over = pair - high * 0x10001u, not_under = pair - low * 0x10001u;
        result.above_pairs += over >> 15 & 0x10001u;
        result.within |= (not_under & ~over & 0x80008000u) >> (15 - j);
    }
    return result;
}

template <>
__device__ __forceinline__ Beside beside<F32>(const Eight<F32> &eight, uint32_t low, uint32_t high) {
    Beside result = {};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t key = eight.half[i / 4].word[i % 4] & 0x7fffffffu;
        result.above_pairs += key >= high;
        result.within |= uint32_t(key - low < high - low) << (i / 2 + i % 2 * 16);
    }
    return result;
}

// Magnitude of element 2j (odd: 2j + 1), j not known to the compiler: chosen, so that elements stay in registers.
template <class Number>
__device__ __forceinline__ uint32_t key_of(const Eight<Number> &eight, uint32_t j, uint32_t odd) {
    uint32_t pair = eight.half[0].word[0];
#pragma unroll
    for (uint32_t i = 1; i < 4; i++)
        if (i == j) pair = eight.half[0].word[i];
    return pair >> (odd * 16) & 0x7fffu;
}

template <>
__device__ __forceinline__ uint32_t key_of<F32>(const Eight<F32> &eight, uint32_t j, uint32_t odd) {
    const uint32_t element = 2 * j + odd;
    uint32_t key = eight.half[0].word[0];
#pragma unroll
    for (uint32_t i = 1; i < 8; i++)
        if (i == element) key = eight.half[i / 4].word[i % 4];
    return key & 0x7fffffffu;
}

// Smallest shift that lets an interval have few enough bins.
__device__ __forceinline__ uint32_t shift_for(uint32_t low, uint32_t high) {
    uint32_t shift = 0;
    while ((high - low - 1) >> shift >= BINS) shift++;
    return shift;
}

// Adds every `stride`-th chunk of the pieces to the counts of the searches: `above` those at or over the interval, `bins`
// those within. Blocks in y are experts.
template <class Number>
__device__ __forceinline__ void count(const ThresholdPiece *pieces, uint32_t piece_count, const void *const *vectors,
                                      uint32_t per_piece, const Search *searches, unsigned long long *above,
                                      unsigned long long *bins, uint32_t stride, uint64_t chunk_count) {
    using Stored = typename Number::Stored;
    SHARED_MEMORY(shared);
    unsigned int *own_bins = reinterpret_cast<unsigned int *>(shared);
    const uint32_t experts = gridDim.y, expert = blockIdx.y;
    uint32_t current = 0xffffffffu, bin_count = 0;
    uint32_t own_above = 0; // of one thread: far fewer than 2³²
    Search search = {};

    // Hands over what was counted for the current search.
    auto flush = [&] {
        __syncthreads();
        for (uint32_t bin = threadIdx.x; bin < bin_count; bin += THREADS)
            if (own_bins[bin] != 0)
                atomicAdd(&bins[uint64_t(current) * BINS + bin], static_cast<unsigned long long>(own_bins[bin]));
        unsigned long long sum = own_above;
        for (uint32_t step = WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
        if (threadIdx.x % WARP == 0 && sum != 0) atomicAdd(&above[current], sum);
        own_above = 0;
    };

    for (uint64_t chunk = uint64_t(blockIdx.x) * stride; chunk < chunk_count; chunk += uint64_t(gridDim.x) * stride) {
        const uint32_t index = piece_of_tile(pieces, piece_count, chunk);
        const ThresholdPiece piece = pieces[index];
        const uint32_t wanted = per_piece ? index * experts + expert : expert;
        if (wanted != current) {
            if (bin_count != 0) flush();
            current = wanted;
            search = searches[current];
            bin_count = search.found ? 0 : ((search.high - search.low - 1) >> search.shift) + 1;
            // No barrier before: a thread sets those to zero that it handed over itself.
            for (uint32_t bin = threadIdx.x; bin < bin_count; bin += THREADS) own_bins[bin] = 0;
            __syncthreads();
        }
        if (bin_count == 0) {
            if (!per_piece) return;
            continue;
        }
        const uint32_t low = search.low, high = search.high, shift = search.shift;
        const Stored *vector = static_cast<const Stored *>(vectors[uint64_t(index) * experts + expert]);
        const uint64_t first = (chunk - piece.first_tile) * CHUNK + threadIdx.x * 8;
        Eight<Number> eights[ROUNDS];
#pragma unroll
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t at = first + uint64_t(round) * THREADS * 8;
            if (at < piece.numel) eights[round] = load_eight<Number>(vector, at, piece.numel);
        }
#pragma unroll
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t at = first + uint64_t(round) * THREADS * 8;
            if (at >= piece.numel) continue;
            Beside found = beside<Number>(eights[round], low, high);
            own_above += (found.above_pairs & 0xffffu) + (found.above_pairs >> 16);
            if (at + 8 > piece.numel) // what was read past the end is no element
                for (uint32_t i = uint32_t(piece.numel - at); i < 8; i++) found.within &= ~(1u << (i / 2 + i % 2 * 16));
            // Few elements lie within.
            for (; found.within != 0; found.within &= found.within - 1) {
                const uint32_t bit = uint32_t(__ffs(int(found.within))) - 1;
                const uint32_t key = key_of<Number>(eights[round], bit % 16, bit / 16);
                atomicAdd(&own_bins[(key - low) >> shift], 1u);
            }
        }
    }
    if (bin_count != 0) flush();
}

// Draws the conclusion from the counts of one search (a block each), and leaves them zero. `sampled`: they are of a sample.
__device__ __forceinline__ void narrow(Search *searches, unsigned long long *above, unsigned long long *bins,
                                       uint32_t per_piece, uint32_t full, uint32_t sampled) {
    constexpr uint32_t EACH = BINS / THREADS;
    SHARED_MEMORY(shared);
    uint64_t *sums = reinterpret_cast<uint64_t *>(shared); // of each thread's bins
    Search search = searches[blockIdx.x];
    if (search.found) return;
    unsigned long long *mine = bins + uint64_t(blockIdx.x) * BINS;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < EACH; i++) sum += mine[threadIdx.x * EACH + i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint64_t total = above[blockIdx.x];
        for (uint32_t i = 0; i < THREADS; i++) total += sums[i];
        // From the top down: the bin in which the count reaches `target`, and the count before it. BINS: not reached.
        auto reach = [&](uint64_t target, uint64_t &before) {
            before = above[blockIdx.x];
            for (uint32_t group = THREADS; group-- > 0;) {
                if (before + sums[group] < target) {
                    before += sums[group];
                    continue;
                }
                for (uint32_t bin = (group + 1) * EACH; bin-- > group * EACH;) {
                    if (before + mine[bin] >= target) return bin;
                    before += mine[bin];
                }
            }
            return BINS;
        };
        const uint32_t low = search.low, high = search.high, shift = search.shift;
        uint64_t before;
        if (sampled) {
            // Five standard deviations to both sides of where the sample has its K-th largest.
            const double share = double(search.rank) / double(search.numel);
            const double margin = 5.0 * sqrt(double(total) * share * (1.0 - share)) + 2.0;
            const double middle = double(total) * share;
            const uint32_t lowest = reach(uint64_t(middle + margin) + 1, before);
            const uint32_t highest = middle - margin < 1.0 ? BINS : reach(uint64_t(middle - margin), before);
            if (lowest != BINS) search.low = low + (lowest << shift);
            if (highest != BINS) search.high = min(high, low + ((highest + 1) << shift));
        } else if (search.rank <= above[blockIdx.x]) {
            search.low = high; // all that is looked for lies over the interval
            search.high = full;
        } else if (search.rank > total) {
            search.high = low; // or under it
            search.low = 0;
        } else {
            const uint32_t bin = reach(search.rank, before);
            search.low = low + (bin << shift);
            search.high = min(high, search.low + (1u << shift));
            if (shift == 0) {
                search.found = 1;
                search.threshold.key = search.low;
                const uint64_t rank = search.rank - before, equal = mine[bin];
                search.threshold.below = per_piece && rank < equal
                                             ? uint64_t(double(rank) / double(equal) * 4294967296.0)
                                             : uint64_t(1) << 32;
            }
        }
        search.shift = shift_for(search.low, search.high);
        searches[blockIdx.x] = search;
    }
    __syncthreads();
    for (uint32_t i = 0; i < EACH; i++) mine[threadIdx.x * EACH + i] = 0;
    if (threadIdx.x == 0) above[blockIdx.x] = 0;
}

} // namespace

#define COUNT(suffix, Number)                                                                                            \
    KERNEL(THREADS, thresholds_count_##suffix,                                                                           \
           (const ThresholdPiece *pieces, uint32_t piece_count, const void *const *vectors, uint32_t per_piece,          \
            const Search *searches, unsigned long long *above, unsigned long long *bins, uint32_t stride,                \
            uint64_t chunk_count)) {                                                                                     \
        count<Number>(pieces, piece_count, vectors, per_piece, searches, above, bins, stride, chunk_count);              \
    }

COUNT(bf16, Bf16)
COUNT(f16, F16)
COUNT(f32, F32)

KERNEL(THREADS, thresholds_narrow,
       (Search * searches, unsigned long long *above, unsigned long long *bins, uint32_t per_piece, uint32_t full,
        uint32_t sampled)) {
    narrow(searches, above, bins, per_piece, full, sampled);
}
