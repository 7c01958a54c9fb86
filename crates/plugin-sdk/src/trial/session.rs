//! The C structs of one trial, and the calls made with them.

use core::cell::{Cell, RefCell};
use core::ffi::c_void;

use skillweld_plugin_abi as abi;

use super::{Trial, TrialTensor};
use crate::raw;

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
pub(super) struct Heard {
    /// Its last message.
    message: RefCell<String>,
    /// The pass has nothing to add.
    settled: Cell<bool>,
    /// How it computes.
    pub(super) path: RefCell<Option<String>>,
}

/// What the structs of one trial point to, alive while the method runs.
pub(super) struct Session<'a> {
    trial: &'a Trial,
    pub(super) method: &'a abi::Method,
    pub(super) experts: usize,
    /// On the heap, because `host` points to it.
    pub(super) heard: Box<Heard>,
    host: abi::Host,
    /// Back `params`.
    _values: [Vec<f64>; 2],
    params: abi::Params,
}

impl<'a> Session<'a> {
    pub(super) fn new(trial: &'a Trial) -> Self {
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
    pub(super) fn merge_all(&self) -> Result<Vec<Vec<f32>>, String> {
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

    pub(super) fn check(&self, status: Option<i32>) -> Result<(), String> {
        match status {
            Some(abi::status::OK) => Ok(()),
            Some(status) => Err(format!("status {status}: {}", self.heard.message.borrow())),
            None => Err("the method lacks this function".to_owned()),
        }
    }

    pub(super) fn plan(&self) -> Result<abi::Plan, String> {
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
    pub(super) fn totals(&self, plan: &abi::Plan) -> Result<Vec<Vec<f64>>, String> {
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
    pub(super) fn for_each_block(
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
    pub(super) fn call(&self, t: usize, totals: &[f64]) -> abi::Call {
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
