//! Skillweld's layout: `skillweld.json` beside safetensors files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use skillweld_store::Checkpoint;

use crate::checkpoint::{Masks, Vector};
use crate::error::problem;
use crate::layout::{FORMAT_VERSION, PROVENANCE, RESCALER, ROUTER_PAIRS, STATISTICS, stem};
use crate::parts::Parts;
use crate::{ExpertPart, MergedCheckpoint, MergedError, Role, is_one_data_set};

pub(crate) fn is_at(dir: &Path) -> bool {
    dir.join(PROVENANCE).is_file()
}

pub(crate) fn open(dir: &Path, base: Option<&Path>) -> Result<MergedCheckpoint, MergedError> {
    let path = dir.join(PROVENANCE);
    let document = read_json(&path)?;
    check_version(&path, &document)?;
    let tasks = tasks(&path, &document)?;
    let mut weights: Vec<Checkpoint> = open_stem(dir, stem::MODEL)?.into_iter().collect();
    weights.extend(referenced_base(&path, &document, base)?);
    if weights.is_empty() {
        return Err(problem(dir, "model.safetensors is missing; copy the whole directory, or merge again"));
    }
    let vector = open_stem(dir, stem::TASK_VECTOR)?;
    let masks = open_stem(dir, stem::MASKS)?;
    let (vector, masks) = match (vector, masks) {
        (None, None) => (Vector::None, None),
        (Some(vector), Some(file)) => (Vector::Stored(vector), Some(Masks { file, packed: true })),
        (Some(_), None) => return Err(missing_beside(dir, stem::MASKS, stem::TASK_VECTOR)),
        (None, Some(_)) => return Err(missing_beside(dir, stem::TASK_VECTOR, stem::MASKS)),
    };
    if masks.is_some() && tasks.is_empty() {
        return Err(problem(&path, "`tasks` is empty, but there are masks; merge again"));
    }
    let rescalers = tasks.iter().map(|task| rescaler(masks.as_ref(), task)).collect::<Result<_, _>>()?;
    let mut parts = Parts::new(tasks.len());
    add_action_expert(dir, &tasks, &mut parts)?;
    add_router(dir, &tasks, &mut parts)?;
    let statistics = statistics(&dir.join(STATISTICS), &tasks)?;
    Ok(MergedCheckpoint {
        dir: dir.to_owned(),
        tasks,
        document,
        weights,
        vector,
        masks,
        rescalers,
        parts,
        statistics,
    })
}

/// Reads a JSON file beside a checkpoint: provenance, statistics, configuration.
///
/// # Errors
/// [`MergedError::Invalid`] naming the file when it cannot be read or is no JSON.
pub fn read_json(path: &Path) -> Result<Value, MergedError> {
    let text = fs::read(path).map_err(|error| problem(path, format!("cannot be read: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| problem(path, format!("not valid JSON: {error}")))
}

fn check_version(path: &Path, document: &Value) -> Result<(), MergedError> {
    match document["format_version"].as_u64() {
        Some(FORMAT_VERSION) => Ok(()),
        Some(newer) if newer > FORMAT_VERSION => Err(problem(
            path,
            format!(
                "format_version is {newer}, this Skillweld reads {FORMAT_VERSION}; install a newer Skillweld"
            ),
        )),
        _ => Err(problem(
            path,
            format!(
                "format_version is {}, expected {FORMAT_VERSION}; merge again",
                document["format_version"]
            ),
        )),
    }
}

fn tasks(path: &Path, document: &Value) -> Result<Vec<String>, MergedError> {
    let names =
        document["tasks"].as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(Some(names)) = names else {
        return Err(problem(path, "`tasks` must be a list of names; merge again"));
    };
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || names[..i].contains(name) {
            return Err(problem(
                path,
                format!("`tasks` names `{name}` twice or without a name; merge again"),
            ));
        }
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Θ₀ where it lies elsewhere, with `"base": {"mode": "reference", "path": …}`. `given` takes the place of that path.
fn referenced_base(
    document_path: &Path,
    document: &Value,
    given: Option<&Path>,
) -> Result<Option<Checkpoint>, MergedError> {
    if document["base"]["mode"] != "reference" {
        return match given {
            Some(_) => {
                Err(problem(document_path, "this checkpoint holds all its weights; leave `--base` out"))
            }
            None => Ok(None),
        };
    }
    let recorded = || {
        let path = document["base"]["path"].as_str();
        let path = path.ok_or_else(|| {
            problem(document_path, "base.path is missing; name the base with `--base PATH`")
        })?;
        // A relative path counts from the merged checkpoint, so that both can be moved together.
        Ok::<_, MergedError>(document_path.parent().unwrap_or(Path::new("")).join(path))
    };
    let path: PathBuf = given.map_or_else(recorded, |path| Ok(path.to_owned()))?;
    if !path.exists() {
        let text = format!(
            "its pretrained weights are not at {} any more; name their new place with `--base PATH`",
            path.display()
        );
        return Err(problem(document_path, text));
    }
    Ok(Some(Checkpoint::open(path)?))
}

/// `<stem>.safetensors`, or its shards; `None` when there is neither.
fn open_stem(dir: &Path, stem: &str) -> Result<Option<Checkpoint>, MergedError> {
    let names = ["safetensors.index.json", "safetensors"].map(|ending| dir.join(format!("{stem}.{ending}")));
    let found = names.iter().find(|path| path.is_file());
    Ok(found.map(Checkpoint::open).transpose()?)
}

fn missing_beside(dir: &Path, missing: &str, present: &str) -> MergedError {
    let text = format!(
        "{missing}.safetensors is missing beside {present}.safetensors; copy the whole directory, or merge again"
    );
    problem(dir, text)
}

fn rescaler(masks: Option<&Masks>, task: &str) -> Result<f32, MergedError> {
    let Some(masks) = masks else { return Ok(1.0) };
    let name = format!("{task}/{RESCALER}");
    let Some(view) = masks.file.get(&name) else { return Ok(1.0) };
    let mut value = [0.0];
    let read = view.numel() == 1 && view.decode_block(0, &mut value).is_ok();
    if !read || !value[0].is_finite() {
        return Err(problem(masks.file.path(), format!("`{name}` is not one finite number; merge again")));
    }
    Ok(value[0])
}

fn add_action_expert(dir: &Path, tasks: &[String], parts: &mut Parts) -> Result<(), MergedError> {
    let Some(checkpoint) = open_stem(dir, stem::ACTION_EXPERT)? else { return Ok(()) };
    let path = checkpoint.path().to_owned();
    let keys: Vec<String> = checkpoint.keys().map(str::to_owned).collect();
    let file = parts.add_file(Role::ActionExpert, checkpoint);
    for key in &keys {
        match key.strip_prefix("experts/") {
            None => {
                let (part, name) = ExpertPart::of(key);
                parts.add_shared(part, name, (file, key));
            }
            Some(rest) => {
                let (task, name) = split_task(tasks, rest).ok_or_else(|| unknown_task(&path, key))?;
                let (part, name) = ExpertPart::of(name);
                parts.add_own(part, task, name, (file, key, None));
            }
        }
    }
    Ok(())
}

fn add_router(dir: &Path, tasks: &[String], parts: &mut Parts) -> Result<(), MergedError> {
    let Some(checkpoint) = open_stem(dir, stem::ROUTER)? else { return Ok(()) };
    let path = checkpoint.path().to_owned();
    let keys: Vec<String> = checkpoint.keys().map(str::to_owned).collect();
    let file = parts.add_file(Role::Router, checkpoint);
    for key in &keys {
        let (task, name) = split_task(tasks, key).ok_or_else(|| unknown_task(&path, key))?;
        let known = ROUTER_PAIRS.as_flattened();
        let place = known.iter().position(|known| *known == name).ok_or_else(|| {
            let names = known.join(", ");
            problem(&path, format!("`{key}` is none of the subspaces {names} of a task; merge again"))
        })?;
        parts.add_router(task, [place / 2, place % 2], (file, key));
    }
    Ok(())
}

/// Splits `<task>/<name>`; `None` when no task is called so. Names of tasks may hold slashes: the longest counts.
pub(crate) fn split_task<'a>(tasks: &[String], name: &'a str) -> Option<(usize, &'a str)> {
    let rest = |task: &String| name.strip_prefix(task.as_str())?.strip_prefix('/');
    let fitting = tasks.iter().enumerate().filter_map(|(index, task)| Some((index, rest(task)?)));
    fitting.min_by_key(|(_, rest)| rest.len())
}

pub(crate) fn unknown_task(path: &Path, key: &str) -> MergedError {
    problem(
        path,
        format!(
            "`{key}` belongs to no task of the checkpoint; the files are of different merges, merge again"
        ),
    )
}

fn statistics(path: &Path, tasks: &[String]) -> Result<Vec<Option<Map<String, Value>>>, MergedError> {
    if !path.is_file() {
        return Ok(tasks.iter().map(|_| None).collect());
    }
    let all = read_json(path)?;
    let of = |task: &String| {
        let value = all.get(task).and_then(Value::as_object);
        let value =
            value.ok_or_else(|| problem(path, format!("has no statistics of task `{task}`; merge again")))?;
        // One data set's statistics stand either alone or under the name of the data set.
        let alone = is_one_data_set(value);
        let single = || Map::from_iter([(task.clone(), Value::Object(value.clone()))]);
        Ok(Some(if alone { single() } else { value.clone() }))
    };
    tasks.iter().map(of).collect()
}
