use std::ops::Range;

use skillweld_tensor::Dtype;

use crate::{Array, GpuError, Result};

/// Memory that kernels can reach, freed when dropped.
pub trait Memory: Send + Sync {
    /// Where it begins, as kernels see it; a multiple of 256.
    fn address(&self) -> u64;
    /// Its length.
    fn byte_len(&self) -> usize;
}

/// One argument of a kernel, of the type that its parameter has.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// A pointer, or a `uint64_t`.
    U64(u64),
    /// A `uint32_t`.
    U32(u32),
    /// An `int32_t`.
    I32(i32),
    /// A `float`.
    F32(f32),
}

/// One launch of one kernel.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// All blocks run at once and may wait for each other.
    pub cooperative: bool,
    /// One a parameter.
    pub arguments: &'a [Argument],
}

/// Memory of the host that a target copies from and to while the host goes on.
pub trait Staging: Send {
    /// Its bytes, once the copies that use it are done.
    ///
    /// # Errors
    /// Whatever failed on the target since the last time.
    fn bytes(&self) -> Result<&[u8]>;

    /// Its bytes, to write, once the copies that use it are done.
    ///
    /// # Errors
    /// Whatever failed on the target since the last time.
    fn bytes_mut(&mut self) -> Result<&mut [u8]>;
}

/// What gives every thread a target of its own, which works beside the others.
pub trait Fork: Sync {
    /// What it gives.
    type Target: Target;

    /// Another target.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    fn fork_target(&self) -> Result<Self::Target>;
}

/// Where kernels run, in the order in which they are asked for.
pub trait Target {
    /// Its memory.
    type Memory: Memory;
    /// The host's memory that it copies from and to by itself.
    type Staging: Staging;
    /// Launches recorded once, to be asked for again with one call.
    type Recording: Send;

    /// Memory whose bytes are not yet said.
    ///
    /// # Errors
    /// When there is not enough.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory>;

    /// Copies bytes to the memory, from byte `offset` on. They may be dropped when this returns.
    ///
    /// # Errors
    /// Bytes past the memory's end; whatever the driver refuses.
    fn upload(&self, to: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Waits for what was asked for, and copies from byte `offset` on.
    ///
    /// # Errors
    /// Bytes past the memory's end; whatever the driver refuses, which may be a kernel's failure.
    fn download(&self, from: &Self::Memory, offset: usize, bytes: &mut [u8]) -> Result<()>;

    /// Memory of the host for copies that nobody waits for. What it holds is not yet said.
    ///
    /// # Errors
    /// When there is not enough.
    fn stage(&self, bytes: usize) -> Result<Self::Staging>;

    /// Asks for a copy of these bytes of `from`, to byte `offset` of the memory.
    ///
    /// # Errors
    /// Bytes past an end; whatever the driver refuses.
    fn upload_staged(
        &self,
        to: &mut Self::Memory,
        offset: usize,
        from: &mut Self::Staging,
        range: Range<usize>,
    ) -> Result<()>;

    /// Asks for a copy of these bytes of the memory, to byte `offset` of `to`, after what was asked for until now.
    ///
    /// # Errors
    /// Bytes past an end; whatever the driver refuses.
    fn download_staged(
        &self,
        from: &Self::Memory,
        range: Range<usize>,
        to: &mut Self::Staging,
        offset: usize,
    ) -> Result<()>;

    /// Sets every byte.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    fn fill(&self, memory: &mut Self::Memory, byte: u8) -> Result<()>;

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// Whatever failed since the last time.
    fn synchronize(&self) -> Result<()>;

    /// From now on launches and fills are recorded, and nothing of them is done. Until [`Target::end_recording`] nothing may
    /// be allocated, freed, copied or waited for, by whatever thread.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    fn begin_recording(&self) -> Result<()>;

    /// What was recorded. Whoever replays it keeps alive, and leaves in place, all memory that it uses.
    ///
    /// # Errors
    /// Whatever the driver refuses, such as what may not be recorded; the recording has ended all the same.
    fn end_recording(&self) -> Result<Self::Recording>;

    /// Asks for all that was recorded, in order, after what was asked for until now.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;

    /// How many blocks of `threads` threads and `shared_bytes` each run at the same time: what a cooperative launch, or
    /// one that loops over its work, asks for.
    ///
    /// # Errors
    /// When there is no such kernel.
    fn resident_blocks(&self, kernel: &str, threads: u32, shared_bytes: u32) -> Result<u32>;

    /// As [`resident_blocks`](Self::resident_blocks), for a kernel of an image that the binary does not carry.
    ///
    /// # Errors
    /// When the image does not load, or holds no such kernel.
    fn resident_blocks_in(
        &self,
        image: &'static [u8],
        kernel: &str,
        threads: u32,
        shared_bytes: u32,
    ) -> Result<u32>;

    /// As [`launch`](Self::launch), for a kernel of an image that the binary does not carry.
    ///
    /// # Safety
    /// As for [`launch`](Self::launch).
    ///
    /// # Errors
    /// When the image does not load, or holds no such kernel; whatever the driver refuses.
    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch_in(&self, image: &'static [u8], launch: &Launch<'_>) -> Result<()>;

    /// Asks for a launch.
    ///
    /// # Safety
    /// The arguments are what the kernel's parameters are, every address in them is of live memory on this target as long
    /// as the kernel says it reads or writes, and what it writes is borrowed by nobody else.
    ///
    /// # Errors
    /// No such kernel; whatever the driver refuses.
    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// An array whose elements are not yet said.
    ///
    /// # Errors
    /// When there is not enough memory.
    fn array(&self, dtype: Dtype, numel: usize) -> Result<Array<Self::Memory>> {
        let bytes = dtype.byte_len(numel).ok_or_else(|| GpuError::Operands {
            operation: "allocate",
            problem: format!("{numel} elements of {dtype} are more than a machine can address"),
        })?;
        Ok(Array::new(self.allocate(bytes)?, dtype, numel))
    }

    /// An array with these little-endian elements.
    ///
    /// # Errors
    /// When there is not enough memory, or `bytes` is no whole number of elements.
    fn array_of(&self, dtype: Dtype, bytes: &[u8]) -> Result<Array<Self::Memory>> {
        let numel = bytes.len() * 8 / dtype.bits();
        let mut array = self.array(dtype, numel)?;
        self.upload(array.memory_mut(), 0, bytes)?;
        Ok(array)
    }

    /// The array's elements, little-endian.
    ///
    /// # Errors
    /// Whatever the driver refuses, which may be an earlier kernel's failure.
    fn read(&self, array: &Array<Self::Memory>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; array.byte_len()];
        self.download(array.memory(), 0, &mut bytes)?;
        Ok(bytes)
    }
}
