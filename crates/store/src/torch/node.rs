//! Values of the pickle machine: the arena that opcodes build, and the tree that comes out of it.

use std::sync::Arc;

use skillweld_tensor::Dtype;

use crate::PickleProblem;
use crate::stored::StoredTensor;
use crate::torch::tensor::{Storage, TensorBuilder, dtype_by_name, dtype_of_storage};
use crate::torch::value::PickleValue;

/// Deepest nesting of containers. State dicts use 2, the masks of MergeVLA 3.
const MAX_DEPTH: usize = 32;

/// As many as PyTorch allows.
const MAX_DIMENSIONS: usize = 64;

pub(crate) type Id = usize;
pub(crate) type Outcome<T = ()> = Result<T, PickleProblem>;

/// A value in the arena. Containers hold ids, as pickles fill them after others already refer to them.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Tensor(Arc<StoredTensor>),
    Storage(Storage),
    Global(Global),
}

/// The only names that a pickle may import.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Global {
    OrderedDict,
    Size,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    /// `None`: untyped.
    StorageClass(Option<Dtype>),
    Dtype(Dtype),
    /// The string enumeration that MergeVLA's scripts name tasks by: a member stands for its value.
    TaskSuite,
}

/// Turns the arena into a tree. Shared parts are repeated, so there may be at most `budget` values: the pickle's length,
/// as an honest one spends at least a byte on each.
pub(crate) fn tree(nodes: &[Node], root: Id, mut budget: usize) -> Outcome<PickleValue> {
    subtree(nodes, root, MAX_DEPTH, &mut budget)
}

fn subtree(nodes: &[Node], id: Id, depth: usize, budget: &mut usize) -> Outcome<PickleValue> {
    *budget = budget.checked_sub(1).ok_or(PickleProblem::Limit { what: "values repeated over and over" })?;
    let depth = depth.checked_sub(1).ok_or(PickleProblem::Limit { what: "containers nested too deeply" })?;
    let mut each = |id: &Id| subtree(nodes, *id, depth, budget);
    Ok(match &nodes[id] {
        Node::None => PickleValue::None,
        Node::Bool(value) => PickleValue::Bool(*value),
        Node::Int(value) => PickleValue::Int(*value),
        Node::Float(value) => PickleValue::Float(*value),
        Node::Str(text) => PickleValue::Str(text.clone()),
        Node::List(items) => PickleValue::List(items.iter().map(each).collect::<Outcome<_>>()?),
        Node::Tuple(items) => PickleValue::Tuple(items.iter().map(each).collect::<Outcome<_>>()?),
        Node::Dict(entries) => {
            let pairs = entries.iter().map(|(key, value)| Ok((each(key)?, each(value)?)));
            PickleValue::Dict(pairs.collect::<Outcome<_>>()?)
        }
        Node::Tensor(tensor) => PickleValue::Tensor(tensor.clone()),
        Node::Global(Global::Dtype(dtype)) => PickleValue::Dtype(*dtype),
        Node::Storage(_) | Node::Global(_) => {
            return Err(PickleProblem::Malformed { reason: "a bare storage or function is kept as a value" });
        }
    })
}

/// `_rebuild_tensor` from `[storage, offset, shape, strides]`; an untyped storage comes with a dtype.
pub(crate) fn tensor(
    nodes: &[Node],
    tensors: &mut TensorBuilder<'_>,
    place: &[Id],
    dtype: Option<Id>,
) -> Outcome<Node> {
    let malformed = PickleProblem::Malformed { reason: "a tensor has no storage or no dtype" };
    let &[storage, offset, shape, strides] = place else { return Err(malformed) };
    let Node::Storage(storage) = &nodes[storage] else { return Err(malformed) };
    let dtype = match dtype.map(|id| &nodes[id]) {
        Some(Node::Global(Global::Dtype(dtype))) => Some(*dtype),
        Some(_) => None,
        None => storage.dtype,
    };
    let dtype = dtype.ok_or(malformed)?;
    let (offset, shape, strides) = (size(&nodes[offset])?, sizes(nodes, shape)?, sizes(nodes, strides)?);
    tensors.build(storage, dtype, offset, shape, strides).map(|tensor| Node::Tensor(Arc::new(tensor)))
}

/// Bits that change what the bytes mean (conjugate, negative) come as a dict after the other arguments.
pub(crate) fn refuse_lazy_bits(bits: &Node) -> Outcome {
    match bits {
        Node::None => Ok(()),
        Node::Dict(bits) if bits.is_empty() => Ok(()),
        _ => Err(PickleProblem::Malformed {
            reason: "a tensor is a lazy conjugate or negative; save it resolved",
        }),
    }
}

pub(crate) fn size(node: &Node) -> Outcome<usize> {
    let size = if let Node::Int(value) = node { usize::try_from(*value).ok() } else { None };
    size.ok_or(PickleProblem::Malformed { reason: "an offset, dimension or stride is not a number ≥ 0" })
}

fn sizes(nodes: &[Node], tuple: Id) -> Outcome<Vec<usize>> {
    match &nodes[tuple] {
        Node::Tuple(items) if items.len() <= MAX_DIMENSIONS => {
            items.iter().map(|&id| size(&nodes[id])).collect()
        }
        Node::Tuple(_) => Err(PickleProblem::Limit { what: "tensors of more than 64 dimensions" }),
        _ => Err(PickleProblem::Malformed { reason: "a tensor's shape or strides are not a tuple" }),
    }
}

/// The known globals; every other is refused by its full name.
pub(crate) fn global(module: &str, name: &str) -> Outcome<Global> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        // `__main__`'s where a script saved it, its module's where it was imported. Either way nothing is called.
        (_, "TaskSuite") => Some(Global::TaskSuite),
        ("torch.storage", "UntypedStorage") => Some(Global::StorageClass(None)),
        ("torch", _) => dtype_of_storage(name)
            .map(|dtype| Global::StorageClass(Some(dtype)))
            .or_else(|| dtype_by_name(name).map(Global::Dtype)),
        _ => None,
    };
    known.ok_or_else(|| PickleProblem::RefusedGlobal { name: format!("{module}.{name}") })
}
