use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError, result};

use crate::loaded::{Image, Loaded};
use crate::{Argument, Fork, GpuError, Graph, Launch, Memory, PinnedMemory, Result, Target};

/// One GPU, and one stream on it: what is asked for is done in that order.
#[derive(Debug, Clone)]
pub struct Device {
    pub(crate) stream: Arc<CudaStream>,
    loaded: Arc<Loaded>,
}

/// Turns the driver's refusal into ours.
pub(crate) fn driver(operation: &str) -> impl FnOnce(DriverError) -> GpuError + '_ {
    move |error| GpuError::Driver {
        operation: operation.to_owned(),
        message: error
            .error_string()
            .map_or_else(|_| format!("{error:?}"), |text| text.to_string_lossy().into_owned()),
    }
}

impl Device {
    /// The GPU with this number, counted from 0.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] with the reason: no driver, no GPU, a driver too old for the kernels' images.
    pub fn open(ordinal: usize) -> Result<Device> {
        let unavailable = |reason: String| GpuError::Unavailable { reason };
        // Every call into cudarc without the library would panic, so this comes first.
        // SAFETY: only loads the driver's library, whose initialisers are the driver's own.
        #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
        let present = unsafe { sys::is_culib_present() };
        if !present {
            return Err(unavailable("no NVIDIA driver (libcuda) is installed".to_owned()));
        }
        result::init().map_err(|e| unavailable(format!("the driver does not start: {}", driver("")(e))))?;
        let count = CudaContext::device_count().map_err(driver("count the GPUs"))?;
        if usize::try_from(count).unwrap_or(0) <= ordinal {
            return Err(unavailable(format!(
                "the driver sees {count} GPUs, and number {ordinal} was asked for"
            )));
        }
        let context = CudaContext::new(ordinal).map_err(driver("open the GPU"))?;
        // One stream a device, and arrays that are borrowed while kernels use them: cudarc need not track either.
        // SAFETY: a `Device` uses its memory on its own stream only.
        #[expect(unsafe_code, reason = "promises what cudarc would otherwise track")]
        unsafe {
            context.disable_event_tracking();
        }
        let stream = context.new_stream().map_err(driver("make a stream"))?;
        let device = Device { stream, loaded: Arc::default() };
        device.check_image()?;
        Ok(device)
    }

    /// Loads one image, to know now whether the driver takes it.
    fn check_image(&self) -> Result<()> {
        let (name, _) =
            crate::kernel_images().next().ok_or_else(|| GpuError::NoKernel { kernel: String::new() })?;
        match self.loaded.check(self.stream.context(), name) {
            Err(GpuError::Driver { message, .. }) => {
                let (major, minor) = self.compute_capability()?;
                Err(GpuError::Unavailable {
                    reason: format!(
                        "the driver takes none of the kernels' images for {} (compute capability {major}.{minor}): \
                         {message}; they need 8.0 or newer and a driver of CUDA 13.0 (580) for GPUs that are not listed",
                        self.name()?
                    ),
                })
            }
            other => other,
        }
    }

    /// The GPU's name.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn name(&self) -> Result<String> {
        self.stream.context().name().map_err(driver("ask for the GPU's name"))
    }

    /// Its compute capability, major and minor.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn compute_capability(&self) -> Result<(i32, i32)> {
        self.stream.context().compute_capability().map_err(driver("ask for the GPU's capability"))
    }

    /// The newest CUDA version that the driver speaks, such as 13000.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn driver_version(&self) -> Result<i32> {
        let mut version = 0;
        // SAFETY: the pointer is of a live i32.
        #[expect(unsafe_code, reason = "cudarc has no safe form of this call")]
        unsafe { sys::cuDriverGetVersion(&raw mut version) }
            .result()
            .map_err(driver("ask for the driver's version"))?;
        Ok(version)
    }

    /// Number of its multiprocessors.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn multiprocessors(&self) -> Result<u32> {
        let count = self.stream.context().attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        Ok(count.map_err(driver("count the multiprocessors"))?.unsigned_abs())
    }

    /// Bytes of its memory: free, and in all.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn memory_bytes(&self) -> Result<(usize, usize)> {
        self.stream.context().mem_get_info().map_err(driver("ask for the GPU's memory"))
    }

    /// The same GPU with a stream of its own: what is asked for on either runs at the same time.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn fork(&self) -> Result<Device> {
        let stream = self.stream.context().new_stream().map_err(driver("make a stream"))?;
        Ok(Device { stream, loaded: Arc::clone(&self.loaded) })
    }

    /// What is asked for from now on waits for what was asked of `other` until now.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn wait_for(&self, other: &Device) -> Result<()> {
        self.stream.join(&other.stream).map_err(driver("wait for another stream"))
    }

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// Whatever failed since the last time.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(driver("wait for the GPU"))
    }

    /// Time that the GPU takes for what `work` asks for, by events around it.
    ///
    /// # Errors
    /// Whatever `work` or the driver refuses.
    pub fn time_ms(&self, work: impl FnOnce() -> Result<()>) -> Result<f32> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT); // `None` would make events without a clock
        let start = self.stream.record_event(flags).map_err(driver("record an event"))?;
        work()?;
        let end = self.stream.record_event(flags).map_err(driver("record an event"))?;
        start.elapsed_ms(&end).map_err(driver("read the GPU's clock"))
    }

    /// Copies as many bytes as both have.
    ///
    /// # Errors
    /// Memories of different length; whatever the driver refuses.
    pub fn copy(&self, from: &DeviceMemory, to: &mut DeviceMemory) -> Result<()> {
        Self::within(to, 0, from.byte_len())?;
        self.stream.memcpy_dtod(&from.bytes, &mut to.bytes).map_err(driver("copy on the GPU"))
    }

    fn function(&self, image: Image, kernel: &str) -> Result<CudaFunction> {
        self.loaded.function(self.stream.context(), image, kernel)
    }

    /// Makes this thread's calls go to this GPU.
    pub(crate) fn bind(&self) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(driver("use the GPU"))
    }

    fn blocks_at_once(&self, function: &CudaFunction, threads: u32, shared_bytes: u32) -> Result<u32> {
        let each = function
            .occupancy_max_active_blocks_per_multiprocessor(threads, shared_bytes as usize, None)
            .map_err(driver("ask how many blocks fit"))?;
        Ok(each * self.multiprocessors()?)
    }

    /// # Safety
    /// As for [`Target::launch`].
    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn start(&self, function: &CudaFunction, launch: &Launch<'_>) -> Result<()> {
        self.bind()?;
        let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(address_of).collect();
        let grid = (launch.grid[0], launch.grid[1], launch.grid[2]);
        let threads = (launch.threads, 1, 1);
        let stream = self.stream.cu_stream();
        let start =
            if launch.cooperative { result::launch_cooperative_kernel } else { result::launch_kernel };
        // SAFETY: the caller promised that arguments fit; the pointers in `arguments` are of `launch.arguments`, which
        // outlives the call, and the driver copies what they point to before it returns.
        let done = unsafe {
            start(function.cu_function(), grid, threads, launch.shared_bytes, stream, &mut arguments)
        };
        done.map_err(driver(launch.kernel))
    }

    /// Address of `bytes` bytes from `offset` on, if the memory holds them.
    pub(crate) fn within(memory: &DeviceMemory, offset: usize, bytes: usize) -> Result<u64> {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= memory.byte_len());
        crate::error::require(fits, "copy", || {
            format!("{bytes} bytes at {offset} of {} bytes of memory", memory.byte_len())
        })?;
        Ok(memory.address() + offset as u64)
    }
}

/// Memory of a [`Device`].
#[derive(Debug)]
pub struct DeviceMemory {
    bytes: CudaSlice<u8>,
    asked_bytes: usize,
    address: u64,
}

impl Memory for DeviceMemory {
    fn address(&self) -> u64 {
        self.address
    }

    fn byte_len(&self) -> usize {
        self.asked_bytes
    }
}

impl Target for Device {
    type Memory = DeviceMemory;
    type Staging = PinnedMemory;
    type Recording = Graph;

    fn allocate(&self, bytes: usize) -> Result<DeviceMemory> {
        self.bind()?;
        // SAFETY: bytes without a value are valid u8s on a device; who reads them first has written them first.
        #[expect(unsafe_code, reason = "the memory's bytes are not set")]
        let memory = unsafe { self.stream.alloc::<u8>(bytes.max(1)) };
        let memory = memory.map_err(|error| GpuError::Driver {
            operation: format!("allocate {bytes} bytes on the GPU"),
            message: format!("{error}"),
        })?;
        let address = memory.device_ptr(&self.stream).0;
        Ok(DeviceMemory { bytes: memory, asked_bytes: bytes, address })
    }

    fn upload(&self, to: &mut DeviceMemory, offset: usize, bytes: &[u8]) -> Result<()> {
        Self::within(to, offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut to = to.bytes.slice_mut(offset..offset + bytes.len());
        self.stream.memcpy_htod(bytes, &mut to).map_err(driver("copy to the GPU"))
    }

    fn download(&self, from: &DeviceMemory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        Self::within(from, offset, bytes.len())?;
        if !bytes.is_empty() {
            let from = from.bytes.slice(offset..offset + bytes.len());
            self.stream.memcpy_dtoh(&from, bytes).map_err(driver("copy from the GPU"))?;
        }
        self.synchronize()
    }

    fn fill(&self, memory: &mut DeviceMemory, byte: u8) -> Result<()> {
        self.bind()?;
        // SAFETY: the memory is ours alone (`&mut`), as long as said, and used on this stream only.
        #[expect(unsafe_code, reason = "cudarc's safe form only writes zeros")]
        unsafe { result::memset_d8_async(memory.address, byte, memory.asked_bytes, self.stream.cu_stream()) }
            .map_err(driver("fill memory"))
    }

    fn stage(&self, bytes: usize) -> Result<PinnedMemory> {
        self.pin(bytes)
    }

    fn upload_staged(
        &self,
        to: &mut DeviceMemory,
        offset: usize,
        from: &mut PinnedMemory,
        range: Range<usize>,
    ) -> Result<()> {
        self.start_upload(to, offset, from, range)
    }

    fn download_staged(
        &self,
        from: &DeviceMemory,
        range: Range<usize>,
        to: &mut PinnedMemory,
        offset: usize,
    ) -> Result<()> {
        self.start_download(from, range, to, offset)
    }

    fn synchronize(&self) -> Result<()> {
        Device::synchronize(self)
    }

    fn begin_recording(&self) -> Result<()> {
        Graph::begin(self)
    }

    fn end_recording(&self) -> Result<Graph> {
        Graph::end(self)
    }

    fn replay(&self, recording: &Graph) -> Result<()> {
        recording.replay()
    }

    fn resident_blocks(&self, kernel: &str, threads: u32, shared_bytes: u32) -> Result<u32> {
        self.blocks_at_once(&self.function(None, kernel)?, threads, shared_bytes)
    }

    fn resident_blocks_in(
        &self,
        image: &'static [u8],
        kernel: &str,
        threads: u32,
        shared_bytes: u32,
    ) -> Result<u32> {
        self.blocks_at_once(&self.function(Some(image), kernel)?, threads, shared_bytes)
    }

    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.start(&self.function(None, launch.kernel)?, launch) }
    }

    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch_in(&self, image: &'static [u8], launch: &Launch<'_>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.start(&self.function(Some(image), launch.kernel)?, launch) }
    }

    #[expect(unsafe_code, reason = "a kernel trusts its arguments")]
    unsafe fn launch_early(&self, launch: &Launch<'_>) -> Result<()> {
        let major = self.stream.context().attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
        // Those with images whose kernels know how to wait.
        if launch.cooperative || !matches!(major.map_err(driver("ask for the GPU's kind"))?, 9 | 10 | 12) {
            // SAFETY: the caller promised more.
            return unsafe { self.launch(launch) };
        }
        let function = self.function(None, launch.kernel)?;
        self.stream.context().bind_to_thread().map_err(driver("use the GPU"))?;
        let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(address_of).collect();
        let mut early = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: self.stream.cu_stream(),
            attrs: &raw mut early,
            numAttrs: 1,
        };
        // SAFETY: as for `launch`; `early` outlives the call.
        let done = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        done.result().map_err(driver(launch.kernel))
    }
}

impl Fork for Device {
    type Target = Device;

    fn fork_target(&self) -> Result<Device> {
        self.fork()
    }
}

/// Where the value of an argument lies, which is what a driver wants of it.
fn address_of(argument: &Argument) -> *mut c_void {
    match argument {
        Argument::U64(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::U32(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
    }
}

impl Argument {
    /// Where the value lies: what drivers, and the emulation, take for an argument.
    pub fn as_ptr(&self) -> *mut c_void {
        address_of(self)
    }
}
