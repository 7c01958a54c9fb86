use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use skillweld_gpu::{Argument, Fork, GpuError, Launch, Memory, Result, Staging, Target};

/// Bytes before and after an allocation that no kernel may touch.
const GUARD_BYTES: usize = 256;
/// What they hold.
const GUARD: u8 = 0xa5;
/// What memory holds before it is written: NaN in every float format.
const POISON: u8 = 0xff;
/// How many barriers of one kernel are told apart.
const MOST_BARRIERS: usize = 256;

#[expect(unsafe_code, reason = "the emulation is C++")]
unsafe extern "C" {
    fn skillweld_emulate(
        name: *const c_char,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        threads: c_uint,
        shared_bytes: usize,
        cooperative: c_int,
        arguments: *const *mut c_void,
        argument_count: usize,
        seed: u64,
        dropped_line: c_int,
        lines: *mut c_int,
        line_count: *mut usize,
    ) -> c_int;
}

/// A GPU made of a CPU: kernels run one thread at a time, in an order drawn from a seed.
#[derive(Debug, Default)]
pub struct Emulator {
    seed: Cell<u64>,
    dropped: Option<(String, i32)>,
    barriers: RefCell<BTreeSet<(String, i32)>>,
    /// What was asked for since a recording began.
    recording: RefCell<Option<Vec<Recorded>>>,
}

/// One entry of a recording.
#[derive(Debug)]
enum Recorded {
    Launch {
        kernel: String,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        arguments: Vec<Argument>,
        cooperative: bool,
    },
    Fill {
        address: u64,
        bytes: usize,
        byte: u8,
    },
}

impl Emulator {
    /// One that draws the order of threads from this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed: Cell::new(seed), ..Self::default() }
    }

    /// One for which a kernel's barrier does nothing: that on this line of its source. For tests of the tests.
    pub fn without_barrier(seed: u64, kernel: &str, line: i32) -> Self {
        Self { dropped: Some((kernel.to_owned(), line)), ..Self::new(seed) }
    }

    /// As a driver, which may not be asked for such things while it records.
    fn not_recording(&self, what: &str) -> Result<()> {
        if self.recording.borrow().is_none() {
            return Ok(());
        }
        Err(GpuError::Emulation { kernel: what.to_owned(), problem: "asked for while recording".to_owned() })
    }

    /// The barriers that were reached so far: kernel and line.
    pub fn barriers(&self) -> BTreeSet<(String, i32)> {
        self.barriers.borrow().clone()
    }
}

/// What an [`Emulator`] recorded.
#[derive(Debug)]
pub struct Recording(Vec<Recorded>);

/// Memory of an [`Emulator`].
#[derive(Debug)]
pub struct EmulatedMemory {
    // Of 256-byte blocks for their alignment, which a driver promises.
    blocks: Vec<Block>,
    byte_len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(256))]
struct Block(#[expect(dead_code, reason = "read as bytes only")] [u8; GUARD_BYTES]);

impl EmulatedMemory {
    fn new(byte_len: usize) -> Self {
        let inner = byte_len.div_ceil(GUARD_BYTES);
        let mut memory = Self { blocks: vec![Block([GUARD; GUARD_BYTES]); inner + 2], byte_len };
        memory.bytes_mut().fill(POISON);
        memory
    }

    fn all(&self) -> &[u8] {
        // SAFETY: blocks are plain bytes without padding.
        #[expect(unsafe_code, reason = "a view of the same bytes")]
        unsafe {
            std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.blocks.len() * GUARD_BYTES)
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `all`, and borrowed mutably.
        #[expect(unsafe_code, reason = "a view of the same bytes")]
        let all = unsafe {
            std::slice::from_raw_parts_mut(
                self.blocks.as_mut_ptr().cast::<u8>(),
                self.blocks.len() * GUARD_BYTES,
            )
        };
        &mut all[GUARD_BYTES..GUARD_BYTES + self.byte_len]
    }

    /// Whether something wrote beside the memory.
    fn overrun(&self) -> bool {
        let (before, rest) = self.all().split_at(GUARD_BYTES);
        before.iter().chain(&rest[self.byte_len..]).any(|&byte| byte != GUARD)
    }
}

impl Memory for EmulatedMemory {
    fn address(&self) -> u64 {
        self.blocks.as_ptr() as u64 + GUARD_BYTES as u64
    }

    fn byte_len(&self) -> usize {
        self.byte_len
    }
}

/// Memory from which an [`Emulator`] copies at once: it does nothing beside the host.
#[derive(Debug)]
pub struct EmulatedStaging(Vec<u8>);

impl Staging for EmulatedStaging {
    fn bytes(&self) -> Result<&[u8]> {
        Ok(&self.0)
    }

    fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        Ok(&mut self.0)
    }
}

/// An [`Emulator`] a thread, each with another order of threads.
#[derive(Debug, Default)]
pub struct Emulators {
    next_seed: AtomicU64,
}

impl Fork for Emulators {
    type Target = Emulator;

    fn fork_target(&self) -> Result<Emulator> {
        Ok(Emulator::new(self.next_seed.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Target for Emulator {
    type Memory = EmulatedMemory;
    type Staging = EmulatedStaging;
    type Recording = Recording;

    fn allocate(&self, bytes: usize) -> Result<EmulatedMemory> {
        self.not_recording("an allocation")?;
        Ok(EmulatedMemory::new(bytes))
    }

    fn upload(&self, to: &mut EmulatedMemory, offset: usize, bytes: &[u8]) -> Result<()> {
        self.not_recording("an upload")?;
        to.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, from: &EmulatedMemory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.not_recording("a download")?;
        if from.overrun() {
            let problem = "something was written beside an array".to_owned();
            return Err(GpuError::Emulation { kernel: "one of those before".to_owned(), problem });
        }
        bytes.copy_from_slice(&from.all()[GUARD_BYTES + offset..][..bytes.len()]);
        Ok(())
    }

    fn stage(&self, bytes: usize) -> Result<EmulatedStaging> {
        Ok(EmulatedStaging(vec![POISON; bytes]))
    }

    fn upload_staged(
        &self,
        to: &mut EmulatedMemory,
        offset: usize,
        from: &mut EmulatedStaging,
        range: Range<usize>,
    ) -> Result<()> {
        self.upload(to, offset, &from.0[range])
    }

    fn download_staged(
        &self,
        from: &EmulatedMemory,
        range: Range<usize>,
        to: &mut EmulatedStaging,
        offset: usize,
    ) -> Result<()> {
        self.download(from, range.start, &mut to.0[offset..offset + range.len()])
    }

    fn fill(&self, memory: &mut EmulatedMemory, byte: u8) -> Result<()> {
        if let Some(recorded) = self.recording.borrow_mut().as_mut() {
            recorded.push(Recorded::Fill { address: memory.address(), bytes: memory.byte_len(), byte });
            return Ok(());
        }
        memory.bytes_mut().fill(byte);
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.not_recording("waiting")
    }

    fn begin_recording(&self) -> Result<()> {
        self.not_recording("a recording")?;
        *self.recording.borrow_mut() = Some(Vec::new());
        Ok(())
    }

    fn end_recording(&self) -> Result<Recording> {
        Ok(Recording(self.recording.take().unwrap_or_default()))
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        for recorded in &recording.0 {
            match recorded {
                Recorded::Launch { kernel, grid, threads, shared_bytes, arguments, cooperative } => {
                    let (grid, threads, shared_bytes, cooperative) =
                        (*grid, *threads, *shared_bytes, *cooperative);
                    let launch = Launch { kernel, grid, threads, shared_bytes, cooperative, arguments };
                    // SAFETY: who asked for it promised that it fits, and who replays that its memory is still there.
                    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
                    unsafe {
                        self.launch(&launch)?;
                    }
                }
                Recorded::Fill { address, bytes, byte } => {
                    // SAFETY: who replays promises that the memory is still there, and nothing else runs now.
                    #[expect(unsafe_code, reason = "memory by its address")]
                    unsafe {
                        std::ptr::write_bytes(*address as *mut u8, *byte, *bytes);
                    }
                }
            }
        }
        Ok(())
    }

    fn resident_blocks(&self, _kernel: &str, _threads: u32, _shared_bytes: u32) -> Result<u32> {
        // Few, so that a loop over more work than that runs more than once.
        Ok(4)
    }

    fn resident_blocks_in(
        &self,
        _image: &'static [u8],
        kernel: &str,
        threads: u32,
        shared_bytes: u32,
    ) -> Result<u32> {
        self.resident_blocks(kernel, threads, shared_bytes)
    }

    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch_in(&self, _image: &'static [u8], launch: &Launch<'_>) -> Result<()> {
        // The emulation knows every kernel of this repository by its name, wherever its image lies.
        // SAFETY: the caller's promise.
        unsafe { self.launch(launch) }
    }

    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        if let Some(recorded) = self.recording.borrow_mut().as_mut() {
            let Launch { kernel, grid, threads, shared_bytes, cooperative, arguments } = *launch;
            let (kernel, arguments) = (kernel.to_owned(), arguments.to_vec());
            recorded.push(Recorded::Launch { kernel, grid, threads, shared_bytes, arguments, cooperative });
            return Ok(());
        }
        let failed = |problem: &str| GpuError::Emulation {
            kernel: launch.kernel.to_owned(),
            problem: problem.to_owned(),
        };
        let name = CString::new(launch.kernel).map_err(|_| failed("a name with a zero in it"))?;
        let arguments: Vec<*mut c_void> =
            launch.arguments.iter().map(skillweld_gpu::Argument::as_ptr).collect();
        let dropped = match &self.dropped {
            Some((kernel, line)) if kernel == launch.kernel => *line,
            _ => 0,
        };
        let mut lines = [0; MOST_BARRIERS];
        let mut line_count = lines.len();
        let [x, y, z] = launch.grid;
        let seed = self.seed.replace(self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        // SAFETY: the caller promised that the arguments fit the kernel, the emulation checks their number, and all
        // pointers are of values that outlive the call.
        let status = unsafe {
            skillweld_emulate(
                name.as_ptr(),
                x,
                y,
                z,
                launch.threads,
                launch.shared_bytes as usize,
                c_int::from(launch.cooperative),
                arguments.as_ptr(),
                arguments.len(),
                seed,
                dropped,
                lines.as_mut_ptr(),
                &raw mut line_count,
            )
        };
        let lines = lines[..line_count].iter().map(|&line| (launch.kernel.to_owned(), line));
        self.barriers.borrow_mut().extend(lines);
        match status {
            0 => Ok(()),
            1 => Err(GpuError::NoKernel { kernel: launch.kernel.to_owned() }),
            2 => Err(failed("launched with more threads than it is compiled for")),
            3 => Err(failed("launched with another number of arguments than it has parameters")),
            _ => Err(failed("its threads wait for each other for ever")),
        }
    }
}
