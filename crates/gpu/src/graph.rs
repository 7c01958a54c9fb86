use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};

use crate::device::driver;
use crate::{Device, GpuError, Result};

/// Launches recorded once, to be asked for again with one call: what many short kernels need.
pub struct Graph {
    graph: CudaGraph,
}

// SAFETY: the driver's graphs belong to no thread, and whoever replays one binds the GPU to its own thread first. They may not
// be used by two threads at once, so this is not `Sync`.
#[expect(unsafe_code, reason = "a raw pointer that one thread at a time may use")]
unsafe impl Send for Graph {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

impl Graph {
    /// Records what `work` launches on the device; nothing of it is done yet. Whoever replays it keeps alive, and leaves
    /// in place, all memory that `work` uses.
    ///
    /// # Errors
    /// Whatever `work` or the driver refuses; allocating or waiting in `work` is refused.
    pub fn record(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        Self::begin(device)?;
        let worked = work();
        let graph = Self::end(device);
        worked?;
        graph
    }

    /// Whatever is launched on the device from now on is recorded.
    pub(crate) fn begin(device: &Device) -> Result<()> {
        device.stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(driver("begin a graph"))
    }

    /// What was launched since [`Graph::begin`].
    pub(crate) fn end(device: &Device) -> Result<Graph> {
        let graph = device.stream.end_capture(Flags(0)).map_err(driver("end a graph"))?;
        let graph = graph.ok_or_else(|| GpuError::Driver {
            operation: "end a graph".to_owned(),
            message: "nothing was recorded".to_owned(),
        })?;
        graph.upload().map_err(driver("load a graph"))?;
        Ok(Graph { graph })
    }

    /// Asks for everything recorded, in order, after what was asked of the device until now.
    ///
    /// # Errors
    /// Whatever the driver refuses.
    pub fn replay(&self) -> Result<()> {
        self.graph.launch().map_err(driver("replay a graph"))
    }
}
