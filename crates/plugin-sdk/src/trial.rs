//! A small host for the tests of a plugin: tensors in memory, through the same C functions that the real host calls.
//!
//! Every function here panics when the method fails: a failed trial is a failed test.

use core::cell::{Cell, RefCell};
use core::ffi::c_void;

use skillweld_plugin_abi as abi;

use crate::export::{Entry, Exported};
use crate::{Value, raw};

type RescaleFn = unsafe extern "C" fn(*const abi::Call, *mut f32) -> i32;

/// One run of a method on tensors given as slices. Parameters that are not set have their defaults.
pub struct Trial {
    entry: &'static Entry,
    tensors: Vec<TrialTensor>,
    settings: Vec<(&'static str, Vec<f64>)>,
    seed: u64,
    block_len: usize,
    key: &'static str,
}

/// B, A and their rank.
type TrialFactors = (Vec<f32>, Vec<f32>, usize);

#[derive(Default)]
struct TrialTensor {
    /// Empty: as many elements in one dimension.
    shape: Vec<u64>,
    experts: Vec<Vec<f32>>,
    /// Of experts that come as factors.
    factors: Vec<Option<TrialFactors>>,
    /// One an expert, or none.
    statistics: Vec<Vec<f32>>,
    base: Option<Vec<f32>>,
    merged: Option<Vec<f32>>,
}

impl Trial {
    /// A trial of one method.
    pub fn of<M: Exported>() -> Self {
        Self {
            entry: M::entry(),
            tensors: Vec::new(),
            settings: Vec::new(),
            seed: 0,
            block_len: 1 << 14,
            key: "trial",
        }
    }

    /// Adds a tensor: one slice an expert, all of one length.
    pub fn experts(mut self, experts: &[&[f32]]) -> Self {
        let experts: Vec<Vec<f32>> = experts.iter().map(|expert| expert.to_vec()).collect();
        assert!(
            experts.windows(2).all(|pair| pair[0].len() == pair[1].len()),
            "experts of different lengths"
        );
        self.tensors.push(TrialTensor { experts, ..TrialTensor::default() });
        self
    }

    /// Gives the tensor added last its shape; without it, it has one dimension.
    pub fn shape(mut self, shape: &[usize]) -> Self {
        let tensor = self.last();
        assert_eq!(shape.iter().product::<usize>(), tensor.len(), "the shape has another number of elements");
        tensor.shape = shape.iter().map(|&n| n as u64).collect();
        self
    }

    /// Hands expert `k` of the tensor added last, a matrix, over as factors: B, m × rank, and A, rank × n. Its values
    /// are not.
    pub fn factors(mut self, k: usize, b: &[f32], a: &[f32], rank: usize) -> Self {
        let tensor = self.last();
        tensor.factors.resize(tensor.experts.len(), None);
        tensor.factors[k] = Some((b.to_vec(), a.to_vec(), rank));
        self
    }

    /// Name of all tensors; `trial` unless told otherwise.
    pub fn key(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    /// Gives the tensor added last its statistics, one slice an expert: of its length, or for a matrix method the square
    /// of its last dimension.
    pub fn statistics(mut self, statistics: &[&[f32]]) -> Self {
        self.last().statistics = statistics.iter().map(|values| values.to_vec()).collect();
        self
    }

    /// Gives the tensor added last its Θ₀.
    pub fn base(mut self, base: &[f32]) -> Self {
        self.last().base = Some(base.to_vec());
        self
    }

    /// Gives the tensor added last its merged task vector, for a mask method.
    pub fn merged(mut self, merged: &[f32]) -> Self {
        self.last().merged = Some(merged.to_vec());
        self
    }

    /// Sets a parameter, for all experts.
    pub fn set(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let param = self.entry.spec.params.iter().find(|param| param.name == name);
        let param = param.unwrap_or_else(|| panic!("no parameter `{name}`")).clone();
        self.settings.push((name, param.default(value).default.into_iter().collect()));
        self
    }

    /// Sets a parameter, one value an expert.
    pub fn per_expert(mut self, name: &'static str, values: &[f64]) -> Self {
        self.settings.push((name, values.to_vec()));
        self
    }

    /// Seed of the first tensor; each following one gets the next number.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Largest block, rounded up to a multiple of 8. Default 16384.
    pub fn block_len(mut self, len: usize) -> Self {
        self.block_len = len.next_multiple_of(8).max(8);
        self
    }

    /// The merged tensor, when there is one.
    pub fn merge(&self) -> Vec<f32> {
        assert_eq!(self.tensors.len(), 1, "`merge` is for one tensor; `merge_all` for several");
        self.merge_all().remove(0)
    }

    /// The merged tensors.
    pub fn merge_all(&self) -> Vec<Vec<f32>> {
        self.try_merge_all().unwrap_or_else(|message| panic!("{message}"))
    }

    /// The merged tensor, when there is one, and the way by which the method says that it computed it last.
    pub fn merge_with_path(&self) -> (Vec<f32>, Option<String>) {
        assert_eq!(self.tensors.len(), 1, "`merge_with_path` is for one tensor");
        let session = Session::new(self);
        let merged = session.merge_all().unwrap_or_else(|message| panic!("{message}")).remove(0);
        (merged, session.heard.path.take())
    }

    /// The merged tensors, or the message of the failure.
    pub fn try_merge_all(&self) -> Result<Vec<Vec<f32>>, String> {
        Session::new(self).merge_all()
    }

    /// The masks of the first tensor: one vector of flags an expert.
    pub fn masks(&self) -> Vec<Vec<bool>> {
        let session = Session::new(self);
        let len = self.tensors[0].len();
        let run = || {
            let plan = session.plan()?;
            let totals = session.totals(&plan)?;
            let mut bytes = vec![vec![0u8; len.div_ceil(8)]; session.experts];
            session.for_each_block(0, &plan, &totals[0], |call| {
                let start = call.offset as usize / 8;
                let masks: Vec<*mut u8> = bytes.iter_mut().map(|mask| mask[start..].as_mut_ptr()).collect();
                call.masks = masks.as_ptr();
                // SAFETY: every pointer of the call is valid; each mask has room from the offset on.
                session.method.run.map(|run| unsafe { run(call) })
            })?;
            Ok(bytes)
        };
        let bytes: Result<Vec<Vec<u8>>, String> = run();
        let bytes = bytes.unwrap_or_else(|message| panic!("{message}"));
        bytes.iter().map(|mask| (0..len).map(|i| mask[i / 8] >> (i % 8) & 1 == 1).collect()).collect()
    }

    /// The rescalers of a mask method, one an expert.
    pub fn rescalers(&self) -> Vec<f32> {
        let session = Session::new(self);
        let run = || {
            let totals = session.totals(&session.plan()?)?;
            let mut rescalers = vec![f32::NAN; session.experts];
            let call = session.call(0, &totals[0]);
            let fill = |rescale: RescaleFn| {
                // SAFETY: every pointer of the call is valid or null; there is one rescaler an expert.
                unsafe { rescale(&call, rescalers.as_mut_ptr()) }
            };
            session.check(session.method.rescale.map(fill))?;
            Ok(rescalers)
        };
        let rescalers: Result<Vec<f32>, String> = run();
        rescalers.unwrap_or_else(|message| panic!("{message}"))
    }

    fn last(&mut self) -> &mut TrialTensor {
        self.tensors.last_mut().unwrap_or_else(|| panic!("add a tensor with `experts` first"))
    }
}

impl TrialTensor {
    fn len(&self) -> usize {
        self.experts.first().map_or(0, Vec::len)
    }
}

unsafe extern "C" fn keep_message(context: *mut c_void, message: abi::Str) {
    // SAFETY: `context` is what the session heard, alive while the method runs; the text is valid during the call.
    unsafe { (*context.cast::<Heard>()).message.replace(raw::text(message).to_owned()) };
}

unsafe extern "C" fn note_settled(context: *mut c_void) {
    // SAFETY: as above.
    unsafe { (*context.cast::<Heard>()).settled.set(true) };
}

unsafe extern "C" fn keep_path(context: *mut c_void, name: abi::Str) {
    // SAFETY: as above.
    unsafe { (*context.cast::<Heard>()).path.replace(Some(raw::text(name).to_owned())) };
}

/// What a method said through the callbacks.
#[derive(Default)]
struct Heard {
    /// Its last message.
    message: RefCell<String>,
    /// The pass has nothing to add.
    settled: Cell<bool>,
    /// How it computes.
    path: RefCell<Option<String>>,
}

/// What the structs of one trial point to, alive while the method runs.
struct Session<'a> {
    trial: &'a Trial,
    method: &'a abi::Method,
    experts: usize,
    /// On the heap, because `host` points to it.
    heard: Box<Heard>,
    host: abi::Host,
    /// Back `params`.
    _values: [Vec<f64>; 2],
    params: abi::Params,
}

impl<'a> Session<'a> {
    fn new(trial: &'a Trial) -> Self {
        let experts = trial.tensors[0].experts.len();
        let (mut global, mut per_expert) = (Vec::new(), Vec::new());
        for param in &trial.entry.spec.params {
            let set = trial.settings.iter().rev().find(|(name, _)| *name == param.name);
            let default: &[f64] = param.default.as_slice();
            match (set.map_or(default, |(_, values)| values), param.per_expert) {
                ([], _) => panic!("parameter `{}` is required", param.name),
                ([value], true) => per_expert.extend(vec![*value; experts]),
                (values, true) if values.len() == experts => per_expert.extend(values),
                ([value], false) => global.push(*value),
                _ => panic!("parameter `{}` has the wrong number of values", param.name),
            }
        }
        let heard = Box::<Heard>::default();
        Self {
            trial,
            method: trial.entry.method(),
            experts,
            host: abi::Host {
                size: size_of::<abi::Host>() as u64,
                context: (&raw const *heard).cast_mut().cast(),
                error: Some(keep_message),
                log: None,
                progress: None,
                cancelled: None,
                settled: Some(note_settled),
                path: Some(keep_path),
            },
            heard,
            params: abi::Params {
                size: size_of::<abi::Params>() as u64,
                global: global.as_ptr(),
                global_count: global.len() as u64,
                per_expert: per_expert.as_ptr(),
                per_expert_count: (per_expert.len() / experts.max(1)) as u64,
                expert_count: experts as u64,
            },
            _values: [global, per_expert],
        }
    }

    /// Every tensor merged.
    fn merge_all(&self) -> Result<Vec<Vec<f32>>, String> {
        let plan = self.plan()?;
        let totals = self.totals(&plan)?;
        let merge = |(t, tensor): (usize, &TrialTensor)| {
            let mut out = vec![0.0; tensor.len()];
            self.for_each_block(t, &plan, &totals[t], |call| {
                let mut scratch = vec![f32::NAN; (call.len * plan.scratch_per_element) as usize];
                (call.scratch, call.scratch_len) = (scratch.as_mut_ptr(), scratch.len() as u64);
                call.out = out[call.offset as usize..].as_mut_ptr();
                // SAFETY: every pointer of the call is valid, and `out` has room from the offset on.
                self.method.run.map(|run| unsafe { run(call) })
            })?;
            Ok(out)
        };
        self.trial.tensors.iter().enumerate().map(merge).collect()
    }

    fn check(&self, status: Option<i32>) -> Result<(), String> {
        match status {
            Some(abi::status::OK) => Ok(()),
            Some(status) => Err(format!("status {status}: {}", self.heard.message.borrow())),
            None => Err("the method lacks this function".to_owned()),
        }
    }

    fn plan(&self) -> Result<abi::Plan, String> {
        let mut plan = abi::Plan {
            size: size_of::<abi::Plan>() as u64,
            passes: 0,
            scope: 0,
            sums_len: [0; abi::MAX_PASSES],
            scratch_per_element: 0,
            sample: [0; abi::MAX_PASSES],
            whole: 0,
        };
        // SAFETY: the structs are valid, and `plan` is this call's to write.
        self.check(self.method.plan.map(|fill| unsafe { fill(&self.host, &self.params, &mut plan) }))?;
        Ok(plan)
    }

    /// Totals of all passes, for each tensor.
    fn totals(&self, plan: &abi::Plan) -> Result<Vec<Vec<f64>>, String> {
        let mut totals = vec![Vec::new(); self.trial.tensors.len()];
        for pass in 0..plan.passes {
            let len = plan.sums_len[pass as usize] as usize;
            let mut sums = vec![vec![0.0; len]; totals.len()];
            for (t, sums) in sums.iter_mut().enumerate() {
                self.heard.settled.set(false);
                self.for_each_block(t, plan, &totals[t], |call| {
                    if self.heard.settled.get() {
                        return Some(abi::status::OK);
                    }
                    // As the host does: the first elements of each block.
                    call.len = call.len.div_ceil(plan.sample[pass as usize].max(1));
                    let mut scratch = vec![f32::NAN; (call.len * plan.scratch_per_element) as usize];
                    (call.scratch, call.scratch_len) = (scratch.as_mut_ptr(), scratch.len() as u64);
                    // SAFETY: every pointer of the call is valid; `sums` is as long as the plan says.
                    self.method.observe.map(|observe| unsafe { observe(call, pass, sums.as_mut_ptr()) })
                })?;
                if self.heard.settled.get() {
                    sums.fill(0.0);
                }
            }
            if plan.scope == abi::SCOPE_GLOBAL {
                let global: Vec<f64> = (0..len).map(|i| sums.iter().map(|tensor| tensor[i]).sum()).collect();
                sums.fill(global);
            }
            totals.iter_mut().zip(sums).for_each(|(totals, sums)| totals.extend(sums));
        }
        Ok(totals)
    }

    /// Cuts tensor `t` into blocks and hands each to `visit` as a call without outputs.
    fn for_each_block(
        &self,
        t: usize,
        plan: &abi::Plan,
        totals: &[f64],
        mut visit: impl FnMut(&mut abi::Call) -> Option<i32>,
    ) -> Result<(), String> {
        let tensor = &self.trial.tensors[t];
        let from = |values: &Option<Vec<f32>>, offset: usize| {
            values.as_ref().map_or(core::ptr::null(), |values| values[offset..].as_ptr())
        };
        let flat = [tensor.len() as u64];
        let shape = if tensor.shape.is_empty() { &flat[..] } else { &tensor.shape };
        let mut block_len = self.trial.block_len;
        if self.trial.entry.spec.flags & abi::flags::ROWS != 0 {
            let row = if shape.len() > 1 { shape[1..].iter().product() } else { tensor.len() as u64 };
            block_len = block_len.next_multiple_of(8 * (row as usize).max(1));
        }
        if plan.whole != 0 || self.method.flags & abi::flags::MATRIX != 0 {
            block_len = tensor.len().max(1);
        }
        // An empty tensor is one empty block.
        let matrix = self.method.flags & abi::flags::MATRIX != 0;
        for offset in (0..tensor.len().max(1)).step_by(block_len) {
            let len = block_len.min(tensor.len() - offset);
            let expert = |(k, expert): (usize, &Vec<f32>)| {
                let statistics = tensor.statistics.get(k);
                let statistics =
                    statistics.map(|values| if matrix { values } else { &values[offset..][..len] });
                let (b, a, rank) = match tensor.factors.get(k) {
                    Some(Some((b, a, rank))) => (b.as_ptr(), a.as_ptr(), *rank as u64),
                    _ => (core::ptr::null(), core::ptr::null(), 0),
                };
                abi::Tensor {
                    dense: if rank > 0 { core::ptr::null() } else { expert[offset..].as_ptr() },
                    b,
                    a,
                    rank,
                    statistics: statistics.map_or(core::ptr::null(), <[f32]>::as_ptr),
                    statistics_len: statistics.map_or(0, |values| values.len() as u64),
                }
            };
            let experts: Vec<abi::Tensor> = tensor.experts.iter().enumerate().map(expert).collect();
            let mut call = self.call(t, totals);
            (call.shape, call.ndim, call.numel) = (shape.as_ptr(), shape.len() as u64, flat[0]);
            (call.offset, call.len) = (offset as u64, len as u64);
            call.experts = experts.as_ptr();
            call.base = from(&tensor.base, offset);
            call.merged = from(&tensor.merged, offset);
            self.check(visit(&mut call))?;
        }
        Ok(())
    }

    /// A call for tensor `t` without data.
    fn call(&self, t: usize, totals: &[f64]) -> abi::Call {
        abi::Call {
            size: size_of::<abi::Call>() as u64,
            host: &self.host,
            params: &self.params,
            key: abi::Str::new(self.trial.key),
            shape: core::ptr::null(),
            ndim: 0,
            numel: 0,
            offset: 0,
            len: 0,
            seed: self.trial.seed + t as u64,
            expert_count: self.experts as u64,
            experts: core::ptr::null(),
            expert_stride: size_of::<abi::Tensor>() as u64,
            base: core::ptr::null(),
            merged: core::ptr::null(),
            totals: totals.as_ptr(),
            totals_len: totals.len() as u64,
            out: core::ptr::null_mut(),
            masks: core::ptr::null(),
            scratch: core::ptr::null_mut(),
            scratch_len: 0,
        }
    }
}
