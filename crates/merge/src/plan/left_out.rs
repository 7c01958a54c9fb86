//! What lies beside the models' weights and is no part of the output.

use std::collections::{BTreeMap, BTreeSet};

use skillweld_store::Modality;

use super::build::Context;
use super::check::subject;
use super::{Action, Part, PlannedTensor};
use crate::models::Model;
use crate::recipe::ActionExpertChoice;

/// Accounts for every tensor of the experts' action heads and projectors that nothing is planned for, once for all
/// experts; notes say the same in one line, and name what could not even be looked at.
pub(super) fn plan<'a>(context: &Context<'a>, tensors: &mut Vec<PlannedTensor<'a>>, notes: &mut Vec<String>) {
    let experts: Vec<&'a Model> = context.tasks.iter().map(|&i| &context.models.all[i]).collect();
    let with_heads = experts.iter().any(|model| model.files.action_head.is_some());
    let remedy = match with_heads {
        true => "write `action_expert: {head_blocks: 1}` to merge them",
        false => "they belong to an action head (`action_head--*checkpoint.pt`), and no expert has one",
    };
    let planned: BTreeSet<String> = tensors
        .iter()
        .filter(|tensor| tensor.part == Part::ActionExpert)
        .map(|tensor| tensor.key.clone())
        .collect();
    let mut left: BTreeMap<String, PlannedTensor<'a>> = BTreeMap::new();
    let mut parts: Vec<&str> = Vec::new();
    for model in &experts {
        for (name, prefix, checkpoint) in model.files.parts() {
            for key in checkpoint.keys() {
                let own = format!("{prefix}{key}");
                let is_planned = |key: &str| planned.contains(key);
                let Some(view) = checkpoint.get(key) else { continue };
                if is_planned(&own) || is_planned(&format!("experts/{}/{own}", model.name)) {
                    continue;
                }
                if !parts.contains(&name) {
                    parts.push(name);
                }
                left.entry(own.clone()).or_insert_with(|| PlannedTensor {
                    key: own,
                    shape: view.shape(),
                    dtype: view.dtype(),
                    modality: Modality::Action,
                    part: Part::ActionExpert,
                    action: Action::LeaveOut(remedy.to_owned()),
                    copies: Vec::new(),
                });
            }
        }
    }
    if !parts.is_empty() {
        notes.push(format!("{} left out of the merge: {remedy}", subject(&parts, "is", "are")));
    }
    tensors.extend(left.into_values());
    for model in &context.models.all {
        let is_expert = experts.iter().any(|expert| expert.name == model.name);
        let is_read = is_expert || context.recipe.action_expert == ActionExpertChoice::Merge;
        let unread = model.files.parts().map(|(name, ..)| name).filter(|_| !is_read);
        let unread: Vec<&str> = unread.collect();
        if !unread.is_empty() {
            let unread = subject(&unread, "is", "are");
            notes.push(format!(
                "{unread} left out of the base model {}: only experts' are merged",
                model.name
            ));
        }
        if let [first, ..] = &model.ignored[..] {
            let names = model.ignored.iter().filter_map(|path| path.file_name()?.to_str());
            notes.push(format!(
                "{} left out of the merge: {} is named as a file; name the folder {} to take what lies beside it",
                subject(&names.collect::<Vec<_>>(), "is", "are"),
                model.name,
                first.parent().unwrap_or(first).display()
            ));
        }
    }
}
