//! The figures to see first.

use skillweld_chart::number;

use super::html::percent;
use crate::Report;
use crate::vectors::mean_of_pairs;

struct Card {
    value: String,
    what: &'static str,
    more: String,
}

pub(crate) fn cards(report: &Report) -> String {
    let mut cards = Vec::new();
    let mut card = |value: String, what, more: String| cards.push(Card { value, what, more });
    if let Some(masks) = &report.masks {
        card(
            percent(masks.selfish_ratio),
            "selfish ratio",
            "Parameters that exactly one task keeps. The paper finds more than 75 % at four tasks."
                .to_owned(),
        );
        let mean = masks.kept.iter().sum::<f64>() / masks.kept.len().max(1) as f64;
        let more = format!("Of τ, mean over tasks; {} is kept by nobody.", percent(masks.kept_by_none));
        card(percent(mean), "kept by a task", more);
        if let Some(agreement) = mean_of_pairs(&masks.agreement) {
            let chance = mean_of_pairs(&masks.agreement_by_chance).unwrap_or(f64::NAN);
            let more =
                format!("Jaccard, mean over pairs; masks as full at random would have {}.", number(chance));
            card(number(agreement), "agreement of masks", more);
        }
    }
    if let Some(vectors) = &report.vectors {
        let more = "‖τ‖ / ‖Θ₀‖ over the tensors that were merged.".to_owned();
        card(percent(vectors.relative_norm), "size of the task vector", more);
    }
    if let Some(experts) = &report.experts {
        let mean = experts.kept_cosines.iter().sum::<f64>() / experts.kept_cosines.len().max(1) as f64;
        let more = "Cosine between an expert's task vector and what its task has of the merged one, mean over tasks.";
        card(number(mean), "left of an expert", more.to_owned());
    }
    let mut ranks: Vec<f64> = report.spectra.iter().map(|spectrum| spectrum.effective_rank).collect();
    ranks.sort_by(f64::total_cmp);
    if let Some(median) = ranks.get(ranks.len() / 2) {
        card(number(*median), "effective rank of τ", format!("Median over {} matrices.", ranks.len()));
    }
    let distance = |block: &&crate::Block| block.mean.is_some() && block.block.parse::<usize>().is_ok();
    let blocks: Vec<_> = report.blocks.iter().filter(distance).collect();
    if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
        let mean = |block: &crate::Block| block.mean.map(number).unwrap_or_default();
        let value = format!("{} → {}", mean(first), mean(last));
        let more =
            format!("Relative L2 distance between experts, block {} → block {}.", first.block, last.block);
        card(value, "action experts drift apart", more);
    }
    if let Some(overlap) = report.router.first().filter(|_| report.tasks.len() > 1) {
        let mean = mean_of_pairs(&overlap.overlap).unwrap_or(f64::NAN);
        let random = overlap.rank as f64 / overlap.width.max(1) as f64;
        let more = format!("Of two tasks' routing subspaces; random ones would have {}.", number(random));
        card(number(mean), "routing overlap", more);
    }
    let cards: Vec<String> = cards
        .into_iter()
        .map(|Card { value, what, more }| {
            format!("<div class=\"card\"><b>{value}</b><span>{what}</span><small>{more}</small></div>\n")
        })
        .collect();
    format!("<div class=\"cards\">\n{}</div>\n", cards.concat())
}
