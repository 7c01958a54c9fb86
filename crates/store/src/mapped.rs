use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

use crate::StoreError;

/// A whole file, mapped read-only. Pages are read when first touched and belong to the page cache, so a mapped
/// checkpoint costs no anonymous memory.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let kind = file.metadata().map_err(StoreError::io("inspect", path))?.file_type();
        if !kind.is_file() {
            return Err(StoreError::UnknownFormat { path: path.to_owned() });
        }
        #[allow(
            unsafe_code,
            reason = "mapping a file is unsafe by nature; the one place where this crate does it"
        )]
        // SAFETY: the mapping is private and read-only and lives as long as its borrows. What Rust cannot rule out is
        // another process that truncates or rewrites the file meanwhile (every mmap reader shares this); our own
        // writers never touch an existing file in place, they rename complete directories.
        let map = unsafe { Mmap::map(&file) }.map_err(StoreError::io("map", path))?;
        Ok(Self { path: path.to_owned(), map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Unmaps the pages touched so far; whoever touches them again maps them again. A hint: failing does nothing.
    pub(crate) fn release(&self) {
        #[allow(unsafe_code, reason = "the advice is unsafe for mappings that are written to")]
        // SAFETY: nobody writes to this mapping, so that every page comes back from the file with the bytes it had.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}
