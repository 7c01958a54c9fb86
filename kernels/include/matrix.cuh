// Matrix units, and copies that run beside them: what PTX offers from sm_80 on, and the same for the emulation.
#pragma once

#include "numbers.cuh"

// Fragments of a warp's product C (16×8, f32) += A (16×16, bf16) · B (16×8, bf16). With g = lane / 4 and t = lane % 4:
// A.word[0] is A[g][2t, 2t+1], word[1] row g + 8, word[2] columns + 8, word[3] both; B.word[0] is B[2t, 2t+1][g], word[1]
// rows + 8; C.value[0, 1] is C[g][2t, 2t+1], value[2, 3] row g + 8.
struct FragmentA {
    uint32_t word[4];
};
struct FragmentB {
    uint32_t word[2];
};
struct FragmentC {
    float value[4];
};

__device__ __forceinline__ void multiply_add(FragmentC &c, const FragmentA &a, const FragmentB &b) {
#ifdef SKILLWELD_EMULATED
    struct Both {
        FragmentA a;
        FragmentB b;
    };
    const Both mine = {a, b};
    Both all[32];
    emulation::exchange(WHOLE_WARP, &mine, sizeof mine, reinterpret_cast<uint64_t *>(all));
    const unsigned lane = emulation::lane(), g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        float sum = c.value[i];
        for (unsigned k = 0; k < 16; k++) {
            const uint32_t a_word = all[row % 8 * 4 + k % 8 / 2].a.word[row / 8 + k / 8 * 2];
            const uint32_t b_word = all[column * 4 + k % 8 / 2].b.word[k / 8];
            sum += Bf16::widen(uint16_t(a_word >> (k % 2 * 16))) * Bf16::widen(uint16_t(b_word >> (k % 2 * 16)));
        }
        c.value[i] = sum;
    }
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
#endif
}

// Reads four 8×8 matrices of bf16 from shared memory: lane 8m + r gives where row r of matrix m begins (16 bytes, aligned).
// Lane's word[m] is elements [lane / 4][2t, 2t+1] of matrix m; with `transposed`, [2t, 2t+1][lane / 4].
template <bool transposed>
__device__ __forceinline__ void load_matrices(uint32_t (&word)[4], const void *row) {
#ifdef SKILLWELD_EMULATED
    uint64_t rows[32];
    emulation::exchange(WHOLE_WARP, &row, 8, rows);
    const unsigned lane = emulation::lane(), g = lane / 4, t = lane % 4;
    for (unsigned m = 0; m < 4; m++) {
        auto element = [&](unsigned r, unsigned c) {
            return uint32_t(reinterpret_cast<const uint16_t *>(rows[8 * m + r])[c]);
        };
        word[m] = transposed ? element(2 * t, g) | element(2 * t + 1, g) << 16
                             : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
    }
    __syncwarp(); // no lane may go on to overwrite rows that others still read
#else
    const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                     : "r"(address)
                     : "memory");
#endif
}

// Starts copying 16 bytes to shared memory, or zeros if `present` is false. Both addresses are multiples of 16.
__device__ __forceinline__ void copy_async(void *shared, const void *global, bool present) {
#ifdef SKILLWELD_EMULATED
    Bytes16 value = {};
    if (present) value = *static_cast<const Bytes16 *>(global);
    *static_cast<Bytes16 *>(shared) = value;
#else
    const uint32_t address = uint32_t(__cvta_generic_to_shared(shared));
    const uint32_t bytes = present ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
#endif
}

// Closes a group of copies.
__device__ __forceinline__ void copy_group() {
#ifndef SKILLWELD_EMULATED
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `pending` of this thread's groups are under way. Other threads see the bytes after a barrier.
template <int pending>
__device__ __forceinline__ void copy_wait() {
#ifndef SKILLWELD_EMULATED
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}
