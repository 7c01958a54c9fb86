//! A minimal writer of the safetensors format that makes its values while writing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use skillweld_tensor::{Dtype, convert};

/// Elements made, rounded and written at a time.
const BLOCK: usize = 1 << 18;

/// `fill(start, out)` gives a tensor's elements from `start` on.
pub(crate) type Fill<'a> = Box<dyn Fn(usize, &mut [f32]) + 'a>;

/// A tensor to be written.
pub(crate) struct Source<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) fill: Fill<'a>,
}

impl Source<'_> {
    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Writes `model.safetensors`, or `shards` files of about equal size with `model.safetensors.index.json`.
pub(crate) fn write_model(dir: &Path, dtype: Dtype, shards: usize, sources: &[Source<'_>]) -> io::Result<()> {
    if shards <= 1 {
        return write_file(&dir.join("model.safetensors"), dtype, sources.iter());
    }
    let total_bytes: usize = sources.iter().map(|s| byte_len(dtype, s)).sum();
    let mut files: Vec<Vec<&Source<'_>>> = (0..shards).map(|_| Vec::new()).collect();
    let mut written_bytes = 0;
    for source in sources {
        files[written_bytes * shards / total_bytes.max(1)].push(source);
        written_bytes += byte_len(dtype, source);
    }
    let mut weight_map = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", index + 1);
        write_file(&dir.join(&name), dtype, file.iter().copied())?;
        weight_map.extend(file.iter().map(|s| (s.name.as_str(), name.clone())));
    }
    let index = json!({ "metadata": { "total_size": total_bytes }, "weight_map": weight_map });
    crate::metadata::write_json(&dir.join("model.safetensors.index.json"), &index)
}

/// Writes one file. Tensors stand in the given order.
pub(crate) fn write_file<'a>(
    path: &Path,
    dtype: Dtype,
    sources: impl Iterator<Item = &'a Source<'a>> + Clone,
) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut begin = 0;
    for source in sources.clone() {
        let end = begin + byte_len(dtype, source);
        let entry = json!({ "dtype": dtype.name(), "shape": source.shape, "data_offsets": [begin, end] });
        header.insert(source.name.clone(), entry);
        begin = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));

    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut values = vec![0.0; BLOCK];
    let mut bytes = vec![0; BLOCK * dtype.bits() / 8];
    for source in sources {
        for start in (0..source.numel()).step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(source.numel() - start)];
            let bytes = &mut bytes[..values.len() * dtype.bits() / 8];
            (source.fill)(start, values);
            convert::encode(dtype, values, bytes).map_err(io::Error::other)?;
            file.write_all(bytes)?;
        }
    }
    Ok(())
}

fn byte_len(dtype: Dtype, source: &Source<'_>) -> usize {
    source.numel() * dtype.bits() / 8
}
