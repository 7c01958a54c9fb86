//! PyTorch's zip files, read without Python: only tensors and plain containers exist here, nothing is ever executed.

mod archive;
mod machine;
mod node;
mod opcodes;
mod tensor;
mod value;

use std::path::Path;

use skillweld_tensor::{TensorError, TensorView};

use crate::StoreError;
use crate::mapped::MappedFile;
use crate::stored::StoredTensor;
use archive::Archive;
pub use value::PickleValue;

/// Under these names trainers put the state dict when they save more than that.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// A `.pt`, `.pth` or `.bin` file as `torch.save` writes it since PyTorch 1.6.
///
/// The pickle inside is run by a machine that knows tensors, dicts, lists, tuples, strings, numbers and None; any other
/// opcode or global is refused by name. Tensors are borrowed from the mapped file. Checksums of the members are not
/// verified.
#[derive(Debug)]
pub struct TorchFile {
    file: MappedFile,
    root: PickleValue,
}

impl TorchFile {
    /// Opens and checks a file; tensor data is not touched.
    ///
    /// # Errors
    /// [`StoreError::Archive`] for a damaged or foreign archive, [`StoreError::Pickle`] for anything that the machine
    /// does not know or that does not fit the archive, [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = MappedFile::open(path)?;
        let archive = Archive::read(file.bytes())
            .map_err(|problem| StoreError::Archive { path: path.to_owned(), problem })?;
        let root = machine::run(&archive).map_err(|(at_byte, problem)| StoreError::Pickle {
            path: path.to_owned(),
            at_byte,
            problem,
        })?;
        Ok(Self { file, root })
    }

    /// What was saved.
    pub fn root(&self) -> &PickleValue {
        &self.root
    }

    /// The elements of a tensor of this file.
    ///
    /// # Errors
    /// [`TensorError::WrongSize`] for a tensor of another file.
    pub fn view<'a>(&'a self, tensor: &'a StoredTensor) -> Result<TensorView<'a>, TensorError> {
        tensor.view(self.file.bytes())
    }

    /// Every tensor by name; nested dicts join their keys by `/`, so the masks `{task: {key: …}}` are `task/key`.
    pub fn tensors(&self) -> Vec<(String, &StoredTensor)> {
        let mut tensors = Vec::new();
        collect(&self.root, "", &mut tensors);
        tensors
    }

    /// The file, and the tensors of the model in it: of the root, or of the dict that a trainer put its weights in.
    pub(crate) fn into_state_dict(self) -> Result<(MappedFile, Vec<(String, StoredTensor)>), StoreError> {
        let has_tensors = |value: &PickleValue| {
            value.entries().iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_)))
        };
        let mut model = &self.root;
        if !has_tensors(model) {
            let mut wrapped = WRAPPERS.iter().filter_map(|name| self.root.get(name));
            model = wrapped.find(|value| !value.entries().is_empty()).unwrap_or(model);
        }
        let mut tensors = Vec::new();
        collect(model, "", &mut tensors);
        if tensors.is_empty() {
            return Err(StoreError::NoTensors { path: self.file.path().to_owned(), found: self.root.kind() });
        }
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.clone())).collect();
        Ok((self.file, tensors))
    }
}

fn collect<'a>(value: &'a PickleValue, name: &str, tensors: &mut Vec<(String, &'a StoredTensor)>) {
    if let PickleValue::Tensor(tensor) = value {
        tensors.push((name.to_owned(), tensor));
    }
    for (key, value) in value.entries() {
        let key = match key {
            PickleValue::Str(key) => key.to_string(),
            PickleValue::Int(key) => key.to_string(),
            _ => continue,
        };
        let joined = if name.is_empty() { key } else { format!("{name}/{key}") };
        collect(value, &joined, tensors);
    }
}
