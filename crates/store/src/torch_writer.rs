//! Writes PyTorch's zip format: an archive of stored members, one per tensor, and a pickle that names them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use skillweld_tensor::{Dtype, TensorView};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::StoreError;

/// Every member starts at a multiple of this, as `torch.load(mmap=True)` and other readers like it.
const ALIGNMENT_BYTES: u16 = 64;

/// GLOBAL, EMPTY_TUPLE, REDUCE: the value of `OrderedDict()`.
const EMPTY_ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";

/// Writes a state dict as `torch.save(OrderedDict(...))` does: plain row-major tensors, in the given order, which
/// `torch.load(weights_only=True)` reads back. The same input gives the same bytes.
///
/// # Errors
/// [`StoreError::Layout`] for dtypes without a PyTorch storage class; [`StoreError::Io`] and [`StoreError::DiskFull`]
/// from writing. What was written up to then stays: use it inside an [`crate::OutputDir`].
pub fn write_torch_zip(path: &Path, tensors: &[(&str, TensorView<'_>)]) -> Result<(), StoreError> {
    let pickle = state_dict_pickle(path, tensors)?;
    let needed_bytes = tensors.iter().map(|(_, view)| view.bytes().len() as u64).sum();
    let file = File::create(path).map_err(StoreError::io("create", path))?;
    // All members lie in one folder of the archive, named after the file.
    let folder = path.file_stem().map_or_else(|| "archive".into(), |stem| stem.to_string_lossy());
    write_archive(file, &folder, &pickle, tensors).map_err(StoreError::write(path, needed_bytes))
}

fn write_archive(
    file: File,
    folder: &str,
    pickle: &[u8],
    tensors: &[(&str, TensorView<'_>)],
) -> std::io::Result<()> {
    let mut archive = ZipWriter::new(BufWriter::new(file));
    let mut member = |name: &str, bytes: &[u8]| -> std::io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(u32::try_from(bytes.len()).is_err())
            .with_alignment(ALIGNMENT_BYTES);
        archive.start_file(format!("{folder}/{name}"), options)?;
        archive.write_all(bytes)
    };
    member("data.pkl", pickle)?;
    member(".format_version", b"1")?;
    member(".storage_alignment", ALIGNMENT_BYTES.to_string().as_bytes())?;
    member("byteorder", b"little")?;
    for (index, (_, view)) in tensors.iter().enumerate() {
        member(&format!("data/{index}"), view.bytes())?;
    }
    member("version", b"3\n")?;
    archive.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// The pickle of an `OrderedDict` of tensors, protocol 2. It only uses opcodes that restricted readers know, and no
/// memo: a callable named twice costs 30 bytes.
fn state_dict_pickle(path: &Path, tensors: &[(&str, TensorView<'_>)]) -> Result<Vec<u8>, StoreError> {
    let mut out = Pickle(Vec::new());
    out.raw(b"\x80\x02"); // PROTO 2
    out.raw(EMPTY_ORDERED_DICT);
    out.raw(b"("); // MARK: key, value, key, value, …
    for (index, (name, view)) in tensors.iter().enumerate() {
        let storage = storage_class(view.dtype()).ok_or_else(|| StoreError::Layout {
            path: path.to_owned(),
            tensor: (*name).to_owned(),
            reason: "has a dtype that PyTorch has no storage class for; write safetensors instead",
        })?;
        out.text(name);
        out.raw(b"ctorch._utils\n_rebuild_tensor_v2\n("); // GLOBAL, MARK: its arguments
        out.raw(b"("); // MARK: the persistent id of the storage
        out.text("storage");
        out.raw(format!("ctorch\n{storage}\n").as_bytes());
        out.text(&index.to_string());
        out.text("cpu");
        out.integer(view.numel());
        out.raw(b"tQ"); // TUPLE, BINPERSID
        out.integer(0); // offset into the storage
        out.tuple(view.shape());
        out.tuple(&row_major_strides(view.shape()));
        out.raw(b"\x89"); // requires_grad = False
        out.raw(EMPTY_ORDERED_DICT); // no backward hooks
        out.raw(b"tR"); // TUPLE, REDUCE: the tensor
    }
    out.raw(b"u."); // SETITEMS, STOP
    Ok(out.0)
}

/// PyTorch's class of typed storage for a dtype.
fn storage_class(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::Bool => "BoolStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::I8 => "CharStorage",
        Dtype::I16 => "ShortStorage",
        Dtype::I32 => "IntStorage",
        Dtype::I64 => "LongStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::F32 => "FloatStorage",
        Dtype::F64 => "DoubleStorage",
        Dtype::C64 => "ComplexFloatStorage",
        _ => return None,
    })
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        // Zero-length axes count as one, as PyTorch has it.
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// Opcodes with arguments; those without are written as raw bytes.
struct Pickle(Vec<u8>);

impl Pickle {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// BINUNICODE. A name longer than 4 GiB cannot come from a header that was read.
    fn text(&mut self, text: &str) {
        self.raw(b"X");
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    /// BININT1, BININT2, BININT or LONG1, whichever is shortest.
    fn integer(&mut self, value: usize) {
        match value {
            0..=0xff => self.raw(&[b'K', value as u8]),
            0x100..=0xffff => {
                self.raw(b"M");
                self.raw(&(value as u16).to_le_bytes());
            }
            0x1_0000..=0x7fff_ffff => {
                self.raw(b"J");
                self.raw(&(value as u32).to_le_bytes());
            }
            // LONG1 is signed, so nine bytes hold any u64.
            _ => {
                self.raw(b"\x8a\x09");
                self.raw(&(value as u64).to_le_bytes());
                self.raw(&[0]);
            }
        }
    }

    fn tuple(&mut self, values: &[usize]) {
        self.raw(b"(");
        for &value in values {
            self.integer(value);
        }
        self.raw(b"t");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_those_of_a_contiguous_tensor() {
        assert_eq!(row_major_strides(&[]), [0usize; 0]);
        assert_eq!(row_major_strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(row_major_strides(&[2, 0, 4]), [4, 4, 1]);
    }

    #[test]
    fn integers_take_the_shortest_opcode() {
        let encoded = |value| {
            let mut pickle = Pickle(Vec::new());
            pickle.integer(value);
            pickle.0
        };
        assert_eq!(encoded(255), b"K\xff");
        assert_eq!(encoded(256), b"M\x00\x01");
        assert_eq!(encoded(65_536), b"J\x00\x00\x01\x00");
        assert_eq!(encoded(0x8000_0000), b"\x8a\x09\x00\x00\x00\x80\x00\x00\x00\x00\x00");
    }

    #[test]
    fn the_archive_is_stored_aligned_and_repeatable() {
        let dir = tempfile::tempdir().unwrap();
        let values: Vec<u8> = (0..24).collect();
        let tensors = [
            ("a.weight", TensorView::new(Dtype::F32, &[2, 3], &values).unwrap()),
            ("b", TensorView::new(Dtype::BF16, &[], &values[..2]).unwrap()),
        ];
        let path = dir.path().join("head--checkpoint.pt");
        write_torch_zip(&path, &tensors).unwrap();
        let first = std::fs::read(&path).unwrap();
        write_torch_zip(&path, &tensors).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());

        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&first)).unwrap();
        for index in 0..archive.len() {
            let member = archive.by_index(index).unwrap();
            let name = member.name().unwrap().into_owned();
            let start = member.data_start().unwrap();
            assert_eq!(member.compression(), CompressionMethod::Stored);
            assert_eq!(start % 64, 0, "{name}");
            assert!(name.starts_with("head--checkpoint/"), "{name}");
            if name.ends_with("data/0") {
                assert_eq!(&first[start as usize..][..24], &values[..]);
            }
        }
    }

    #[test]
    fn a_dtype_without_storage_class_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let view = TensorView::new(Dtype::F8E4M3, &[1], &[0]).unwrap();
        let error = write_torch_zip(&dir.path().join("x.pt"), &[("q", view)]).unwrap_err();
        assert!(matches!(error, StoreError::Layout { ref tensor, .. } if tensor == "q"), "{error}");
    }
}
