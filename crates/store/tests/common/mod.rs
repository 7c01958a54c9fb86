//! Small files for the tests, written the plainest way.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// A safetensors file of this header and data, whether or not they fit.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A safetensors file of U8 vectors with these names and lengths; each is filled with its length.
pub(crate) fn write_model(dir: &Path, file: &str, tensors: &[(&str, usize)]) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for &(name, len) in tensors {
        let (begin, end) = (data.len(), data.len() + len);
        entries.push(format!(r#""{name}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#));
        data.resize(end, len as u8);
    }
    fs::write(dir.join(file), safetensors(&format!("{{{}}}", entries.join(",")), &data)).unwrap();
}

/// Data that travels with the crate.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}
