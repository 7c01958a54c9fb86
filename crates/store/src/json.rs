use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::StoreError;

/// Writes pretty JSON with a final newline.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`].
pub fn write_json(path: &Path, value: &Value) -> Result<(), StoreError> {
    let text = format!("{value:#}\n");
    let len_bytes = text.len() as u64;
    fs::write(path, text).map_err(StoreError::write(path, len_bytes))
}
