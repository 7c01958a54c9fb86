//! From vision features to the language model's width.

use crate::backend::{Backend, Result, Then};
use crate::weights::{Device, Linear, Plan};

/// Linear layers with GELU between them: `projector.fc1`, `.fc2`, and `.fc3` where two towers are fused.
#[derive(Debug)]
pub struct Projector {
    hidden: Vec<Linear>,
    last: Linear,
}

impl Projector {
    /// From features of width `vision` to tokens of width `language`.
    ///
    /// # Errors
    /// [`crate::PolicyError::Checkpoint`] when a tensor is missing or does not fit.
    pub fn plan(plan: &mut Plan<'_>, vision: usize, language: usize) -> Result<Self> {
        let count = plan.count("projector.fc", 1, ".weight").max(1);
        let mut hidden = Vec::new();
        let mut width = vision;
        for index in 1..count {
            let name = format!("projector.fc{index}");
            let [out, _] = plan.dims(&format!("{name}.weight"))?;
            hidden.push(plan.linear(&name, out, width)?);
            width = out;
        }
        let last = plan.linear(&format!("projector.fc{count}"), language, width)?;
        Ok(Self { hidden, last })
    }

    /// Patches × vision width → patches × language width.
    ///
    /// # Errors
    /// Whatever the backend refuses.
    pub fn forward<B: Backend>(&self, device: Device<'_, B>, features: &B::Matrix) -> Result<B::Matrix> {
        let mut x = None;
        for &layer in &self.hidden {
            x = Some(device.linear(x.as_ref().unwrap_or(features), layer, Then::Gelu)?);
        }
        device.linear(x.as_ref().unwrap_or(features), self.last, Then::Keep)
    }
}
