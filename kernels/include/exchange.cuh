// How blocks of a cooperative launch hand numbers to one another without a barrier: every word tells by itself whether it
// has arrived. Its last bit is a tag that changes each time the place is written anew, so a reader asks for the data until
// all tags are right. That saves what a barrier costs beside the data's own way: a fence, a counter, and asking for it.
//
// A place is written again only after everybody has read it, which the users' data flow must promise; there are two places
// for each number, used in turn, and `tag_of` the number of times they were used.
#pragma once

#include "numbers.cuh"

// Of use number `use`: which of the two places, and the tag. Places begin with the tag 1, all bits set.
__device__ __forceinline__ uint32_t place_of(uint32_t use) { return use & 1u; }
__device__ __forceinline__ uint32_t tag_of(uint32_t use) { return use >> 1 & 1u; }

// The number with its last bit, 2⁻²³ of it at most, replaced by the tag. Infinity may become NaN.
__device__ __forceinline__ uint32_t tagged(float value, uint32_t tag) { return (bits_of_float(value) & ~1u) | tag; }

__device__ __forceinline__ Bytes16 tagged_four(const float (&values)[4], uint32_t tag) {
    return Bytes16{tagged(values[0], tag), tagged(values[1], tag), tagged(values[2], tag), tagged(values[3], tag)};
}

__device__ __forceinline__ void store_strong(void *address, const Bytes16 &value) {
#ifdef SKILLWELD_EMULATED
    *static_cast<Bytes16 *>(address) = value;
#else
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.word[0]), "r"(value.word[1]),
                 "r"(value.word[2]), "r"(value.word[3])
                 : "memory");
#endif
}

__device__ __forceinline__ void store_strong(void *address, uint32_t value) {
#ifdef SKILLWELD_EMULATED
    *static_cast<uint32_t *>(address) = value;
#else
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
#endif
}

// Polls, half a microsecond each, after which a block counts as lost and the launch fails.
constexpr uint32_t MOST_POLLS = 1u << 23;

// Between two polls.
__device__ __forceinline__ void poll_again(uint32_t polls) {
#ifdef SKILLWELD_EMULATED
    (void)polls;
    emulation::pause();
#else
    if (polls > MOST_POLLS) __trap();
#endif
}

// Whether the last bits of some words are the tag, said as bit 0 of what `wrong_tags` gives: 0 if all are. `flip` is the tag
// in all bits.
__device__ __forceinline__ uint32_t wrong_tags(const Bytes16 &value, uint32_t flip) {
    return (value.word[0] ^ flip) | (value.word[1] ^ flip) | (value.word[2] ^ flip) | (value.word[3] ^ flip);
}

// All of a warp's lanes: waits for 16 bytes at each address that is `present`; what is not counts as zero, give or take a
// tag.
template <int COUNT>
__device__ __forceinline__ void receive(Bytes16 (&values)[COUNT], const float *const (&from)[COUNT],
                                        const bool (&present)[COUNT], uint32_t tag) {
    const uint32_t flip = 0u - tag;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        values[i] = Bytes16{tag, tag, tag, tag};
        if (present[i]) values[i] = load_strong(from[i]);
    }
    // What has arrived is not asked for again: polls of all blocks together are megabytes, and stand in the way of stores.
    for (uint32_t polls = 0;; polls++) {
        bool wrong[COUNT], any = false;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            wrong[i] = (wrong_tags(values[i], flip) & 1u) != 0;
            any |= wrong[i];
        }
        if (!any) break;
        poll_again(polls);
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (wrong[i]) values[i] = load_strong(from[i]);
    }
    __syncwarp();
}
