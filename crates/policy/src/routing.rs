//! Which task an observation belongs to: a forward under every candidate's mask, scored in its router subspaces.

use skillweld_router::{Decision, Rule, score};

use crate::PolicyError;
use crate::active::ActiveTasks;
use crate::backend::{Matrix, Result};
use crate::cpu::CpuMatrix;
use crate::forward::Perception;
use crate::policy::Prepared;

/// A decision, and what the chosen task's forward saw if that was among those run.
pub(crate) struct Routed {
    pub(crate) decision: Decision,
    pub(crate) perception: Option<Perception<CpuMatrix>>,
    pub(crate) switch_ms: f64,
}

/// Runs the vision-language model under each candidate's weights and decides by `rule`.
///
/// The task whose weights are in memory goes first, so that N candidates need N − 1 switches; the order changes no score.
pub(crate) fn route(
    active: &mut ActiveTasks,
    prepared: &Prepared<'_>,
    rule: &Rule,
    tasks: &[String],
) -> Result<Routed> {
    let mut candidates = rule.tasks_to_score(tasks.len())?;
    if let Some(first) = candidates.iter().position(|&task| Some(task) == active.current_task()) {
        candidates[..=first].rotate_right(1);
    }
    let depth = active.routing_depth();
    let mut scores = Vec::with_capacity(candidates.len());
    let mut best: Option<(usize, f32, Perception<CpuMatrix>)> = None;
    let mut switch_ms = 0.0;
    for task in candidates {
        let (model, elapsed_ms) = active.switch_to(task)?;
        switch_ms += elapsed_ms;
        let perception = model.perceive(&prepared.pixel_values.view(), &prepared.input_ids)?;
        let (Some(subspaces), Some(hidden)) = (active.subspaces(task), perception.hidden.get(depth)) else {
            return Err(PolicyError::Observation(format!(
                "task `{}` has no router subspaces; name the task, or merge again with `router:`",
                tasks[task]
            )));
        };
        let (adapter_hidden, task_hidden) = (hidden.action.to_host()?, hidden.task.to_host()?);
        let score = score(
            &subspaces.adapter.view(),
            &subspaces.task.view(),
            &adapter_hidden.view(),
            &task_hidden.view(),
        );
        scores.push((task, score));
        // Of equal scores the first task's counts, whichever was run first.
        if best.as_ref().is_none_or(|(leader, best, _)| score > *best || (score == *best && task < *leader)) {
            best = Some((task, score, perception));
        }
    }
    scores.sort_by_key(|(task, _)| *task);
    let decision = rule.decide(&scores)?;
    let perception =
        best.filter(|(task, ..)| Some(*task) == decision.task()).map(|(.., perception)| perception);
    Ok(Routed { decision, perception, switch_ms })
}
