use crate::{Memory, Result, Staging, Target};

/// A small table that kernels read, written anew for each launch: nobody waits, unless the last one has not been copied.
#[derive(Debug)]
pub struct Table<T: Target> {
    staging: T::Staging,
    memory: T::Memory,
}

impl<T: Target> Table<T> {
    /// One of so many bytes; it grows where more are written.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(target: &T, bytes: usize) -> Result<Self> {
        Ok(Self { staging: target.stage(bytes)?, memory: target.allocate(bytes)? })
    }

    /// Where the table lies; what is written later stands there too, unless it is longer than all before.
    pub(super) fn room(&mut self, target: &T, bytes: usize) -> Result<u64> {
        if self.memory.byte_len() < bytes {
            *self = Self::new(target, bytes.next_power_of_two())?;
        }
        Ok(self.memory.address())
    }

    /// Asks for a copy of the table.
    pub(super) fn write(&mut self, target: &T, bytes: &[u8]) -> Result<u64> {
        let address = self.room(target, bytes.len())?;
        self.staging.bytes_mut()?[..bytes.len()].copy_from_slice(bytes);
        target.upload_staged(&mut self.memory, 0, &mut self.staging, 0..bytes.len())?;
        Ok(address)
    }
}
