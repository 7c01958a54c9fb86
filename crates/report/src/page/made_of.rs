//! What went in, what happened to it, and what it can be recognised by.

use serde_json::Value;

use super::Section;
use super::html::{bar, code, count, details, escaped, percent, table};
use crate::{InputState, Report};

pub(crate) fn plan(report: &Report) -> Section {
    let total: u64 = report.plan.values().sum();
    let content = if report.plan.is_empty() {
        Err("The published code does not write down what it did to which tensor.".to_owned())
    } else {
        let rows: Vec<Vec<String>> = report
            .plan
            .iter()
            .map(|(group, &tensors)| {
                let share = tensors as f64 / total.max(1) as f64;
                let (part, action) = group.split_once(": ").unwrap_or((group, ""));
                let part = part.replace('_', " ");
                vec![escaped(&part), escaped(action), count(tensors), percent(share), bar(share)]
            })
            .collect();
        Ok(format!(
            "<p>What the merge did to each of {} tensors. <b>Copied</b> ones are the same in the base and in every expert; \
             <b>averaged</b> ones have no pretrained value; those <b>per task</b> stay one copy a task.</p>\n{}",
            count(total),
            table(&["part", "what happened", "#tensors", "#share", ""], &rows)
        ))
    };
    Section { id: "plan", title: "Plan", content }
}

pub(crate) fn provenance(report: &Report) -> Section {
    let document = &report.provenance;
    if document.is_null() {
        let why = "The published code's layout has no provenance: neither recipe nor hashes.".to_owned();
        return Section { id: "provenance", title: "Provenance", content: Err(why) };
    }
    let mut html = format!(
        "<p>Made by Skillweld {}. Hashes are BLAKE3 over keys, dtypes, shapes and bytes: cutting a checkpoint into other files \
         leaves them as they are.</p>\n",
        escaped(document["skillweld_version"].as_str().unwrap_or("?"))
    );
    let state = |state: InputState| match state {
        InputState::Found => "<span class=\"good\">there, unchanged</span>",
        InputState::Changed => "<span class=\"bad\">other weights lie there now</span>",
        InputState::Missing => "<span class=\"bad\">not found</span>",
        InputState::NotSought => "not looked for",
    };
    let inputs: Vec<Vec<String>> = report
        .inputs
        .iter()
        .map(|input| {
            let hash = code(&input.weights_blake3);
            let hash = match &input.adapter_blake3 {
                Some(adapter) => format!("{hash}<br>adapter {}", code(adapter)),
                None => hash,
            };
            vec![
                escaped(&input.name),
                input.role.clone(),
                code(&input.path),
                state(input.state).to_owned(),
                hash,
            ]
        })
        .collect();
    html.push_str(&table(&["model", "role", "path in the recipe", "today", "hash of its weights"], &inputs));
    let text = |value: &Value| escaped(value.as_str().unwrap_or("–"));
    let methods: Vec<Vec<String>> = document["methods"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|method| {
            let hash = code(method["plugin_blake3"].as_str().unwrap_or("–"));
            vec![
                text(&method["id"]),
                text(&method["kind"]),
                text(&method["version"]),
                text(&method["plugin"]),
                hash,
            ]
        })
        .collect();
    html.push_str(&table(&["method", "kind", "version", "plugin", "hash of the plugin"], &methods));
    let outputs: Vec<Vec<String>> = document["outputs_blake3"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(file, hash)| vec![escaped(file), code(hash.as_str().unwrap_or("–"))])
        .collect();
    html.push_str(&table(&["written", "hash"], &outputs));
    let recipe = serde_json::to_string_pretty(&document["recipe"]).unwrap_or_default();
    html.push_str(&details(
        "The recipe, everything implied written out",
        &format!("<pre>{}</pre>", escaped(&recipe)),
    ));
    Section { id: "provenance", title: "Provenance", content: Ok(html) }
}
