//! Pinned memory: what the GPU copies from and to by itself, while the host goes on.

use std::ops::Range;

use cudarc::driver::{HostSlice, PinnedHostSlice, result};

use crate::device::driver;
use crate::error::require;
use crate::{Device, DeviceMemory, Result, Staging};

/// Pinned memory of the host.
#[derive(Debug)]
pub struct PinnedMemory {
    bytes: PinnedHostSlice<u8>,
}

impl Staging for PinnedMemory {
    fn bytes(&self) -> Result<&[u8]> {
        self.bytes.as_slice().map_err(driver("wait for a copy"))
    }

    fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        self.bytes.as_mut_slice().map_err(driver("wait for a copy"))
    }
}

impl Device {
    pub(crate) fn pin(&self, bytes: usize) -> Result<PinnedMemory> {
        // Not write-combined: what comes back from the GPU is read.
        // SAFETY: bytes without a value are what `alloc_pinned` warns of; they are cleared before anybody sees them.
        #[expect(unsafe_code, reason = "the memory's bytes are not set")]
        let pinned = unsafe { self.stream.context().alloc_pinned_with_flags::<u8>(bytes.max(1), 0) };
        let mut bytes = pinned.map_err(driver("pin memory"))?;
        bytes.as_mut_slice().map_err(driver("pin memory"))?.fill(0);
        Ok(PinnedMemory { bytes })
    }

    pub(crate) fn start_upload(
        &self,
        to: &mut DeviceMemory,
        offset: usize,
        from: &mut PinnedMemory,
        range: Range<usize>,
    ) -> Result<()> {
        let to = Self::within(to, offset, range.len())?;
        check_range(&range, from.bytes.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the bytes are borrowed for this call, and an event recorded behind the copy keeps everybody from
        // writing to, or freeing, pinned memory before it has passed; the device's memory is long enough (`within`), and
        // is used and freed in the order of this stream only.
        #[expect(unsafe_code, reason = "cudarc's safe form copies whole slices only")]
        unsafe {
            let (bytes, _recorded_when_dropped) = from.bytes.stream_synced_slice(&self.stream);
            result::memcpy_htod_async(to, &bytes[range], self.stream.cu_stream())
        }
        .map_err(driver("copy to the GPU"))
    }

    pub(crate) fn start_download(
        &self,
        from: &DeviceMemory,
        range: Range<usize>,
        to: &mut PinnedMemory,
        offset: usize,
    ) -> Result<()> {
        let from = Self::within(from, range.start, range.len())?;
        let place = offset..offset.saturating_add(range.len());
        check_range(&place, to.bytes.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: as in `start_upload`; nobody reads the bytes before the event has passed.
        #[expect(unsafe_code, reason = "cudarc's safe form copies whole slices only")]
        unsafe {
            let (bytes, _recorded_when_dropped) = to.bytes.stream_synced_mut_slice(&self.stream);
            result::memcpy_dtoh_async(&mut bytes[place], from, self.stream.cu_stream())
        }
        .map_err(driver("copy from the GPU"))
    }
}

fn check_range(range: &Range<usize>, has: usize) -> Result<()> {
    require(range.start <= range.end && range.end <= has, "copy", || {
        format!("bytes {range:?} of {has} bytes of pinned memory")
    })
}
