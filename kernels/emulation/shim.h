// CUDA's words for a compiler that has none: what a kernel needs to run on a CPU, one fiber a thread.
//
// Threads of a block run one at a time, each until it waits: at a barrier, in a warp's exchange, or for the grid. Who
// goes on is drawn from a seeded generator, so an order in which a missing barrier shows is soon found. Shared memory is
// poisoned before every block. A block that cannot go on is reported as a deadlock, not waited for.
//
// What this cannot show: races between warps that run at the same instant, the GPU's memory model, and time.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __constant__ static const

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulation {

template <class To, class From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

float float_of_half(uint16_t bits);
uint16_t half_of_float(float value);

// Where the running thread stands.
struct Position {
    dim3 thread, block, block_size, grid_size;
};
const Position &position();

unsigned char *shared_memory();

// Waits for every thread of the block. `line` names the barrier, so that a test can take it away.
void block_barrier(int line);
// Waits until `threads` threads of the block have come to barrier `id`; `line` as above.
void named_barrier(int line, unsigned id, unsigned threads);
// Waits for the lanes of `mask` in the running warp.
void warp_barrier(unsigned mask);
// Waits for every thread of the grid; only in cooperative launches.
void grid_barrier();
// Lets others run.
void pause();

// Leaves `bytes` of `mine`, at most EXCHANGE_WORDS words, for the lanes of `mask` to see, and copies what every one of
// them left to `all`, the same number of whole 8-byte words a lane.
constexpr size_t EXCHANGE_WORDS = 3;
void exchange(unsigned mask, const void *mine, size_t bytes, uint64_t *all);
unsigned lane();

template <class T>
inline T from_lane(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "at most eight bytes");
    uint64_t all[32] = {};
    exchange(mask, &value, sizeof value, all);
    T result;
    std::memcpy(&result, &all[source & 31u], sizeof result);
    return result;
}

// A kernel that can be launched by name.
struct Registered {
    template <class... Parameters>
    Registered(const char *name, unsigned threads, void (*kernel)(Parameters...)) {
        add(name, threads, sizeof...(Parameters), [kernel](void **arguments) {
            call(kernel, arguments, std::index_sequence_for<Parameters...>{});
        });
    }

  private:
    template <class... Parameters, size_t... Index>
    static void call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<Index...>) {
        kernel(*static_cast<std::remove_reference_t<Parameters> *>(arguments[Index])...);
    }
    static void add(const char *name, unsigned threads, size_t parameters, std::function<void(void **)> kernel);
};

} // namespace emulation

#define threadIdx (::emulation::position().thread)
#define blockIdx (::emulation::position().block)
#define blockDim (::emulation::position().block_size)
#define gridDim (::emulation::position().grid_size)

#define __syncthreads() ::emulation::block_barrier(__LINE__)
// As in platform.cuh.
#define sync_named(id, threads) ::emulation::named_barrier(__LINE__, id, threads)
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::warp_barrier(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { emulation::pause(); }

template <class T>
inline T __shfl_sync(unsigned mask, T value, unsigned source) {
    return emulation::from_lane(mask, value, source);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, unsigned by) {
    return emulation::from_lane(mask, value, emulation::lane() ^ by);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by) {
    unsigned source = emulation::lane() + by;
    return emulation::from_lane(mask, value, source < 32 ? source : emulation::lane());
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by) {
    unsigned lane = emulation::lane();
    return emulation::from_lane(mask, value, lane >= by ? lane - by : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool flag) {
    uint64_t mine = flag, all[32] = {};
    emulation::exchange(mask, &mine, sizeof mine, all);
    unsigned bits = 0;
    for (unsigned i = 0; i < 32; i++)
        if ((mask >> i & 1u) && all[i]) bits |= 1u << i;
    return bits;
}
inline bool __any_sync(unsigned mask, bool flag) { return __ballot_sync(mask, flag) != 0; }
inline bool __all_sync(unsigned mask, bool flag) { return __ballot_sync(mask, flag) == mask; }

// Only one thread runs at a time, so these need no more than they say.
template <class T>
inline T atomicAdd(T *at, T value) {
    T old = *at;
    *at = T(old + value);
    return old;
}
template <class T>
inline T atomicOr(T *at, T value) {
    T old = *at;
    *at = old | value;
    return old;
}
template <class T>
inline T atomicMax(T *at, T value) {
    T old = *at;
    if (value > old) *at = value;
    return old;
}
template <class T>
inline T atomicMin(T *at, T value) {
    T old = *at;
    if (value < old) *at = value;
    return old;
}
template <class T>
inline T atomicExch(T *at, T value) {
    T old = *at;
    *at = value;
    return old;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(unsigned bits) { return bits ? __builtin_clz(bits) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T>
inline T __ldg(const T *at) {
    return *at;
}
template <class T>
inline T min(T a, T b) {
    return a < b ? a : b;
}
template <class T>
inline T max(T a, T b) {
    return a > b ? a : b;
}
