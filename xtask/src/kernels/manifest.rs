//! What the images were compiled from: hashes of sources, flags, compiler, and what the assembler reported.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::registers::Kernel;
use super::{HEADERS, Source, flags, prebuilt, read, sources, stem};
use crate::process::root;

/// `kernels/prebuilt/manifest.json`.
#[derive(Default)]
pub(super) struct Manifest {
    pub(super) images: BTreeMap<String, Image>,
}

/// One image.
pub(super) struct Image {
    /// BLAKE3 of the flags, the source file and every header of ours that it includes.
    source_blake3: String,
    image_blake3: String,
    image_bytes: u64,
    pub(super) kernels: Vec<Kernel>,
}

impl Image {
    /// The image that lies compiled from `source`.
    pub(super) fn of(source: &Source, kernels: &[Kernel]) -> Result<Self> {
        let bytes =
            fs::read(&source.image).with_context(|| format!("cannot read {}", source.image.display()))?;
        Ok(Self {
            source_blake3: source_hash(&source.path)?,
            image_blake3: blake3::hash(&bytes).to_string(),
            image_bytes: bytes.len() as u64,
            kernels: kernels.to_vec(),
        })
    }
}

impl Manifest {
    fn path() -> PathBuf {
        prebuilt().join("manifest.json")
    }

    /// The manifest in the repository; an empty one, if there is none.
    pub(super) fn read() -> Result<Self> {
        let Ok(text) = fs::read_to_string(Self::path()) else { return Ok(Self::default()) };
        let value: Value = serde_json::from_str(&text).context("kernels/prebuilt/manifest.json")?;
        let field = |image: &Value, name: &str| image[name].as_str().unwrap_or_default().to_owned();
        let images = value["images"].as_object().into_iter().flatten().map(|(name, image)| {
            let kernels =
                image["kernels"].as_array().into_iter().flatten().filter_map(Kernel::from_json).collect();
            let image = Image {
                source_blake3: field(image, "source_blake3"),
                image_blake3: field(image, "image_blake3"),
                image_bytes: image["image_bytes"].as_u64().unwrap_or_default(),
                kernels,
            };
            (name.clone(), image)
        });
        Ok(Self { images: images.collect() })
    }

    /// Writes it, without images whose source is gone.
    pub(super) fn write(&mut self, compiler: &str, sources: &[Source]) -> Result<()> {
        let names: BTreeSet<&String> = sources.iter().map(|source| &source.name).collect();
        self.images.retain(|name, _| names.contains(name));
        let images = self.images.iter().map(|(name, image)| {
            let value = json!({
                "source_blake3": image.source_blake3,
                "image_blake3": image.image_blake3,
                "image_bytes": image.image_bytes,
                "kernels": image.kernels.iter().map(Kernel::to_json).collect::<Vec<_>>(),
            });
            (name.clone(), value)
        });
        let value = json!({ "compiler": compiler, "images": images.collect::<serde_json::Map<_, _>>() });
        let text = format!("{}\n", serde_json::to_string_pretty(&value)?);
        fs::write(Self::path(), text).context("cannot write kernels/prebuilt/manifest.json")
    }

    /// Whether the image lies there, compiled from the source that lies there.
    pub(super) fn is_fresh(&self, source: &Source) -> bool {
        let image = fs::read(&source.image);
        self.images.get(&source.name).is_some_and(|known| {
            image.is_ok_and(|bytes| blake3::hash(&bytes).to_string() == known.image_blake3)
                && source_hash(&source.path).is_ok_and(|hash| hash == known.source_blake3)
        })
    }
}

/// Names of the images that were not compiled from the sources as they are.
pub(crate) fn stale_images() -> Result<Vec<String>> {
    let manifest = Manifest::read()?;
    let stale = sources()?.into_iter().filter(|source| !manifest.is_fresh(source));
    Ok(stale.map(|source| source.name).collect())
}

/// Hash of all that decides what an image holds, but for the compiler.
fn source_hash(source: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(flags(source)?.join(" ").as_bytes());
    let mut files = BTreeSet::new();
    included(source, &mut files)?;
    for file in files {
        hasher.update(stem(&file).as_bytes());
        hasher.update(read(&file)?.as_bytes());
    }
    Ok(hasher.finalize().to_string())
}

/// The file and, over and over, what it includes: by a relative path, or of the plugins' headers. The emulation's shim is
/// not part of an image.
fn included(file: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let file = fs::canonicalize(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !files.insert(file.clone()) {
        return Ok(());
    }
    let names = read(&file)?;
    let names = names.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    for name in names.filter(|name| !name.contains("emulation/")) {
        let beside = file.with_file_name(name);
        included(&if beside.exists() { beside } else { root().join(HEADERS).join(name) }, files)?;
    }
    Ok(())
}
