//! Which task an observation belongs to: a forward under every candidate's mask, scored in its router subspaces.
//!
//! The forwards run one after the other. What comes before the first weight in which tasks differ is computed once for all
//! of them (the vision towers, and the projector, of merges that leave them as they were). The rest shares nothing: every
//! product has another matrix for every task, so there is no larger product to batch them into.

use ndarray::ArrayView2;
use skillweld_router::{Calibration, Decision, Rule, projections, score};

use crate::PolicyError;
use crate::active::{ActiveTasks, CommonStages};
use crate::backend::{Backend, Matrix, Result};
use crate::forward::{Perception, array};
use crate::policy::Prepared;
use crate::session::Forwards;

/// A decision, and what was perceived for tasks that may follow from it.
pub(crate) struct Routed<M> {
    pub(crate) decision: Decision,
    perceived: Vec<(usize, Perception<M>)>,
    pub(crate) switch_ms: f64,
    pub(crate) forwards: Forwards,
}

impl<M> Routed<M> {
    /// What the forward under a task's weights saw, if that was among those run and is the best candidate or the reserve.
    pub(crate) fn perception_of(&mut self, task: usize) -> Option<Perception<M>> {
        let index = self.perceived.iter().position(|(perceived, _)| *perceived == task)?;
        Some(self.perceived.swap_remove(index).1)
    }
}

/// Runs the vision-language model under each candidate's weights and decides by `rule`. `reserve` is a task that may run
/// although it is not the best. With `calibrations`, one a task, what is compared is how likely an observation is by them.
///
/// The task whose weights are in memory goes first, so that N candidates need N − 1 switches; the order changes no score.
pub(crate) fn route<B: Backend>(
    active: &mut ActiveTasks<B>,
    prepared: &Prepared<'_>,
    rule: &Rule,
    reserve: Option<usize>,
    tasks: &[String],
    calibrations: Option<&[Calibration]>,
) -> Result<Routed<B::Matrix>> {
    let mut candidates = rule.tasks_to_score(tasks.len())?;
    if let Some(first) = candidates.iter().position(|&task| Some(task) == active.current_task()) {
        candidates[..=first].rotate_right(1);
    }
    let mut scores = Vec::with_capacity(candidates.len());
    let mut perceived = Vec::new();
    let mut best: Option<(usize, f32)> = None;
    let mut switch_ms = 0.0;
    let mut forwards = Forwards::default();
    let mut seen = None;
    let common = active.common_stages();
    let pixel_values = prepared.pixel_values.view();
    active.current().check(&pixel_values, &prepared.input_ids)?;
    for task in candidates {
        let (model, elapsed_ms) = active.switch_to(task)?;
        switch_ms += elapsed_ms;
        let now = match (seen.take(), common) {
            (Some(seen), CommonStages::VisionAndProjector) => seen,
            (Some(seen), CommonStages::Vision) => model.see_again(&seen)?,
            _ => {
                forwards.vision += 1;
                let [seen] = array(model.see(&[pixel_values])?);
                seen
            }
        };
        seen = Some(now.clone());
        forwards.language += 1;
        let [perception] = array(model.understand(&[now], &[&prepared.input_ids])?);
        let score = match calibrations {
            Some(all) => {
                all[task].log_likelihood(&compared(active, &perception, (task, tasks), projections)?)
            }
            None => compared(active, &perception, (task, tasks), score)?,
        };
        scores.push((task, score));
        // Of equal scores the first task's counts, whichever was run first.
        if best.is_none_or(|(leader, best)| score > best || (score == best && task < leader)) {
            best = Some((task, score));
        }
        // Hidden states take memory: only those that may be wanted stay.
        perceived.push((task, perception));
        let leader = best.map(|(task, _)| task);
        perceived.retain(|(task, _)| Some(*task) == leader || Some(*task) == reserve);
    }
    scores.sort_by_key(|(task, _)| *task);
    let decision = rule.decide(&scores)?;
    Ok(Routed { decision, perceived, switch_ms, forwards })
}

/// Where an observation lies in the subspaces of one task, from a forward under its weights.
pub(crate) fn project<B: Backend>(
    active: &mut ActiveTasks<B>,
    prepared: &Prepared<'_>,
    (task, tasks): (usize, &[String]),
) -> Result<Vec<f64>> {
    let (model, _) = active.switch_to(task)?;
    let perception = model.perceive(&prepared.pixel_values.view(), &prepared.input_ids)?;
    compared(active, &perception, (task, tasks), projections)
}

/// What `how` says of a task's subspaces, the hidden states of action queries and those of task tokens.
fn compared<B: Backend, T>(
    active: &ActiveTasks<B>,
    perception: &Perception<B::Matrix>,
    (task, tasks): (usize, &[String]),
    how: impl FnOnce(&[[ArrayView2<'_, f32>; 2]], &ArrayView2<'_, f32>, &ArrayView2<'_, f32>) -> T,
) -> Result<T> {
    let hidden = perception.hidden.get(active.routing_depth());
    let (Some(subspaces), Some(hidden)) = (active.subspaces(task), hidden) else {
        return Err(PolicyError::Observation(format!(
            "task `{}` has no router subspaces; name the task, or merge again with `router:`",
            tasks[task]
        )));
    };
    let (adapter_hidden, task_hidden) = (hidden.action.to_host()?, hidden.task.to_host()?);
    let pairs: Vec<_> = subspaces.iter().map(|pair| pair.each_ref().map(|p| p.view())).collect();
    Ok(how(&pairs, &adapter_hidden.view(), &task_hidden.view()))
}
