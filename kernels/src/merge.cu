// One tensor from any number of experts in one pass, over a list of tensors in one launch: with x_k = Θ_k, or τ_k as it is stored,
// or Θ_k − Θ₀,
//
//   sum        λ · (Σ v_k) / d with v_k = w_k · x_k                                   (task arithmetic, linear)
//   consensus  λ · Σ of the v_k that have the sign of Σ v_k, or their weighted mean   (TIES); where that sum is zero, the sign
//              that most sums have, which a sweep of its own counts
//   largest    of the v_k that have the sign of Σ v_k the one of largest magnitude    (EMR)
//
// plus Θ₀ where it is asked for, rounded once. Before that an expert may be thinned out: trimmed to what `threshold` found,
// or to what random numbers keep (DARE).
//
// Bound by memory: (experts + 2) · T bytes an element. A thread takes eight elements; where random numbers are needed,
// those eight for which two calls of the generator give all numbers.
//
// compile with: -fmad=false (the CPU rounds every product too)

#include "../include/layouts.cuh"
#include "../include/pieces.cuh"
#include "../include/random.cuh"
#include "../include/searches.cuh"

namespace {

constexpr uint32_t THREADS = LAYOUT_THREADS;
constexpr uint64_t TILE = 8 * LAYOUT_ELEMENTS; // elements of a block, one layout after the other

// Bits of `flags`.
constexpr uint32_t SUBTRACT = 1; // x_k is what is stored less Θ₀
constexpr uint32_t ADD = 2; // Θ₀ is added in the end
constexpr uint32_t MEAN = 4; // consensus: divide by the sum of the weights that agree

// One tensor. Arrays begin on 16 bytes.
struct MergePiece {
    const void *base; // Θ₀; null with neither SUBTRACT nor ADD
    void *out;
    uint64_t numel;
    uint64_t first_tile; // tiles of the pieces before it
    uint64_t scope; // its searches are searches[scope · experts …]
    uint64_t seed; // of its random numbers
};

using Votes = long long;

// What every block is told.
struct MergeNumbers {
    const void *const *experts; // one a piece and expert
    const float *weights; // one an expert
    const Search *searches; // one a scope and expert
    const uint32_t *last; // one an expert: the largest random number that keeps an element
    Votes *votes; // one a scope: elements whose sum is positive less those whose sum is negative
    uint32_t count; // experts
    uint32_t flags;
    float divisor, lambda;
};

// What thins: one object for all experts, and in it one for each. `begin` comes before the elements of a thread, the first of
// which it is told.

template <class Layout>
struct KeepAll {
    __device__ __forceinline__ void begin(uint64_t) {}

    struct Expert {
        __device__ __forceinline__ void prepare(const MergeNumbers &, const MergePiece &, uint32_t) {}
        __device__ __forceinline__ void begin(uint64_t) {}
        __device__ __forceinline__ bool keeps(const KeepAll &, int, float) const { return true; }
    };
};

template <class Layout>
struct Trim {
    __device__ __forceinline__ void begin(uint64_t) {}

    struct Expert {
        float magnitude;
        __device__ __forceinline__ void prepare(const MergeNumbers &numbers, const MergePiece &piece, uint32_t k) {
            magnitude = numbers.searches[piece.scope * numbers.count + k].magnitude;
        }
        __device__ __forceinline__ void begin(uint64_t) {}
        __device__ __forceinline__ bool keeps(const Trim &, int, float value) const { return fabsf(value) >= magnitude; }
    };
};

// As Trim, but of those that equal the threshold it keeps the ones whose number is small enough. All experts take the same
// numbers, so that equal experts keep the same entries.
template <class Layout>
struct TrimSome {
    uint32_t numbers[Layout::COUNT];
    __device__ __forceinline__ void begin(uint64_t first) { Layout::draw(Random(0, 0), first, numbers); }

    struct Expert {
        float magnitude;
        uint32_t equal_below;
        __device__ __forceinline__ void prepare(const MergeNumbers &numbers, const MergePiece &piece, uint32_t k) {
            const Search &search = numbers.searches[piece.scope * numbers.count + k];
            magnitude = search.magnitude;
            equal_below = search.equal_below;
            if (!search.all_equal) return;
            // To keep all that equal a magnitude is to keep what is above the magnitude before it.
            magnitude = magnitude > 0.0f ? float_of_bits(bits_of_float(magnitude) - 1) : magnitude == 0.0f ? -1.0f : magnitude;
            equal_below = 0;
        }
        __device__ __forceinline__ void begin(uint64_t) {}
        __device__ __forceinline__ bool keeps(const TrimSome &all, int i, float value) const {
            const float size = fabsf(value);
            return size > magnitude || (size == magnitude && all.numbers[i] < equal_below);
        }
    };
};

template <class Layout>
struct Drop {
    __device__ __forceinline__ void begin(uint64_t) {}

    struct Expert {
        uint64_t seed;
        uint32_t stream, last;
        uint32_t kept; // a bit an element
        __device__ __forceinline__ void prepare(const MergeNumbers &numbers, const MergePiece &piece, uint32_t k) {
            seed = piece.seed;
            stream = k;
            last = numbers.last[k];
        }
        __device__ __forceinline__ void begin(uint64_t first) {
            uint32_t numbers[Layout::COUNT];
            Layout::draw(Random(seed, stream), first, numbers);
            kept = 0;
#pragma unroll
            for (int i = 0; i < Layout::COUNT; i++) kept |= uint32_t(numbers[i] <= last) << i;
        }
        __device__ __forceinline__ bool keeps(const Drop &, int i, float) const { return kept >> i & 1u; }
    };
};

// What joins the v_k of one element: from their sum, and with TWICE from each of them once more.

struct Sum {
    static constexpr bool TWICE = false;
    float sum;
    __device__ __forceinline__ void begin(float of_all, float) { sum = of_all; }
    __device__ __forceinline__ void add(float, float) {}
    __device__ __forceinline__ float finish(const MergeNumbers &numbers) const {
        return numbers.divisor == 1.0f ? sum : sum / numbers.divisor;
    }
};

struct Consensus {
    static constexpr bool TWICE = true;
    float sign, agreed, divisor;
    __device__ __forceinline__ void begin(float of_all, float zero_sum) {
        sign = of_all > 0.0f ? 1.0f : of_all < 0.0f ? -1.0f : zero_sum;
        agreed = 0.0f;
        divisor = 0.0f;
    }
    __device__ __forceinline__ void add(float value, float weight) {
        if (value * sign > 0.0f) {
            agreed += value;
            divisor += weight;
        }
    }
    __device__ __forceinline__ float finish(const MergeNumbers &numbers) const {
        // None, or weights that cancel, divide by 1.
        return numbers.flags & MEAN ? agreed / (divisor != 0.0f ? divisor : 1.0f) : agreed;
    }
};

// For the count of signs.
struct Vote {
    static constexpr bool TWICE = false;
    float sum;
    __device__ __forceinline__ void begin(float of_all, float) { sum = of_all; }
    __device__ __forceinline__ void add(float, float) {}
    __device__ __forceinline__ float finish(const MergeNumbers &) const { return sum > 0.0f ? 1.0f : sum < 0.0f ? -1.0f : 0.0f; }
};

struct Largest {
    static constexpr bool TWICE = true;
    float sum, largest;
    __device__ __forceinline__ void begin(float of_all, float) {
        sum = of_all;
        largest = 0.0f;
    }
    __device__ __forceinline__ void add(float value, float) {
        // Before any expert agreed it is zero, which is neither above nor below a value that agrees.
        if ((sum > 0.0f && value > largest) || (sum < 0.0f && value < largest)) largest = value;
    }
    __device__ __forceinline__ float finish(const MergeNumbers &) const { return largest; }
};

// One expert in a block's hands.
template <class Layout, class Thin>
struct Expert {
    const typename Layout::Stored *vector;
    float weight;
    typename Thin::Expert thin;

    __device__ __forceinline__ void prepare(const MergeNumbers &numbers, const MergePiece &piece, uint32_t index, uint32_t k) {
        vector = static_cast<const typename Layout::Stored *>(numbers.experts[uint64_t(index) * numbers.count + k]);
        weight = numbers.weights[k];
        thin.prepare(numbers, piece, k);
    }
    // v_k of the thread's element i.
    __device__ __forceinline__ float value(const Thin &all, int i, float stored, float subtracted) const {
        const float value = stored - subtracted;
        return thin.keeps(all, i, value) ? weight * value : 0.0f;
    }
};

// Few experts: their elements stay in registers. Those that there are not weigh nothing, which changes no sum.
template <class Layout, class Thin, class Join>
struct Few {
    static constexpr uint32_t MOST = 4;
    static constexpr int COUNT = Layout::COUNT;
    Expert<Layout, Thin> experts[MOST];

    __device__ __forceinline__ Few(const MergeNumbers &numbers, const MergePiece &piece, uint32_t index) {
#pragma unroll
        for (uint32_t k = 0; k < MOST; k++) {
            // The first expert's place again is a place that can be read.
            experts[k].prepare(numbers, piece, index, k < numbers.count ? k : 0);
            if (k >= numbers.count) experts[k].weight = 0.0f;
        }
    }

    __device__ __forceinline__ void join(const MergeNumbers &numbers, const MergePiece &, uint64_t at, const Thin &thin,
                                          const float (&subtracted)[COUNT], float zero_sum, float (&merged)[COUNT]) {
        Layout stored[MOST] = {};
        // All loads before the first use, so that they are under way together.
#pragma unroll
        for (uint32_t k = 0; k < MOST; k++)
            if (k < numbers.count) stored[k].load(experts[k].vector, at);
#pragma unroll
        for (uint32_t k = 0; k < MOST; k++)
            if (k < numbers.count) experts[k].thin.begin(at);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            float values[MOST], sum = 0.0f;
#pragma unroll
            for (uint32_t k = 0; k < MOST; k++) {
                values[k] = experts[k].value(thin, i, stored[k].value(i), subtracted[i]);
                sum += values[k];
            }
            Join joined;
            joined.begin(sum, zero_sum);
#pragma unroll
            for (uint32_t k = 0; k < MOST; k++) joined.add(values[k], experts[k].weight);
            merged[i] = joined.finish(numbers);
        }
    }
};

// Any number of experts, one after the other: what is needed twice comes from the cache the second time.
template <class Layout, class Thin, class Join>
struct Many {
    static constexpr int COUNT = Layout::COUNT;
    uint32_t index;

    __device__ __forceinline__ Many(const MergeNumbers &, const MergePiece &, uint32_t index) : index(index) {}

    // Calls `use` with the expert's weight, and the number and v_k of each of the thread's elements.
    template <class Use>
    __device__ __forceinline__ void for_each(const MergeNumbers &numbers, const MergePiece &piece, uint64_t at,
                                             const Thin &thin, const float (&subtracted)[COUNT], Use use) const {
#pragma unroll 2
        for (uint32_t k = 0; k < numbers.count; k++) {
            Expert<Layout, Thin> expert;
            expert.prepare(numbers, piece, index, k);
            Layout stored;
            stored.load(expert.vector, at);
            expert.thin.begin(at);
#pragma unroll
            for (int i = 0; i < COUNT; i++) use(expert.weight, i, expert.value(thin, i, stored.value(i), subtracted[i]));
        }
    }

    __device__ __forceinline__ void join(const MergeNumbers &numbers, const MergePiece &piece, uint64_t at, const Thin &thin,
                                          const float (&subtracted)[COUNT], float zero_sum, float (&merged)[COUNT]) const {
        float sums[COUNT] = {};
        for_each(numbers, piece, at, thin, subtracted, [&](float, int i, float value) { sums[i] += value; });
        Join joins[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) joins[i].begin(sums[i], zero_sum);
        if constexpr (Join::TWICE)
            for_each(numbers, piece, at, thin, subtracted,
                     [&](float weight, int i, float value) { joins[i].add(value, weight); });
#pragma unroll
        for (int i = 0; i < COUNT; i++) merged[i] = joins[i].finish(numbers);
    }
};

// The elements from `at` to `end` that are the thread's: stores what comes out, or with VOTES adds it up.
template <class Layout, class Thin, class Experts, bool VOTES>
__device__ __forceinline__ Votes join_elements(const MergeNumbers &numbers, const MergePiece &piece, uint32_t index,
                                               uint64_t at, uint64_t end) {
    using Stored = typename Layout::Stored;
    constexpr int COUNT = Layout::COUNT;
    Experts experts(numbers, piece, index);
    const Votes majority = VOTES ? 0 : numbers.votes[piece.scope];
    const float zero_sum = majority > 0 ? 1.0f : majority < 0 ? -1.0f : 0.0f;
    int32_t votes = 0;
#pragma unroll 1
    for (; at < end; at += LAYOUT_ELEMENTS) {
        Layout base;
        if (piece.base) base.load(static_cast<const Stored *>(piece.base), at);
        Thin thin;
        thin.begin(at);
        float theta[COUNT], subtracted[COUNT], merged[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            theta[i] = piece.base ? base.value(i) : 0.0f;
            subtracted[i] = numbers.flags & SUBTRACT ? theta[i] : 0.0f;
        }
        experts.join(numbers, piece, at, thin, subtracted, zero_sum, merged);
        if constexpr (VOTES) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) votes += int32_t(merged[i]);
        } else {
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                merged[i] *= numbers.lambda;
                if (numbers.flags & ADD) merged[i] += theta[i];
            }
            Layout::store(static_cast<Stored *>(piece.out), at, merged);
        }
    }
    return votes;
}

template <class Layout, class One, template <class> class Thin, class Join, template <class, class, class> class Experts,
          bool VOTES>
__device__ __forceinline__ void join(const MergePiece *pieces, uint32_t piece_count, const MergeNumbers &numbers) {
    const uint64_t tile = blockIdx.x;
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    const MergePiece piece = pieces[index];
    const uint64_t start = (tile - piece.first_tile) * TILE;
    const uint64_t whole = piece.numel / Layout::UNIT * Layout::UNIT;
    Votes votes = join_elements<Layout, Thin<Layout>, Experts<Layout, Thin<Layout>, Join>, VOTES>(
        numbers, piece, index, start + Layout::first(), min(whole, start + TILE));
    // The last block of a piece has the rest, too.
    const uint64_t last = whole + threadIdx.x;
    if (last < piece.numel && last < start + TILE)
        votes += join_elements<One, Thin<One>, Experts<One, Thin<One>, Join>, VOTES>(numbers, piece, index, last, piece.numel);
    if constexpr (VOTES) {
        for (uint32_t step = WARP / 2; step > 0; step /= 2) votes += __shfl_xor_sync(WHOLE_WARP, votes, step);
        unsigned long long *total = reinterpret_cast<unsigned long long *>(&numbers.votes[piece.scope]);
        if (threadIdx.x % WARP == 0) atomicAdd(total, static_cast<unsigned long long>(votes));
    }
}

} // namespace

#define JOIN(name, ...)                                                                                                   \
    KERNEL(THREADS, merge_##name,                                                                                          \
           (const MergePiece *pieces, uint32_t piece_count, const void *const *experts, const float *weights,              \
            const Search *searches, const uint32_t *last, Votes *votes, uint32_t count, uint32_t flags, float divisor,    \
            float lambda)) {                                                                                              \
        join<__VA_ARGS__>(pieces, piece_count,                                                                            \
                          MergeNumbers{experts, weights, searches, last, votes, count, flags, divisor, lambda});           \
    }

#define JOIN_NUMBER(name, suffix, Number, Layout, Thin, Joined, VOTES)                         \
    JOIN(name##_##suffix##_few, Layout<Number>, Single<Number>, Thin, Joined, Few, VOTES)      \
    JOIN(name##_##suffix##_many, Layout<Number>, Single<Number>, Thin, Joined, Many, VOTES)

#define JOIN_EACH(name, Layout, Thin, Joined, VOTES)            \
    JOIN_NUMBER(name, bf16, Bf16, Layout, Thin, Joined, VOTES)  \
    JOIN_NUMBER(name, f16, F16, Layout, Thin, Joined, VOTES)    \
    JOIN_NUMBER(name, f32, F32, Layout, Thin, Joined, VOTES)

JOIN_EACH(sum, Neighbours, KeepAll, Sum, false)
JOIN_EACH(sum_drop, Rows, Drop, Sum, false)
JOIN_EACH(consensus, Neighbours, Trim, Consensus, false)
JOIN_EACH(consensus_some, Rows, TrimSome, Consensus, false)
JOIN_EACH(consensus_drop, Rows, Drop, Consensus, false)
JOIN_EACH(largest, Neighbours, KeepAll, Largest, false)
JOIN_EACH(votes, Neighbours, Trim, Vote, true)
JOIN_EACH(votes_some, Rows, TrimSome, Vote, true)
