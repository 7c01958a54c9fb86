//! Key families: which model a checkpoint is of, and which modality each key belongs to.
//!
//! Sources: the published key names of OpenVLA(-OFT), VLA-Adapter and MergeVLA, of openpi and LeRobot for π0, π0.5 and
//! SmolVLA, and of GR00T N1.5 to N1.7. The patterns are prefixes, matched by hand: no regular expressions needed.

use std::fmt;

/// A family of models that name their tensors alike. Checkpoints of different families are not merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Family {
    /// Prismatic, OpenVLA, OpenVLA-OFT, VLA-Adapter, MergeVLA.
    Prismatic,
    /// π0 in PyTorch (openpi, LeRobot).
    Pi0,
    /// π0.5: as π0, but its action expert's norms are conditioned on time, so the two never mix.
    Pi05,
    /// SmolVLA.
    SmolVla,
    /// GR00T N1.5, N1.6, N1.7.
    Groot,
    /// A plain language model, or a vision-language model without actions.
    Llm,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Modality {
    /// Vision encoder and the projector into the language model.
    Vision,
    /// Language backbone, embeddings and output head.
    Language,
    /// Action expert, action queries, projections of state, action and time.
    Action,
    /// Anything else, such as normalisation buffers.
    Other,
}

impl Family {
    /// The family that these keys are of; `None` when they follow no known naming.
    pub fn detect<'a>(keys: impl IntoIterator<Item = &'a str>) -> Option<Family> {
        let (mut llm, mut pi0, mut action_head, mut groot_backbone) = (false, false, false, false);
        for key in keys {
            if starts(
                key,
                &["vision_backbone.featurizer.", "vision_backbone.fused_featurizer.", "action_queries."],
            ) {
                return Some(Family::Prismatic);
            }
            if key.starts_with("model.vlm_with_expert.") {
                return Some(Family::SmolVla);
            }
            let bare = optional(key, "model.");
            // Time enters π0.5 by its own network and through every norm of the expert; π0 joins it to the action.
            let in_expert = bare.starts_with("paligemma_with_expert.gemma_expert.");
            if starts(bare, &["time_mlp_in.", "time_mlp_out."]) || (in_expert && key.contains("norm.dense."))
            {
                return Some(Family::Pi05);
            }
            pi0 |= bare.starts_with("paligemma_with_expert.");
            let inner = optional(key, "_groot_model.");
            action_head |= inner.starts_with("action_head.");
            groot_backbone |= starts(inner, &["backbone.eagle_model.", "backbone.model."]);
            llm |= Family::Llm.modality(key) != Modality::Other;
        }
        if pi0 {
            Some(Family::Pi0)
        } else if action_head && groot_backbone {
            Some(Family::Groot)
        } else {
            llm.then_some(Family::Llm)
        }
    }

    /// The modality of a key; the first pattern that matches counts.
    pub fn modality(self, key: &str) -> Modality {
        if is_normalisation_buffer(key) {
            return Modality::Other;
        }
        match self {
            Family::Prismatic => prismatic(key),
            Family::Pi0 | Family::Pi05 => pi0(optional(key, "model.")),
            Family::SmolVla => smolvla(key),
            Family::Groot => groot(optional(key, "_groot_model.")),
            Family::Llm => llm(key),
        }
    }
}

/// True for the buffers in which LeRobot policies keep dataset statistics (`normalize_inputs`, `normalize_targets`,
/// `unnormalize_outputs`). They belong to a dataset, not to the weights: never interpolate them.
pub fn is_normalisation_buffer(key: &str) -> bool {
    key.split('.')
        .any(|part| matches!(part, "normalize_inputs" | "normalize_targets" | "unnormalize_outputs"))
}

/// True for a tensor that checkpoints hold and no forward reads: the output head of π0's action expert, which nobody ever
/// trains. Some checkpoints leave it out, and what others have there may be anything.
pub fn is_unused(key: &str) -> bool {
    optional(key, "model.") == "paligemma_with_expert.gemma_expert.lm_head.weight"
}

fn prismatic(key: &str) -> Modality {
    const VISION: [&str; 5] = [
        "vision_backbone.featurizer.",
        "vision_backbone.fused_featurizer.",
        "projector.fc1.",
        "projector.fc2.",
        "projector.fc3.",
    ];
    first(
        key,
        &[
            (Modality::Vision, &VISION),
            (Modality::Language, &["language_model."]),
            (Modality::Action, &["action_queries."]),
        ],
    )
}

fn pi0(key: &str) -> Modality {
    if let Some(rest) = key.strip_prefix("paligemma_with_expert.paligemma.") {
        let vision = ["vision_tower.", "multi_modal_projector."];
        let language = ["language_model.", "lm_head."];
        return first(
            optional(rest, "model."),
            &[(Modality::Vision, &vision), (Modality::Language, &language)],
        );
    }
    const ACTION: [&str; 8] = [
        "paligemma_with_expert.gemma_expert.",
        "action_in_proj",
        "action_out_proj",
        "action_time_mlp_in",
        "action_time_mlp_out",
        "time_mlp_in",
        "time_mlp_out",
        "state_proj",
    ];
    first(key, &[(Modality::Action, &ACTION)])
}

fn smolvla(key: &str) -> Modality {
    const VISION: [&str; 2] =
        ["model.vlm_with_expert.vlm.model.vision_model.", "model.vlm_with_expert.vlm.model.connector."];
    const LANGUAGE: [&str; 2] =
        ["model.vlm_with_expert.vlm.model.text_model.", "model.vlm_with_expert.vlm.lm_head."];
    const ACTION: [&str; 6] = [
        "model.vlm_with_expert.lm_expert.",
        "model.state_proj",
        "model.action_in_proj",
        "model.action_out_proj",
        "model.action_time_mlp_in",
        "model.action_time_mlp_out",
    ];
    first(key, &[(Modality::Vision, &VISION), (Modality::Language, &LANGUAGE), (Modality::Action, &ACTION)])
}

fn groot(key: &str) -> Modality {
    // N1.5 has `eagle_model`, N1.6 `model`, N1.7 `model.model` around the same two halves.
    let backbone = key.strip_prefix("backbone.eagle_model.").or_else(|| key.strip_prefix("backbone.model."));
    match backbone {
        Some(rest) => {
            let vision = ["vision_model.", "visual.", "mlp1."];
            let language = ["language_model.", "lm_head."];
            first(optional(rest, "model."), &[(Modality::Vision, &vision), (Modality::Language, &language)])
        }
        None => first(key, &[(Modality::Action, &["action_head."])]),
    }
}

fn llm(key: &str) -> Modality {
    const VISION: [&str; 5] =
        ["vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "connector."];
    const LANGUAGE: [&str; 14] = [
        "language_model.",
        "text_model.",
        "layers.",
        "embed_tokens.",
        "norm.",
        "lm_head.",
        "decoder.",
        "transformer.h.",
        "transformer.wte.",
        "transformer.wpe.",
        "transformer.ln_f.",
        "gpt_neox.",
        "embed_out.",
        "h.",
    ];
    first(optional(key, "model."), &[(Modality::Vision, &VISION), (Modality::Language, &LANGUAGE)])
}

fn first(key: &str, groups: &[(Modality, &[&str])]) -> Modality {
    groups
        .iter()
        .find(|(_, prefixes)| starts(key, prefixes))
        .map_or(Modality::Other, |(modality, _)| *modality)
}

fn starts(key: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| key.starts_with(prefix))
}

fn optional<'a>(key: &'a str, prefix: &str) -> &'a str {
    key.strip_prefix(prefix).unwrap_or(key)
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::Prismatic => "Prismatic/MergeVLA",
            Family::Pi0 => "π0",
            Family::Pi05 => "π0.5",
            Family::SmolVla => "SmolVLA",
            Family::Groot => "GR00T",
            Family::Llm => "language model",
        })
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Modality::Vision => "vision",
            Modality::Language => "language",
            Modality::Action => "action",
            Modality::Other => "other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Family::{Groot, Llm, Pi0, Pi05, Prismatic, SmolVla};
    use super::Modality::{Action, Language, Other, Vision};
    use super::*;

    #[test]
    fn every_key_goes_to_its_modality() {
        for (family, key, modality) in [
            (Prismatic, "vision_backbone.featurizer.blocks.0.attn.qkv.weight", Vision),
            (Prismatic, "vision_backbone.fused_featurizer.patch_embed.proj.bias", Vision),
            (Prismatic, "projector.fc1.weight", Vision),
            (Prismatic, "projector.fc3.bias", Vision),
            (Prismatic, "projector.fc4.bias", Other),
            (Prismatic, "language_model.model.layers.0.mlp.up_proj.weight", Language),
            (Prismatic, "language_model.lm_head.weight", Language),
            (Prismatic, "action_queries.weight", Action),
            (Prismatic, "xlanguage_model.weight", Other),
            (Prismatic, "vision_backbone.other.weight", Other),
            (Pi0, "paligemma_with_expert.paligemma.vision_tower.vision_model.post_layernorm.weight", Vision),
            (Pi0, "paligemma_with_expert.paligemma.model.vision_tower.vision_model.x", Vision),
            (Pi0, "model.paligemma_with_expert.paligemma.model.multi_modal_projector.linear.weight", Vision),
            (Pi0, "paligemma_with_expert.paligemma.language_model.model.layers.0.x", Language),
            (Pi0, "model.paligemma_with_expert.paligemma.model.language_model.layers.0.x", Language),
            (Pi0, "paligemma_with_expert.paligemma.lm_head.weight", Language),
            (Pi0, "model.paligemma_with_expert.gemma_expert.model.layers.0.x", Action),
            // Never filled, but it is there and belongs to the expert, not to the language model.
            (Pi0, "paligemma_with_expert.gemma_expert.lm_head.weight", Action),
            (Pi0, "action_in_proj.weight", Action),
            (Pi0, "model.action_out_proj.bias", Action),
            (Pi0, "action_time_mlp_in.weight", Action),
            (Pi0, "model.action_time_mlp_out.weight", Action),
            (Pi0, "state_proj.weight", Action),
            (Pi05, "time_mlp_in.weight", Action),
            (Pi05, "model.time_mlp_out.bias", Action),
            (Pi0, "normalize_inputs.buffer_observation_state.mean", Other),
            (Pi0, "model.normalize_targets.buffer_action.std", Other),
            (
                SmolVla,
                "model.vlm_with_expert.vlm.model.vision_model.embeddings.patch_embedding.weight",
                Vision,
            ),
            (SmolVla, "model.vlm_with_expert.vlm.model.connector.modality_projection.proj.weight", Vision),
            (SmolVla, "model.vlm_with_expert.vlm.model.text_model.embed_tokens.weight", Language),
            (SmolVla, "model.vlm_with_expert.vlm.lm_head.weight", Language),
            (SmolVla, "model.vlm_with_expert.lm_expert.layers.0.x", Action),
            (SmolVla, "model.state_proj.weight", Action),
            (SmolVla, "model.action_in_proj.weight", Action),
            (SmolVla, "model.action_out_proj.weight", Action),
            (SmolVla, "model.action_time_mlp_in.weight", Action),
            (SmolVla, "model.action_time_mlp_out.bias", Action),
            (SmolVla, "unnormalize_outputs.buffer_action.mean", Other),
            (Groot, "backbone.eagle_model.vision_model.x", Vision),
            (Groot, "_groot_model.backbone.eagle_model.mlp1.0.weight", Vision),
            (Groot, "backbone.eagle_model.language_model.model.layers.0.x", Language),
            (Groot, "backbone.model.vision_model.x", Vision),
            (Groot, "backbone.model.language_model.x", Language),
            (Groot, "_groot_model.backbone.model.model.visual.blocks.0.x", Vision),
            (Groot, "backbone.model.model.language_model.layers.0.x", Language),
            (Groot, "action_head.model.transformer_blocks.0.x", Action),
            (Groot, "_groot_model.action_head.state_encoder.layer1.W", Action),
            (Groot, "backbone.eagle_linear.weight", Other),
            (Llm, "model.layers.0.self_attn.q_proj.weight", Language),
            (Llm, "model.embed_tokens.weight", Language),
            (Llm, "lm_head.weight", Language),
            (Llm, "transformer.h.0.attn.c_attn.weight", Language),
            (Llm, "h.0.attn.c_attn.weight", Language),
            (Llm, "gpt_neox.layers.0.x", Language),
            (Llm, "model.visual.blocks.0.x", Vision),
            (Llm, "model.language_model.layers.0.x", Language),
            (Llm, "head.weight", Other),
        ] {
            assert_eq!(family.modality(key), modality, "{family}: {key}");
        }
    }

    #[test]
    fn families_are_told_apart() {
        for (keys, family) in [
            (&["language_model.model.layers.0.x", "vision_backbone.featurizer.x"][..], Some(Prismatic)),
            (&["language_model.model.layers.0.x", "action_queries.weight"], Some(Prismatic)),
            (&["model.paligemma_with_expert.paligemma.lm_head.weight", "model.state_proj.weight"], Some(Pi0)),
            (
                &["action_time_mlp_in.weight", "paligemma_with_expert.gemma_expert.model.norm.weight"],
                Some(Pi0),
            ),
            (&["paligemma_with_expert.paligemma.lm_head.weight", "time_mlp_in.weight"], Some(Pi05)),
            (&["paligemma_with_expert.gemma_expert.model.layers.0.input_layernorm.dense.weight"], Some(Pi05)),
            (&["model.action_in_proj.weight", "model.vlm_with_expert.lm_expert.norm.weight"], Some(SmolVla)),
            (
                &["_groot_model.action_head.x", "_groot_model.backbone.eagle_model.vision_model.x"],
                Some(Groot),
            ),
            (&["action_head.x", "backbone.model.model.visual.x"], Some(Groot)),
            (&["model.layers.0.x", "model.norm.weight"], Some(Llm)),
            (&["h.0.ln_1.weight"], Some(Llm)),
            (&["a.weight", "b.bias"], None),
            (&[], None),
        ] {
            assert_eq!(Family::detect(keys.iter().copied()), family, "{keys:?}");
        }
    }

    #[test]
    fn the_heads_that_nobody_reads_are_known() {
        assert!(is_unused("paligemma_with_expert.gemma_expert.lm_head.weight"));
        assert!(is_unused("model.paligemma_with_expert.gemma_expert.lm_head.weight"));
        assert!(!is_unused("paligemma_with_expert.paligemma.lm_head.weight"));
        assert!(!is_unused("lm_head.weight"));
    }

    #[test]
    fn normalisation_buffers_are_whole_components() {
        assert!(is_normalisation_buffer("normalize_inputs.buffer_observation_state.mean"));
        assert!(is_normalisation_buffer("model.unnormalize_outputs.buffer_action.std"));
        assert!(!is_normalisation_buffer("model.normalize_inputs_proj.weight"));
    }
}
