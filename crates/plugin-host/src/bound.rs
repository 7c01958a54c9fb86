use core::ops::Range;

use serde_json::Value;
use skillweld_plugin_abi as abi;

use crate::call::check_status;
use crate::hooks::Context;
use crate::{HostHooks, Method, ParamSpec, PluginError};

/// A method with the parameters of one group of tensors: ready to be called, from any thread.
#[derive(Debug, Clone)]
pub struct Bound {
    pub(crate) method: Method,
    pub(crate) expert_count: usize,
    pub(crate) global: Vec<f64>,
    pub(crate) per_expert: Vec<f64>,
    plan: Plan,
}

/// How a method wants to be run with given parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Length of the sums of each `observe` pass; empty = the method needs no statistics.
    pub sums_len: Vec<usize>,
    /// Over what the sums are taken.
    pub scope: Scope,
    /// f32 of scratch for each element of a block.
    pub scratch_per_element: usize,
    /// For each pass: one element of so many is enough, taken anywhere; 1 where it must see all.
    pub sample: Vec<usize>,
    /// Tensors must come in one piece.
    pub whole: bool,
}

/// Over what the sums of `observe` are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Each tensor by itself.
    #[default]
    Tensor,
    /// All tensors of the merge together.
    Global,
}

impl Plan {
    /// Number of `observe` passes.
    pub fn passes(&self) -> usize {
        self.sums_len.len()
    }

    /// Length of the totals of all passes.
    pub fn totals_len(&self) -> usize {
        self.sums_len.iter().sum()
    }

    /// Where the totals of `pass` stand among all totals.
    pub fn totals_of(&self, pass: usize) -> Range<usize> {
        let start = self.sums_len[..pass].iter().sum();
        start..start + self.sums_len[pass]
    }
}

/// Most sums of one pass: 128 MiB.
const MAX_SUMS_LEN: u64 = 1 << 24;
/// Most scratch for one element: 16 KiB.
const MAX_SCRATCH_PER_ELEMENT: u64 = 1 << 12;

impl Method {
    /// Checks parameters for `expert_count` experts and asks the method for its plan.
    ///
    /// `value` is asked for each parameter of [`params`](Self::params), with the expert's number for those that each
    /// expert has; where it gives `None` the default is taken. Its own error passes through.
    ///
    /// # Errors
    /// [`PluginError::ExpertCount`], [`MissingParameter`](PluginError::MissingParameter),
    /// [`BadParameter`](PluginError::BadParameter), [`BadPlan`](PluginError::BadPlan), or whatever the method's
    /// `plan` fails with.
    pub fn bind<E: From<PluginError>>(
        &self,
        expert_count: usize,
        hooks: &HostHooks<'_>,
        mut value: impl FnMut(&ParamSpec, Option<usize>) -> Result<Option<Value>, E>,
    ) -> Result<Bound, E> {
        let (min, max) = (self.min_experts(), self.max_experts());
        if expert_count < min || max.is_some_and(|max| expert_count > max) {
            return Err(
                PluginError::ExpertCount { method: self.id().into(), count: expert_count, min, max }.into()
            );
        }
        let (mut global, mut per_expert) = (Vec::new(), Vec::new());
        for spec in self.params() {
            if spec.per_expert {
                for expert in 0..expert_count {
                    let value = value(spec, Some(expert))?;
                    per_expert.push(self.encode(spec, Some(expert), value.as_ref())?);
                }
            } else {
                let value = value(spec, None)?;
                global.push(self.encode(spec, None, value.as_ref())?);
            }
        }
        let mut bound =
            Bound { method: self.clone(), expert_count, global, per_expert, plan: Plan::default() };
        bound.plan = bound.ask_for_plan(hooks)?;
        Ok(bound)
    }

    /// [`bind`](Self::bind) with every parameter at its default.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub fn bind_defaults(&self, expert_count: usize, hooks: &HostHooks<'_>) -> Result<Bound, PluginError> {
        self.bind(expert_count, hooks, |_, _| Ok(None))
    }

    fn encode(
        &self,
        spec: &ParamSpec,
        expert: Option<usize>,
        value: Option<&Value>,
    ) -> Result<f64, PluginError> {
        let Some(value) = value.or(spec.default.as_ref()) else {
            return Err(PluginError::MissingParameter {
                method: self.id().into(),
                parameter: spec.name.clone(),
                expert,
                allowed: spec.kind.to_string(),
            });
        };
        spec.kind.encode(value).ok_or_else(|| PluginError::BadParameter {
            method: self.id().into(),
            parameter: spec.name.clone(),
            expert,
            value: value.to_string(),
            allowed: spec.kind.to_string(),
        })
    }
}

impl Bound {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Number of experts it was bound for.
    pub fn expert_count(&self) -> usize {
        self.expert_count
    }

    /// How it wants to be run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Values of the parameters that all experts share, in the schema's order, as the boundary has them.
    pub fn global(&self) -> &[f64] {
        &self.global
    }

    /// Values of the parameters that each expert has: that of the j-th for expert k at `j * expert_count + k`.
    pub fn per_expert(&self) -> &[f64] {
        &self.per_expert
    }

    /// True when both give the same method the same parameters, bit for bit. Only then can their sums be added.
    pub fn same_parameters(&self, other: &Self) -> bool {
        let same = |a: &[f64], b: &[f64]| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
        (self.method.kind(), self.method.id(), self.expert_count)
            == (other.method.kind(), other.method.id(), other.expert_count)
            && same(&self.global, &other.global)
            && same(&self.per_expert, &other.per_expert)
    }

    /// The parameters as the boundary takes them.
    pub(crate) fn abi_params(&self) -> abi::Params {
        abi::Params {
            size: size_of::<abi::Params>() as u64,
            global: self.global.as_ptr(),
            global_count: self.global.len() as u64,
            per_expert: self.per_expert.as_ptr(),
            per_expert_count: (self.per_expert.len() / self.expert_count.max(1)) as u64,
            expert_count: self.expert_count as u64,
        }
    }

    fn ask_for_plan(&self, hooks: &HostHooks<'_>) -> Result<Plan, PluginError> {
        let functions = self.method.functions();
        let matrix = self.method.has(abi::flags::MATRIX);
        let Some(plan) = functions.plan else { return Ok(Plan { whole: matrix, ..Plan::default() }) };
        let context = Context::new(hooks);
        let (host, params) = (context.host(), self.abi_params());
        let mut raw = abi::Plan {
            size: size_of::<abi::Plan>() as u64,
            passes: 0,
            scope: 0,
            sums_len: [0; abi::MAX_PASSES],
            scratch_per_element: 0,
            sample: [0; abi::MAX_PASSES],
            whole: 0,
        };
        // SAFETY: all three point to locals that outlive the call; lengths in `params` are those of its vectors.
        let status = unsafe { plan(&raw const host, &raw const params, &raw mut raw) };
        check_status(status, context, &self.method, "")?;
        let bad = |reason: String| PluginError::BadPlan { method: self.method.id().into(), reason };
        let passes = raw.passes as usize;
        if passes > abi::MAX_PASSES {
            return Err(bad(format!("{passes} passes, allowed are {}", abi::MAX_PASSES)));
        }
        if passes > 0 && functions.observe.is_none() {
            return Err(bad(format!("{passes} passes, but its function `observe` is null")));
        }
        let scope = match raw.scope {
            _ if passes == 0 => Scope::Tensor,
            abi::SCOPE_TENSOR => Scope::Tensor,
            abi::SCOPE_GLOBAL => Scope::Global,
            other => return Err(bad(format!("scope {other} is neither tensor (1) nor global (2)"))),
        };
        let sums_len = &raw.sums_len[..passes];
        if let Some(len) = sums_len.iter().find(|&&len| len > MAX_SUMS_LEN) {
            return Err(bad(format!("{len} sums in one pass, allowed are {MAX_SUMS_LEN}")));
        }
        if raw.scratch_per_element > MAX_SCRATCH_PER_ELEMENT {
            return Err(bad(format!(
                "{} floats of scratch an element, allowed are {MAX_SCRATCH_PER_ELEMENT}",
                raw.scratch_per_element
            )));
        }
        Ok(Plan {
            sums_len: sums_len.iter().map(|&len| len as usize).collect(),
            scope,
            scratch_per_element: raw.scratch_per_element as usize,
            sample: raw.sample[..passes].iter().map(|&sample| sample.max(1) as usize).collect(),
            whole: raw.whole != 0 || matrix,
        })
    }
}
