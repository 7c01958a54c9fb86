//! Which subspaces the router can have: looked up in the heads' shapes, before anything is computed.

use skillweld_merged::layout::block_index;
use skillweld_store::Checkpoint;

use super::ExpertPlan;
use crate::MergeError;
use crate::recipe::{RouterChoice, RouterSpec};
use crate::router::{projection_key, projections};

/// The router of a merge. One that the recipe asks for must be had as it says. Without the recipe's word, a merge with
/// masks has one as in the paper, as far as the heads allow: with fewer directions, or not at all, and a note.
///
/// # Errors
/// [`MergeError::Expert`] with what the heads lack, and the remedy.
pub(super) fn plan(
    choice: &RouterChoice,
    masked: bool,
    expert: &ExpertPlan,
    heads: &[(&str, &Checkpoint)],
    notes: &mut Vec<String>,
) -> Result<Option<RouterSpec>, MergeError> {
    let (asked, spec) = match choice {
        RouterChoice::None => return Ok(None),
        RouterChoice::Implied if !masked => return Ok(None),
        RouterChoice::Implied => (false, RouterSpec::default()),
        RouterChoice::Subspaces(spec) => (true, *spec),
    };
    match directions(&spec, expert, heads) {
        Ok(found) if found.count >= spec.rank => Ok(Some(spec)),
        Ok(Directions { count, key, model }) if asked => Err(MergeError::Expert(format!(
            "router.rank is {}, but `{key}` of {model} has only {count} singular vectors; write `router: {{rank: {count}}}` or less",
            spec.rank
        ))),
        Ok(Directions { count, key, .. }) => {
            notes.push(format!("the router's rank is {count}, as many singular vectors as `{key}` has"));
            Ok(Some(RouterSpec { rank: count, ..spec }))
        }
        Err(problem) if asked => {
            Err(MergeError::Expert(format!("the router {problem}, or write `router: none`")))
        }
        Err(problem) => {
            notes.push(format!("no router, which {problem}; whoever runs the merged policy names the task"));
            Ok(None)
        }
    }
}

/// The least that any of the router's projections has.
struct Directions<'a> {
    count: usize,
    key: String,
    model: &'a str,
}

/// Looks at every projection that the router needs; the error goes on after "the router".
fn directions<'a>(
    spec: &RouterSpec,
    expert: &ExpertPlan,
    heads: &[(&'a str, &Checkpoint)],
) -> Result<Directions<'a>, String> {
    let Some(block) = expert.router_block() else {
        return Err(format!(
            "needs a merged block, but all {} blocks stay per task: lower action_expert.head_blocks",
            expert.blocks
        ));
    };
    let mut least: Option<Directions<'a>> = None;
    for (_, projection) in projections(spec) {
        let key = projection_key(block, projection);
        for (model, head) in heads {
            let shape = head.get(&key).filter(|view| view.dtype().is_computable()).map(|view| view.shape());
            let count = match shape {
                Some(&[rows, columns]) if rows.min(columns) > 0 => rows.min(columns),
                Some(shape) => {
                    return Err(format!(
                        "needs a matrix at `{key}`, which has shape {shape:?} in {model}: retrain that head"
                    ));
                }
                None => {
                    return Err(format!(
                        "needs `{key}`, which the action head of {model} lacks{}",
                        origin(head)
                    ));
                }
            };
            if least.as_ref().is_none_or(|least| count < least.count) {
                least = Some(Directions { count, key: key.clone(), model });
            }
        }
    }
    least.ok_or_else(|| "needs an expert: name one under `models`".to_owned())
}

/// Where a head without MergeVLA's projections comes from, and what to do.
fn origin(head: &Checkpoint) -> &'static str {
    let is_adapter = head.keys().any(|key| {
        let layer = key.rsplit('.').nth(1);
        block_index(key).is_some()
            && layer.is_some_and(|layer| ["q_proj", "k_proj", "v_proj", "k_self", "v_self"].contains(&layer))
    });
    if is_adapter {
        " (it is one of VLA-Adapter's, which mix self-attention in): train experts with MergeVLA's head"
    } else {
        ": name projections that it has with `router: {projections: …}`"
    }
}
