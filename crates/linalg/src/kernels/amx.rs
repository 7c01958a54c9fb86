//! Tiles of 16 rows by 64 bytes: 32 × 32 sums in four of AMX's eight tiles, two of x, two of the weight.
//!
//! Stable Rust has no intrinsics for AMX, so the instructions stand here as assembly: one routine, [`tile`]. Everything
//! around it is generic over that routine, so that the tests can put an emulation of the instructions in its place.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};

use half::bf16;

use super::{Block, COLUMNS};

/// Rows of a tile register, and of a band.
const TILE_ROWS: usize = 16;
/// Steps of k in a row of 64 bytes of x. A row of a weight's tile holds a pair of steps for 16 columns.
const TILE_STEPS: usize = 32;

/// One call of [`tile`]: 16 or 32 rows by 32 columns.
pub(super) struct Tile {
    /// Two bands (one, if not `tall`) of `steps` tiles, each 16 rows of 64 bytes, one after the other.
    pub(super) x: [*const bf16; 2],
    /// Two panels of as many tiles.
    pub(super) panels: [*const bf16; 2],
    /// At least 1.
    pub(super) steps: usize,
    /// 16 or 32 rows of 32 values, `out_stride` bytes apart.
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    pub(super) tall: bool,
    pub(super) accumulate: bool,
}

/// # Safety
/// [`available`] said yes, and `block` points to what [`Block`] says.
pub(super) unsafe fn block(block: &Block<bf16>) {
    /// Palette 1, all eight tiles 16 rows of 64 bytes: the layout that `ldtilecfg` reads.
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }
    const _: () = assert!(size_of::<Config>() == 64);
    static CONFIG: Config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    // SAFETY: the processor has AMX and the kernel lets us use it; CONFIG is valid for palette 1. No other code of this
    // process touches the tiles of this thread, and `tilerelease` gives them back.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly, preserves_flags));
        tiles(block, tile);
        asm!("tilerelease", options(nostack, nomem, preserves_flags));
    }
}

/// Calls `tile` for every 32 × 32 sums.
///
/// # Safety
/// `block` points to what [`Block`] says; `tile` does as [`tile`] does.
pub(super) unsafe fn tiles(block: &Block<bf16>, tile: unsafe fn(&Tile)) {
    // Columns outside: two panels stay in the first cache, and the bands stream past them from the second.
    for first in (0..block.columns).step_by(2 * COLUMNS) {
        for row in (0..block.rows).step_by(2 * TILE_ROWS) {
            block.fetch_next_panels(first, (row / (2 * TILE_ROWS), block.rows.div_ceil(2 * TILE_ROWS)));
            let tall = block.rows - row > TILE_ROWS;
            // SAFETY: the bands exist, panels come in twos, `out` has the bands' rows, and depth is a multiple of 32.
            unsafe {
                let x = block.x.add(row / TILE_ROWS * block.band_stride);
                let left = block.panels.add(first / COLUMNS * block.panel_stride);
                tile(&Tile {
                    x: [x, if tall { x.add(block.band_stride) } else { x }],
                    panels: [left, left.add(block.panel_stride)],
                    steps: block.depth / TILE_STEPS,
                    out: block.out.add(row * block.out_stride + first),
                    out_stride: block.out_stride * size_of::<f32>(),
                    tall,
                    accumulate: block.accumulate,
                });
            }
        }
    }
}

/// out (+)= x · panels in tiles 0–3 (left and right of the upper 16 rows, then of the lower), x in 4 and 5, panels in 6, 7.
///
/// # Safety
/// The tiles are configured as [`block`] does, and `t` points to what [`Tile`] says.
unsafe fn tile(t: &Tile) {
    if t.tall {
        // SAFETY: every load and store is 16 rows of 64 bytes within what `t` promises.
        unsafe {
            asm!(
                "test {accumulate:e}, {accumulate:e}",
                "jz 2f",
                "tileloadd tmm0, [{out} + {out_stride}*1]",
                "tileloadd tmm1, [{out} + {out_stride}*1 + 64]",
                "tileloadd tmm2, [{low_out} + {out_stride}*1]",
                "tileloadd tmm3, [{low_out} + {out_stride}*1 + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{x} + {row}*1]",
                "tileloadd tmm6, [{left} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {row}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{low_x} + {row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {x}, 1024",
                "add {low_x}, 1024",
                "add {left}, 1024",
                "add {right}, 1024",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{out} + {out_stride}*1], tmm0",
                "tilestored [{out} + {out_stride}*1 + 64], tmm1",
                "tilestored [{low_out} + {out_stride}*1], tmm2",
                "tilestored [{low_out} + {out_stride}*1 + 64], tmm3",
                accumulate = in(reg) u32::from(t.accumulate),
                out = in(reg) t.out,
                low_out = in(reg) t.out.byte_add(TILE_ROWS * t.out_stride),
                out_stride = in(reg) t.out_stride,
                x = inout(reg) t.x[0] => _,
                low_x = inout(reg) t.x[1] => _,
                left = inout(reg) t.panels[0] => _,
                right = inout(reg) t.panels[1] => _,
                row = in(reg) 64usize,
                steps = inout(reg) t.steps => _,
                options(nostack),
            );
        }
    } else {
        // SAFETY: every load and store is 16 rows of 64 bytes within what `t` promises.
        unsafe {
            asm!(
                "test {accumulate:e}, {accumulate:e}",
                "jz 2f",
                "tileloadd tmm0, [{out} + {out_stride}*1]",
                "tileloadd tmm1, [{out} + {out_stride}*1 + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "3:",
                "tileloadd tmm4, [{x} + {row}*1]",
                "tileloadd tmm6, [{left} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {row}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {x}, 1024",
                "add {left}, 1024",
                "add {right}, 1024",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{out} + {out_stride}*1], tmm0",
                "tilestored [{out} + {out_stride}*1 + 64], tmm1",
                accumulate = in(reg) u32::from(t.accumulate),
                out = in(reg) t.out,
                out_stride = in(reg) t.out_stride,
                x = inout(reg) t.x[0] => _,
                left = inout(reg) t.panels[0] => _,
                right = inout(reg) t.panels[1] => _,
                row = in(reg) 64usize,
                steps = inout(reg) t.steps => _,
                options(nostack),
            );
        }
    }
}

/// Whether the processor has AMX with bf16 and the operating system lets this process use it; asks for that.
pub(super) fn available() -> bool {
    // Leaf 1: the system saves extended state. Leaf 7: AMX with bf16, and tiles.
    #[allow(unused_unsafe, reason = "`cpuid` is a safe function in newer versions of Rust")]
    // SAFETY: every x86-64 processor has `cpuid`, and leaf 7 is asked for only where it exists.
    let there = unsafe {
        __cpuid(0).eax >= 7
            && __cpuid(1).ecx & (1 << 27) != 0
            && __cpuid_count(7, 0).edx & (1 << 22 | 1 << 24) == 1 << 22 | 1 << 24
    };
    there && system_saves_tiles() && system_permits_tiles()
}

/// XCR0 has the bits for the tiles' configuration (17) and data (18).
fn system_saves_tiles() -> bool {
    let low: u32;
    // SAFETY: `xgetbv` is allowed where leaf 1 has OSXSAVE, which the only caller has checked.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nostack, nomem, preserves_flags));
    }
    low & (0b11 << 17) == 0b11 << 17
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`: Linux wants to be asked, once a process, before tiles are used.
#[cfg(target_os = "linux")]
fn system_permits_tiles() -> bool {
    let result: isize;
    // SAFETY: the system call with this request takes a number, touches no memory of ours and needs no cleaning up.
    unsafe {
        asm!(
            "syscall",
            inout("rax") 158isize => result,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Nobody has tried AMX on other systems.
#[cfg(not(target_os = "linux"))]
fn system_permits_tiles() -> bool {
    false
}
