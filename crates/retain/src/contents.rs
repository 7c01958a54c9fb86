//! What policies consist of, in hashes: how a chain knows its inputs again.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use skillweld_store::{Adapter, Checkpoint, ExpertFiles, Hash, StoreError};

use crate::statistics::Statistics;
use crate::{Change, RetainError};

/// BLAKE3 (hexadecimal) of each part of a policy that is there: `weights`, or `adapter` for one that is nothing but an
/// adapter; `action_head`, `proprio_projector`, `noisy_action_projector`; `statistics`. Of tensors it is
/// [`content_hash`](skillweld_store::content_hash), of statistics the values wherever they stand: files count for nothing.
pub type Contents = BTreeMap<String, String>;

/// The ending of hashes in a merge's provenance.
const ENDING: &str = "_blake3";

pub(crate) fn hex(hash: Hash) -> String {
    hash.to_hex().as_str().to_owned()
}

/// Reads and hashes a policy: a folder, or a file of weights.
///
/// # Errors
/// Anything that cannot be read.
pub(crate) fn of_policy(path: &Path) -> Result<Contents, RetainError> {
    let mut contents = Contents::new();
    match Checkpoint::open(path) {
        Ok(weights) => contents.insert("weights".to_owned(), hex(weights.content_hash())),
        Err(StoreError::OnlyAdapter { .. } | StoreError::NoWeights { .. }) => {
            let nested = path.join("lora_adapter");
            let adapter = Adapter::open(if nested.is_dir() { &nested } else { path })?;
            contents.insert("adapter".to_owned(), hex(adapter.tensors().content_hash()))
        }
        Err(error) => return Err(error.into()),
    };
    if path.is_dir() {
        for (part, file) in ExpertFiles::discover(path)?.parts() {
            contents.insert(part.to_owned(), hex(Checkpoint::open(file)?.content_hash()));
        }
    }
    add_statistics(&mut contents, &Statistics::open(path)?);
    Ok(contents)
}

/// What a merge's provenance says of its input `name`.
pub(crate) fn of_input(provenance: &Value, name: &str, statistics: &Statistics) -> Contents {
    let inputs = provenance["inputs"].as_array().into_iter().flatten();
    let input = inputs.filter(|input| input["name"] == name).find_map(Value::as_object);
    let hashes = input.into_iter().flatten().filter_map(|(field, hash)| {
        Some((field.strip_suffix(ENDING)?.to_owned(), hash.as_str()?.to_owned()))
    });
    let mut contents: Contents = hashes.collect();
    if contents.contains_key("adapter") {
        // The weights under an adapter are the base's.
        contents.remove("weights");
    }
    add_statistics(&mut contents, statistics);
    contents
}

pub(crate) fn add_statistics(contents: &mut Contents, statistics: &Statistics) {
    if let Some(hash) = statistics.hash() {
        contents.insert("statistics".to_owned(), hex(hash));
    }
}

/// The first part in which two differ.
pub(crate) fn first_difference(expected: &Contents, found: &Contents) -> Option<Box<Change>> {
    let hash =
        |contents: &Contents, part: &str| contents.get(part).map_or("nothing", String::as_str).to_owned();
    let mut parts = expected.keys().chain(found.keys());
    let part = parts.find(|part| expected.get(*part) != found.get(*part))?;
    Some(Box::new(Change { part: part.clone(), expected: hash(expected, part), found: hash(found, part) }))
}
