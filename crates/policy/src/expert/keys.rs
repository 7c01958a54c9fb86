use skillweld_tensor::Dtype;

use crate::backend::{Result, WeightKind};
use crate::weights::{LayerNorm, Linear, Plan, WeightId};

/// The plan as one expert sees it: a tensor is its own where it has one, and shared with the others otherwise.
pub(super) struct ExpertPlan<'p, 'a> {
    pub(super) plan: &'p mut Plan<'a>,
    pub(super) expert: usize,
}

impl ExpertPlan<'_, '_> {
    /// The key of `tensor`, named as in the published file without `model.`, which is what `module` ends in.
    fn module(&self, module: &str, parameter: &str) -> String {
        let own = own_key(self.expert, module);
        if self.plan.has(&format!("{own}{parameter}")) { own } else { format!("action_head.model.{module}") }
    }

    pub(super) fn has(&self, module: &str) -> bool {
        self.plan.has(&format!("{}.weight", self.module(module, ".weight")))
    }

    pub(super) fn linear(&mut self, module: &str, out: usize, input: usize) -> Result<Linear> {
        let module = self.module(module, ".weight");
        self.plan.linear(&module, out, input)
    }

    /// A layer of the trunk, as (weight, bias).
    pub(super) fn trunk_linear(&mut self, module: &str, width: usize) -> Result<(WeightId, WeightId)> {
        let module = self.module(module, ".weight");
        let weight = self.plan.add(WeightKind::TrunkMatrix, &format!("{module}.weight"), width, width)?;
        Ok((weight, self.plan.vector(&format!("{module}.bias"), width)?))
    }

    pub(super) fn layer_norm(&mut self, module: &str, width: usize) -> Result<LayerNorm> {
        let module = self.module(module, ".weight");
        self.plan.layer_norm(&module, width)
    }

    /// Dimensions of `<module>.weight`.
    pub(super) fn dims<const N: usize>(&self, module: &str) -> Result<[usize; N]> {
        self.plan.dims(&format!("{}.weight", self.module(module, ".weight")))
    }

    /// The dtype that `<module>.weight` is stored in.
    pub(super) fn dtype(&self, module: &str) -> Option<Dtype> {
        let tensor = self.plan.source().tensor(&format!("{}.weight", self.module(module, ".weight")))?;
        Some(tensor.dtype())
    }

    /// All values of `<module><parameter>`.
    pub(super) fn values(&self, module: &str, parameter: &str) -> Result<Vec<f32>> {
        self.plan.values(&format!("{}{parameter}", self.module(module, parameter)))
    }

    /// The one value of a tensor.
    pub(super) fn scalar(&self, name: &str) -> Result<f32> {
        match self.values(name, "")?[..] {
            [value] if value.is_finite() => Ok(value),
            _ => {
                let key = self.module(name, "");
                Err(self.plan.problem(format!("tensor `{key}` must hold one finite number")))
            }
        }
    }
}

/// The key of what belongs to one expert alone.
fn own_key(expert: usize, name: &str) -> String {
    format!("experts/{expert}/action_head.model.{name}")
}

/// Number of expert heads: 1 for an expert's own file.
pub(super) fn experts(plan: &Plan<'_>) -> usize {
    plan.count("experts/", 0, "/action_head.model.fc2.weight").max(1)
}
