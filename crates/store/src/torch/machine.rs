//! The pickle machine: a stack, a memo and an arena of values, with limits on each.

use std::collections::HashMap;
use std::sync::Arc;

use skillweld_tensor::Dtype;

use crate::PickleProblem;
use crate::stored::StoredTensor;
use crate::torch::archive::Archive;
use crate::torch::opcodes;
use crate::torch::tensor::{Storage, TensorBuilder, dtype_by_name, dtype_of_storage};
use crate::torch::value::PickleValue;

/// Deepest nesting of containers. State dicts use 2, the masks of MergeVLA 3.
const MAX_DEPTH: usize = 32;

/// As many as PyTorch allows.
const MAX_DIMENSIONS: usize = 64;

type Id = usize;
type Outcome<T = ()> = Result<T, PickleProblem>;

/// A value in the arena. Containers hold ids, as pickles fill them after others already refer to them.
#[derive(Debug, Clone)]
enum Node {
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
enum Global {
    OrderedDict,
    Size,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    /// `None`: untyped.
    StorageClass(Option<Dtype>),
    Dtype(Dtype),
}

/// Runs the archive's pickle. A failure comes with the byte of `data.pkl` where it happened.
pub(crate) fn run(archive: &Archive<'_>) -> Result<PickleValue, (usize, PickleProblem)> {
    let mut machine = Machine {
        pickle: archive.pickle(),
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        tensors: TensorBuilder::new(archive),
    };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return machine.tree(root).map_err(|problem| (at, problem)),
            Err(problem) => return Err((at, problem)),
        }
    }
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at each open MARK.
    marks: Vec<usize>,
    /// Sparse: a memo index is any u32 that the file likes.
    memo: HashMap<u32, Id>,
    tensors: TensorBuilder<'a>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode. At STOP gives the result. Each opcode takes a byte and makes at most one node, so memory is
    /// bounded by the length of the pickle.
    fn step(&mut self) -> Outcome<Option<Id>> {
        let code = self.byte()?;
        match code {
            0x80 => drop(self.byte()?),  // PROTO: the opcodes speak for themselves
            0x95 => drop(self.take(8)?), // FRAME: a hint for readers of streams
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Node::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value));
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                self.string(len.into())?;
            }
            0x8c => {
                let len = self.byte()?;
                self.string(len.into())?;
            }
            0x8d => {
                let len = u64::from_le_bytes(self.array()?);
                self.string(len)?;
            }
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let start = self.stack.len().checked_sub(count).filter(|s| *s >= self.floor());
                let items = self.stack.split_off(start.ok_or(UNDERFLOW)?);
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let index = self.byte()?;
                self.memoize(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.memoize(index)?;
            }
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'h' => {
                let index = self.byte()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            b'c' => {
                let global = global(self.line()?.as_str(), self.line()?.as_str())?;
                self.push(Node::Global(global));
            }
            0x93 => {
                let (name, module) = (self.pop_string()?, self.pop_string()?);
                let global = global(&module, &name)?;
                self.push(Node::Global(global));
            }
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => {
                return Err(match opcodes::name(code) {
                    Some(name) => PickleProblem::RefusedOpcode { name },
                    None => PickleProblem::UnknownOpcode { code },
                });
            }
        }
        Ok(None)
    }

    /// The storage of a tensor: `('storage', torch.FloatStorage, key, device, numel)`.
    fn persistent_id(&mut self) -> Outcome {
        let id = self.pop()?;
        let foreign = PickleProblem::Malformed { reason: "a persistent id is not that of a tensor storage" };
        let Node::Tuple(fields) = &self.nodes[id] else { return Err(foreign) };
        let &[tag, class, key, _device, numel] = &fields[..] else { return Err(foreign) };
        let node = |id: Id| &self.nodes[id];
        let (Node::Str(tag), Node::Global(Global::StorageClass(dtype)), Node::Str(key)) =
            (node(tag), node(class), node(key))
        else {
            return Err(foreign);
        };
        if &**tag != "storage" {
            return Err(foreign);
        }
        let storage = Storage { dtype: *dtype, key: key.clone(), numel: size(node(numel))? };
        self.push(Node::Storage(storage));
        Ok(())
    }

    /// Calls a known callable with a tuple of arguments. Nothing of unknown length is copied here, or a short pickle
    /// could ask for it again and again.
    fn reduce(&mut self) -> Outcome {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Node::Global(callable) = self.nodes[callable] else {
            return Err(PickleProblem::Malformed {
                reason: "something that is not a known function is called",
            });
        };
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err(PickleProblem::Malformed { reason: "a call has arguments that are not a tuple" });
        };
        let result = match (callable, &arguments[..]) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (Global::Size, &[same]) if matches!(self.nodes[same], Node::Tuple(_)) => {
                return self.give_back(same);
            }
            (Global::RebuildParameter, &[same, ..]) if matches!(self.nodes[same], Node::Tensor(_)) => {
                return self.give_back(same);
            }
            (Global::RebuildTensorV2, [place @ .., _requires_grad, _hooks]) if place.len() == 4 => {
                tensor(&self.nodes, &mut self.tensors, place, None)?
            }
            (Global::RebuildTensorV2, [place @ .., _requires_grad, _hooks, bits]) if place.len() == 4 => {
                refuse_lazy_bits(&self.nodes[*bits])?;
                tensor(&self.nodes, &mut self.tensors, place, None)?
            }
            (Global::RebuildTensorV3, [place @ .., _requires_grad, _hooks, dtype]) if place.len() == 4 => {
                tensor(&self.nodes, &mut self.tensors, place, Some(*dtype))?
            }
            _ => {
                return Err(PickleProblem::Malformed {
                    reason: "a known function is called with unknown arguments",
                });
            }
        };
        self.push(result);
        Ok(())
    }

    /// Pushes a value that exists already.
    fn give_back(&mut self, id: Id) -> Outcome {
        self.stack.push(id);
        Ok(())
    }

    /// `__setstate__`: only an `OrderedDict` may have one (its `_metadata` of module versions), and it is dropped.
    fn build(&mut self) -> Outcome {
        self.pop()?;
        match self.top()? {
            Node::Dict(_) => Ok(()),
            _ => Err(PickleProblem::RefusedOpcode { name: "BUILD" }),
        }
    }

    fn append(&mut self, items: &[Id]) -> Outcome {
        match self.top()? {
            Node::List(list) => list.extend_from_slice(items),
            _ => {
                return Err(PickleProblem::Malformed {
                    reason: "something is appended to what is not a list",
                });
            }
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Outcome {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(PickleProblem::Malformed { reason: "a dict gets a key without a value" });
        };
        match self.top()? {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(PickleProblem::Malformed { reason: "an item is set on what is not a dict" }),
        }
        Ok(())
    }

    fn long(&mut self) -> Outcome {
        let len = usize::from(self.byte()?);
        let bytes = self.take(len)?;
        // Little-endian two's complement, any length; what does not fit into 64 bits has no use here.
        let negative = bytes.last().is_some_and(|&last| last >= 0x80);
        let fill = if negative { 0xff } else { 0 };
        let (low, high) = bytes.split_at(len.min(8));
        let mut value = [fill; 8];
        value[..low.len()].copy_from_slice(low);
        let value = i64::from_le_bytes(value);
        if high.iter().any(|&byte| byte != fill) || (value < 0) != negative {
            return Err(PickleProblem::Limit { what: "an integer of more than 64 bits" });
        }
        self.push(Node::Int(value));
        Ok(())
    }

    fn string(&mut self, len: u64) -> Outcome {
        let bytes = self.take(usize::try_from(len).map_err(|_| PickleProblem::Truncated)?)?;
        let text = str::from_utf8(bytes)
            .map_err(|_| PickleProblem::Malformed { reason: "a string is not UTF-8" })?;
        self.push(Node::Str(text.into()));
        Ok(())
    }

    fn memoize(&mut self, index: u32) -> Outcome {
        let &top = self.stack.last().filter(|_| self.stack.len() > self.floor()).ok_or(UNDERFLOW)?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Outcome {
        let id =
            self.memo.get(&index).ok_or(PickleProblem::Malformed { reason: "the memo has no such entry" })?;
        self.stack.push(*id);
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Values below the last open MARK are out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Outcome<Id> {
        if self.stack.len() <= self.floor() {
            return Err(UNDERFLOW);
        }
        self.stack.pop().ok_or(UNDERFLOW)
    }

    fn pop_string(&mut self) -> Outcome<Arc<str>> {
        let id = self.pop()?;
        match &self.nodes[id] {
            Node::Str(text) => Ok(text.clone()),
            _ => Err(PickleProblem::Malformed { reason: "the name of a global is not a string" }),
        }
    }

    fn pop_to_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().ok_or(UNDERFLOW)?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn top(&mut self) -> Outcome<&mut Node> {
        let &top = self.stack.last().filter(|_| self.stack.len() > self.floor()).ok_or(UNDERFLOW)?;
        Ok(&mut self.nodes[top])
    }

    fn byte(&mut self) -> Outcome<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let array = self.pickle[self.at..].first_chunk().copied().ok_or(PickleProblem::Truncated)?;
        self.at += N;
        Ok(array)
    }

    fn take(&mut self, len: usize) -> Outcome<&'a [u8]> {
        let pickle: &'a [u8] = self.pickle;
        let bytes = pickle[self.at..].get(..len).ok_or(PickleProblem::Truncated)?;
        self.at += len;
        Ok(bytes)
    }

    /// Text up to a newline: half of a GLOBAL.
    fn line(&mut self) -> Outcome<String> {
        let rest = &self.pickle[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleProblem::Truncated)?;
        let text = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(text)
    }

    /// Turns the arena into a tree. Shared parts are repeated, so their number is limited by the pickle's length: an
    /// honest pickle spends at least a byte on each value.
    fn tree(&self, root: Id) -> Outcome<PickleValue> {
        let mut budget = self.pickle.len();
        self.subtree(root, MAX_DEPTH, &mut budget)
    }

    fn subtree(&self, id: Id, depth: usize, budget: &mut usize) -> Outcome<PickleValue> {
        *budget =
            budget.checked_sub(1).ok_or(PickleProblem::Limit { what: "values repeated over and over" })?;
        let depth =
            depth.checked_sub(1).ok_or(PickleProblem::Limit { what: "containers nested too deeply" })?;
        let mut each = |id: &Id| self.subtree(*id, depth, budget);
        Ok(match &self.nodes[id] {
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
                return Err(PickleProblem::Malformed {
                    reason: "a bare storage or function is kept as a value",
                });
            }
        })
    }
}

const UNDERFLOW: PickleProblem =
    PickleProblem::Malformed { reason: "an opcode finds too few values on the stack" };

/// `_rebuild_tensor` from `[storage, offset, shape, strides]`; an untyped storage comes with a dtype.
fn tensor(nodes: &[Node], tensors: &mut TensorBuilder<'_>, place: &[Id], dtype: Option<Id>) -> Outcome<Node> {
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
fn refuse_lazy_bits(bits: &Node) -> Outcome {
    match bits {
        Node::None => Ok(()),
        Node::Dict(bits) if bits.is_empty() => Ok(()),
        _ => Err(PickleProblem::Malformed {
            reason: "a tensor is a lazy conjugate or negative; save it resolved",
        }),
    }
}

fn size(node: &Node) -> Outcome<usize> {
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
fn global(module: &str, name: &str) -> Outcome<Global> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch.storage", "UntypedStorage") => Some(Global::StorageClass(None)),
        ("torch", _) => dtype_of_storage(name)
            .map(|dtype| Global::StorageClass(Some(dtype)))
            .or_else(|| dtype_by_name(name).map(Global::Dtype)),
        _ => None,
    };
    known.ok_or_else(|| PickleProblem::RefusedGlobal { name: format!("{module}.{name}") })
}
