//! Writes PyTorch's zip format: an archive of stored members, one per tensor, and a pickle that names them.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use skillweld_tensor::{Dtype, TensorView};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::StoreError;

/// Every member starts at a multiple of this, as `torch.load(mmap=True)` and other readers like it.
const ALIGNMENT_BYTES: u16 = 64;

/// GLOBAL, EMPTY_TUPLE, REDUCE: the value of `OrderedDict()`.
const EMPTY_ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";

/// A value of a PyTorch file: what files of plain tensors are made of.
#[derive(Debug)]
pub enum TorchNode<'a> {
    /// A `dict`, in the given order.
    Dict(Vec<(String, TorchNode<'a>)>),
    /// An `OrderedDict`: what a state dict is.
    OrderedDict(Vec<(String, TorchNode<'a>)>),
    /// An `int`.
    Int(usize),
    /// A tensor.
    Tensor(TorchTensor<'a>),
}

/// A row-major tensor that is written when its turn comes, so that it need not lie in memory before.
pub struct TorchTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    write: Box<WriteBytes<'a>>,
}

/// Writes all bytes of a tensor.
type WriteBytes<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + 'a;

impl<'a> TorchTensor<'a> {
    /// A tensor whose bytes `write` gives: exactly as many as dtype and shape ask for.
    pub fn new(dtype: Dtype, shape: &[usize], write: impl Fn(&mut dyn Write) -> io::Result<()> + 'a) -> Self {
        Self { dtype, shape: shape.to_vec(), write: Box::new(write) }
    }

    fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    fn len_bytes(&self) -> u64 {
        self.numel() as u64 * self.dtype.bits() as u64 / 8
    }
}

impl<'a> From<TensorView<'a>> for TorchTensor<'a> {
    fn from(view: TensorView<'a>) -> Self {
        Self::new(view.dtype(), view.shape(), move |out| out.write_all(view.bytes()))
    }
}

impl fmt::Debug for TorchTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TorchTensor({} {:?})", self.dtype, self.shape)
    }
}

/// Writes a state dict as `torch.save(OrderedDict(...))` does: plain row-major tensors, in the given order, which
/// `torch.load(weights_only=True)` reads back. The same input gives the same bytes.
///
/// # Errors
/// As [`write_torch_file`].
pub fn write_torch_zip(path: &Path, tensors: &[(&str, TensorView<'_>)]) -> Result<(), StoreError> {
    let entries = tensors.iter().map(|(name, view)| ((*name).to_owned(), TorchNode::Tensor((*view).into())));
    write_torch_file(path, &TorchNode::OrderedDict(entries.collect()))
}

/// Writes `root` as `torch.save` does, for `torch.load(weights_only=True)` to read back. The same input gives the same
/// bytes.
///
/// # Errors
/// [`StoreError::Layout`] for dtypes without a PyTorch storage class; [`StoreError::Io`] and [`StoreError::DiskFull`]
/// from writing. What was written up to then stays: use it inside an [`crate::OutputDir`].
pub fn write_torch_file(path: &Path, root: &TorchNode<'_>) -> Result<(), StoreError> {
    let mut pickle = Pickle::default();
    pickle.raw(b"\x80\x02"); // PROTO 2
    pickle.node(path, "", root)?;
    pickle.raw(b"."); // STOP
    let Pickle { bytes, tensors } = pickle;
    let needed_bytes = tensors.iter().map(|tensor| tensor.len_bytes()).sum();
    let file = File::create(path).map_err(StoreError::io("create", path))?;
    // All members lie in one folder of the archive, named after the file.
    let folder = path.file_stem().map_or_else(|| "archive".into(), |stem| stem.to_string_lossy());
    write_archive(file, &folder, &bytes, &tensors).map_err(StoreError::write(path, needed_bytes))
}

fn write_archive(file: File, folder: &str, pickle: &[u8], tensors: &[&TorchTensor<'_>]) -> io::Result<()> {
    let mut archive = ZipWriter::new(BufWriter::new(file));
    let mut member = |name: &str, contents: &TorchTensor<'_>| -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(u32::try_from(contents.len_bytes()).is_err())
            .with_alignment(ALIGNMENT_BYTES);
        archive.start_file(format!("{folder}/{name}"), options)?;
        (contents.write)(&mut archive)
    };
    member("data.pkl", &of_bytes(pickle))?;
    member(".format_version", &of_bytes(b"1"))?;
    member(".storage_alignment", &of_bytes(ALIGNMENT_BYTES.to_string().as_bytes()))?;
    member("byteorder", &of_bytes(b"little"))?;
    for (index, tensor) in tensors.iter().enumerate() {
        member(&format!("data/{index}"), tensor)?;
    }
    member("version", &of_bytes(b"3\n"))?;
    archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// A member that is no tensor.
fn of_bytes(bytes: &[u8]) -> TorchTensor<'_> {
    TorchTensor::new(Dtype::U8, &[bytes.len()], move |out| out.write_all(bytes))
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

/// A pickle, protocol 2, and the tensors that it names, in order. It only uses opcodes that restricted readers know, and no
/// memo: a callable named twice costs 30 bytes.
#[derive(Default)]
struct Pickle<'n, 'a> {
    bytes: Vec<u8>,
    tensors: Vec<&'n TorchTensor<'a>>,
}

impl<'n, 'a> Pickle<'n, 'a> {
    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `name` is that of the tensor, for errors.
    fn node(&mut self, path: &Path, name: &str, node: &'n TorchNode<'a>) -> Result<(), StoreError> {
        match node {
            TorchNode::Dict(entries) => {
                self.raw(b"}"); // EMPTY_DICT
                self.entries(path, entries)?;
            }
            TorchNode::OrderedDict(entries) => {
                self.raw(EMPTY_ORDERED_DICT);
                self.entries(path, entries)?;
            }
            TorchNode::Int(value) => self.integer(*value),
            TorchNode::Tensor(tensor) => self.tensor(path, name, tensor)?,
        }
        Ok(())
    }

    fn entries(&mut self, path: &Path, entries: &'n [(String, TorchNode<'a>)]) -> Result<(), StoreError> {
        self.raw(b"("); // MARK: key, value, key, value, …
        for (name, node) in entries {
            self.text(name);
            self.node(path, name, node)?;
        }
        self.raw(b"u"); // SETITEMS
        Ok(())
    }

    fn tensor(&mut self, path: &Path, name: &str, tensor: &'n TorchTensor<'a>) -> Result<(), StoreError> {
        let storage = storage_class(tensor.dtype).ok_or_else(|| StoreError::Layout {
            path: path.to_owned(),
            tensor: name.to_owned(),
            reason: "has a dtype that PyTorch has no storage class for; write safetensors instead",
        })?;
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n("); // GLOBAL, MARK: its arguments
        self.raw(b"("); // MARK: the persistent id of the storage
        self.text("storage");
        self.raw(format!("ctorch\n{storage}\n").as_bytes());
        self.text(&self.tensors.len().to_string());
        self.text("cpu");
        self.integer(tensor.numel());
        self.raw(b"tQ"); // TUPLE, BINPERSID
        self.integer(0); // offset into the storage
        self.tuple(&tensor.shape);
        self.tuple(&row_major_strides(&tensor.shape));
        self.raw(b"\x89"); // requires_grad = False
        self.raw(EMPTY_ORDERED_DICT); // no backward hooks
        self.raw(b"tR"); // TUPLE, REDUCE: the tensor
        self.tensors.push(tensor);
        Ok(())
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
            let mut pickle = Pickle::default();
            pickle.integer(value);
            pickle.bytes
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
