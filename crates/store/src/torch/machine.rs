//! The pickle machine: a stack, a memo and an arena of values, with limits on each.

use std::collections::HashMap;
use std::sync::Arc;

use crate::PickleProblem;
use crate::torch::archive::Archive;
use crate::torch::node::{Global, Id, Node, Outcome, global, refuse_lazy_bits, size, tensor, tree};
use crate::torch::opcodes;
use crate::torch::tensor::{Storage, TensorBuilder};
use crate::torch::value::PickleValue;

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
            Ok(Some(root)) => {
                return tree(&machine.nodes, root, machine.pickle.len()).map_err(|problem| (at, problem));
            }
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
            (Global::TaskSuite, &[same]) if matches!(self.nodes[same], Node::Str(_)) => {
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
}

const UNDERFLOW: PickleProblem =
    PickleProblem::Malformed { reason: "an opcode finds too few values on the stack" };
