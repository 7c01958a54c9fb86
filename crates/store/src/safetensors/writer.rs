use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde_json::{Value, json};
use skillweld_tensor::{Dtype, numel};

use crate::StoreError;

/// One tensor of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its key.
    pub name: String,
    /// Element type on disk.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// What [`SafetensorsWriter::finish`] left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFiles {
    /// The safetensors files, then the index if there is one.
    pub paths: Vec<PathBuf>,
    /// Bytes of tensors, without headers.
    pub tensor_bytes: u64,
}

/// Writes a known layout as safetensors, from any number of threads in any order.
///
/// Headers are written and files preallocated at creation: a disk too small is reported before any work is done.
/// The bytes of the files depend on the layout and the tensors alone, never on the order of writes.
#[derive(Debug)]
pub struct SafetensorsWriter {
    dir: PathBuf,
    shards: Vec<Shard>,
    /// In the caller's order.
    slots: Vec<Slot>,
    /// Name and contents of the index file, when there is more than one shard.
    index: Option<(PathBuf, Value)>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Slot {
    name: String,
    shard: usize,
    /// First byte in the shard.
    begin: u64,
    len_bytes: u64,
    written_bytes: AtomicU64,
}

impl SafetensorsWriter {
    /// Lays out `layout` in `dir` as `stem.safetensors`, or, when the tensors exceed `max_shard_bytes`, as
    /// `stem-00001-of-0000N.safetensors` with `stem.safetensors.index.json`. Shards are filled in the order of names;
    /// a tensor larger than a shard gets one of its own. `metadata` goes into every header.
    ///
    /// # Errors
    /// [`StoreError::Layout`] for a name that stands twice or a size that overflows, [`StoreError::DiskFull`] when the
    /// files do not fit on the disk, [`StoreError::Io`] otherwise.
    pub fn create(
        dir: &Path,
        stem: &str,
        layout: Vec<TensorSpec>,
        metadata: &BTreeMap<String, String>,
        max_shard_bytes: Option<u64>,
    ) -> Result<Self, StoreError> {
        let sizes = sizes_bytes(dir, &layout)?;
        let groups = split(&layout, &sizes, max_shard_bytes.unwrap_or(u64::MAX));
        let file_name = |number: usize| match groups.len() {
            1 => format!("{stem}.safetensors"),
            count => format!("{stem}-{number:05}-of-{count:05}.safetensors"),
        };
        let total_bytes = sizes.iter().sum();
        let mut shards = Vec::with_capacity(groups.len());
        let mut places = vec![(0, 0); layout.len()];
        let mut weight_map = BTreeMap::new();
        for (shard, group) in groups.iter().enumerate() {
            let name = file_name(shard + 1);
            let header = header(&layout, &sizes, group, metadata);
            let mut end = header.len() as u64;
            for &tensor in group {
                places[tensor] = (shard, end);
                end += sizes[tensor];
                weight_map.insert(layout[tensor].name.clone(), name.clone());
            }
            shards.push(Shard::create(dir.join(name), &header, end, total_bytes)?);
        }
        let index = (groups.len() > 1).then(|| {
            let contents = json!({ "metadata": { "total_size": total_bytes }, "weight_map": weight_map });
            (dir.join(format!("{stem}.safetensors.index.json")), contents)
        });
        let slots = layout.into_iter().zip(sizes).zip(places).map(|((spec, len_bytes), (shard, begin))| {
            Slot { name: spec.name, shard, begin, len_bytes, written_bytes: AtomicU64::new(0) }
        });
        Ok(Self { dir: dir.to_owned(), shards, slots: slots.collect(), index })
    }

    /// Writes bytes of tensor `tensor` (its place in the layout given to [`SafetensorsWriter::create`]) from
    /// `byte_offset` on. Takes `&self`: call it from any thread; write every byte once.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::Io`].
    ///
    /// # Panics
    /// When the range reaches past the tensor: ranges come from our own planning, never from a file.
    pub fn write_at(&self, tensor: usize, byte_offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let slot = &self.slots[tensor];
        let end = byte_offset.checked_add(bytes.len() as u64);
        assert!(end.is_some_and(|end| end <= slot.len_bytes), "write past the end of tensor {}", slot.name);
        let shard = &self.shards[slot.shard];
        shard
            .file
            .write_all_at(bytes, slot.begin + byte_offset)
            .map_err(StoreError::write(&shard.path, bytes.len() as u64))?;
        slot.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Sends what has been written so far to the disk, and waits for it. A thread that calls this repeatedly while
    /// others write hides most of the time that [`SafetensorsWriter::finish`] would take.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::Io`].
    pub fn sync_data(&self) -> Result<(), StoreError> {
        self.shards
            .iter()
            .try_for_each(|shard| shard.file.sync_data().map_err(StoreError::write(&shard.path, 0)))
    }

    /// Checks that every byte was written, writes the index and syncs all files.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] naming a tensor with bytes missing, [`StoreError::DiskFull`] or [`StoreError::Io`].
    pub fn finish(self) -> Result<WrittenFiles, StoreError> {
        self.complete(true)
    }

    /// As [`finish`](Self::finish) without waiting for the disk: for files that will soon be removed.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_unsynced(self) -> Result<WrittenFiles, StoreError> {
        self.complete(false)
    }

    fn complete(self, synced: bool) -> Result<WrittenFiles, StoreError> {
        for slot in &self.slots {
            let written_bytes = slot.written_bytes.load(Ordering::Relaxed);
            if written_bytes != slot.len_bytes {
                return Err(StoreError::Incomplete {
                    path: self.shards[slot.shard].path.clone(),
                    tensor: slot.name.clone(),
                    written_bytes,
                    expected_bytes: slot.len_bytes,
                });
            }
        }
        if synced {
            self.sync_data()?;
        }
        let tensor_bytes = self.slots.iter().map(|slot| slot.len_bytes).sum();
        let mut paths: Vec<PathBuf> = self.shards.into_iter().map(|shard| shard.path).collect();
        if let Some((path, contents)) = self.index {
            let text = format!("{contents:#}\n");
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(text.as_bytes())?;
                if synced { file.sync_all() } else { Ok(()) }
            };
            write().map_err(StoreError::write(&path, text.len() as u64))?;
            paths.push(path);
        }
        Ok(WrittenFiles { paths, tensor_bytes })
    }

    /// The directory written to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Shard {
    fn create(path: PathBuf, header: &[u8], len_bytes: u64, needed_bytes: u64) -> Result<Self, StoreError> {
        let file = File::create_new(&path).map_err(StoreError::io("create", &path))?;
        match fallocate(&file, FallocateFlags::empty(), 0, len_bytes) {
            // Without support for preallocation a full disk shows itself only at the write.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(len_bytes),
            other => other.map_err(Into::into),
        }
        .map_err(StoreError::write(&path, needed_bytes))?;
        file.write_all_at(header, 0).map_err(StoreError::write(&path, needed_bytes))?;
        Ok(Self { path, file })
    }
}

/// Bytes of each tensor; refuses names that stand twice and sizes that overflow.
fn sizes_bytes(dir: &Path, layout: &[TensorSpec]) -> Result<Vec<u64>, StoreError> {
    let fail = |spec: &TensorSpec, reason| StoreError::Layout {
        path: dir.to_owned(),
        tensor: spec.name.clone(),
        reason,
    };
    let mut names = HashSet::with_capacity(layout.len());
    let mut total = 0u64;
    let size = |spec: &TensorSpec| {
        if !names.insert(spec.name.clone()) {
            return Err(fail(spec, "stands twice in the layout"));
        }
        if spec.name == "__metadata__" {
            return Err(fail(spec, "has a name that the format reserves"));
        }
        let bytes = numel(&spec.shape).and_then(|n| spec.dtype.byte_len(n)).map(|bytes| bytes as u64);
        let fits = bytes.and_then(|bytes| total.checked_add(bytes)).filter(|&t| i64::try_from(t).is_ok());
        total = fits.ok_or_else(|| fail(spec, "makes the layout larger than any file can be"))?;
        Ok(bytes.unwrap_or_default())
    };
    layout.iter().map(size).collect()
}

/// Distributes tensors over shards, each in the order that the format wants: widest dtype first, then by name, so
/// that every tensor is aligned to its element size. Always at least one shard.
fn split(layout: &[TensorSpec], sizes: &[u64], max_shard_bytes: u64) -> Vec<Vec<usize>> {
    let mut by_name: Vec<usize> = (0..layout.len()).collect();
    by_name.sort_by_key(|&i| &layout[i].name);
    let mut groups = vec![Vec::new()];
    let mut filled = 0u64;
    for i in by_name {
        if filled > 0 && filled.saturating_add(sizes[i]) > max_shard_bytes {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += sizes[i];
        if let Some(group) = groups.last_mut() {
            group.push(i);
        }
    }
    for group in &mut groups {
        // Stable: names stay in order within one width.
        group.sort_by_key(|&i| std::cmp::Reverse(layout[i].dtype.bits()));
    }
    groups
}

/// Length and JSON, padded with spaces so that the data starts at a multiple of 8 bytes.
fn header(
    layout: &[TensorSpec],
    sizes: &[u64],
    group: &[usize],
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut table = serde_json::Map::new();
    if !metadata.is_empty() {
        table.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut begin = 0u64;
    for &i in group {
        let (spec, end) = (&layout[i], begin + sizes[i]);
        let entry = json!({ "dtype": spec.dtype.name(), "shape": spec.shape, "data_offsets": [begin, end] });
        table.insert(spec.name.clone(), entry);
        begin = end;
    }
    let mut json = Value::Object(table).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn a_disk_too_small_is_reported_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        let layout = vec![spec("w", Dtype::F32, &[1 << 30, 1 << 24])];
        let error =
            SafetensorsWriter::create(dir.path(), "model", layout, &BTreeMap::new(), None).unwrap_err();
        let StoreError::DiskFull { needed_bytes, free_bytes, .. } = &error else { panic!("{error}") };
        assert_eq!(*needed_bytes, 1 << 56);
        assert!(free_bytes.is_some_and(|free| free < *needed_bytes));
        assert!(error.to_string().contains("no space left for"), "{error}");
    }

    #[test]
    fn a_disk_that_fills_up_later_is_reported_by_the_write() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let slot =
            Slot { name: "w".into(), shard: 0, begin: 0, len_bytes: 4, written_bytes: AtomicU64::new(0) };
        let writer = SafetensorsWriter {
            dir: PathBuf::from("/dev"),
            shards: vec![Shard { path, file }],
            slots: vec![slot],
            index: None,
        };
        let error = writer.write_at(0, 0, &[0; 4]).unwrap_err();
        assert!(
            matches!(&error, StoreError::DiskFull { path, .. } if path == Path::new("/dev/full")),
            "{error}"
        );
        assert!(matches!(writer.finish(), Err(StoreError::Incomplete { written_bytes: 0, .. })));
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let create = |layout| SafetensorsWriter::create(dir.path(), "m", layout, &BTreeMap::new(), None);
        let twice = create(vec![spec("w", Dtype::F32, &[1]), spec("w", Dtype::F16, &[1])]).unwrap_err();
        assert!(twice.to_string().contains("stands twice"), "{twice}");
        let huge = create(vec![spec("w", Dtype::U8, &[usize::MAX])]).unwrap_err();
        assert!(huge.to_string().contains("larger than any file"), "{huge}");
    }
}
