use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::{IndexProblem, StoreError};

/// A validated `*.index.json`: which shard holds which key.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Shard file names, sorted, each beside the index.
    pub(crate) shards: Vec<String>,
    weight_map: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// Reads an index file and checks that each shard it names is a file beside it.
pub(crate) fn read(path: &Path) -> Result<Index, StoreError> {
    let fail = |problem| StoreError::Index { path: path.to_owned(), problem };
    let text = std::fs::read(path).map_err(StoreError::io("read", path))?;
    let raw: RawIndex =
        serde_json::from_slice(&text).map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
    if raw.weight_map.is_empty() {
        return Err(fail(IndexProblem::Empty));
    }
    let mut shards: Vec<String> = raw.weight_map.values().cloned().collect();
    shards.sort_unstable();
    shards.dedup();
    for shard in &shards {
        if !is_plain_file_name(shard) {
            return Err(fail(IndexProblem::UnsafeName { shard: shard.clone() }));
        }
        if !path.with_file_name(shard).is_file() {
            return Err(fail(IndexProblem::MissingShard { shard: shard.clone() }));
        }
    }
    Ok(Index { path: path.to_owned(), shards, weight_map: raw.weight_map })
}

/// One normal path component and nothing else: no directories, no `..`, no root.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

impl Index {
    pub(crate) fn shard_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.shards.iter().map(|shard| self.path.with_file_name(shard))
    }

    /// Checks the stored names of every shard (in the order of `shards`) against the weight map.
    pub(crate) fn check<'a>(
        &self,
        names: impl IntoIterator<Item = impl IntoIterator<Item = &'a str>>,
    ) -> Result<(), StoreError> {
        let fail = |problem| Err(StoreError::Index { path: self.path.clone(), problem });
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        for (shard, names) in self.shards.iter().zip(names) {
            for key in names {
                if let Some(first) = found.insert(key, shard) {
                    let (first, second) = (first.to_owned(), shard.clone());
                    return fail(IndexProblem::KeyTwice { key: key.to_owned(), first, second });
                }
            }
        }
        match self.weight_map.iter().find(|(key, shard)| found.get(key.as_str()) != Some(&shard.as_str())) {
            Some((key, shard)) => fail(IndexProblem::MissingKey { key: key.clone(), shard: shard.clone() }),
            None => Ok(()),
        }
    }
}
