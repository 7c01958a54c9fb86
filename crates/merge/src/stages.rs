//! Which stages of a recipe file are done already, and why the others are not.
//!
//! A stage is done again when, and only when, something that it depends on has changed: its recipe, a method's library,
//! Skillweld's version, the content of a file of one of its models, or what it wrote. Times of files decide only whether
//! their content is hashed again. A stage that is done again and gives what it gave before leaves those after it as they
//! are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skillweld_linalg::Threads;
use skillweld_merged::layout::is_provenance;
use skillweld_plugin_host::{Method, Registry};
use skillweld_store::{StoreError, replace_file};

use crate::recipe::{MaskChoice, Recipe, Tokenizer};
use crate::{BaseMode, MergeError};

/// The file in the stages' folder that says what is there.
const BOOK: &str = "stages.json";
/// Version of that file.
const FORMAT_VERSION: u32 = 1;

/// The folder with the results of a recipe file's stages, and what is known of them.
#[derive(Debug)]
pub struct Stages {
    folder: PathBuf,
    threads: Threads,
    book: Book,
}

/// How it stands with a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageState {
    /// Its result is there, and would come out the same.
    Done,
    /// It has to be merged, and why.
    Due(String),
}

/// A stage as it would be merged now: from [`Stages::state`], for [`Stages::record`].
#[derive(Debug)]
pub struct Check {
    /// Done or due.
    pub state: StageState,
    depends: Dependencies,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Book {
    format_version: u32,
    /// By the stage's name; the file's result by the path of its folder.
    stages: BTreeMap<String, Entry>,
    /// Hashes of files that have been read, by path.
    files: BTreeMap<String, Hashed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    depends: Dependencies,
    /// BLAKE3 of every file of the result, by name.
    wrote: BTreeMap<String, String>,
}

/// Everything that decides what a stage gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Dependencies {
    skillweld: String,
    recipe: Value,
    /// How Θ₀ is kept.
    base: String,
    /// BLAKE3 of the libraries of its methods, by method.
    methods: BTreeMap<String, String>,
    /// BLAKE3 of its models' files, by model as written and file.
    files: BTreeMap<String, String>,
}

/// A file's hash, and how to tell that it is still that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hashed {
    len_bytes: u64,
    inode: u64,
    modified_ns: i128,
    changed_ns: i128,
    blake3: String,
}

impl Stages {
    /// Opens the folder; one that is not there is made when the first stage is recorded.
    ///
    /// # Errors
    /// [`MergeError::Unfit`] for a book that another version wrote or that is no book.
    pub fn open(folder: &Path, threads: Threads) -> Result<Self, MergeError> {
        let path = folder.join(BOOK);
        let unfit = |problem: String| MergeError::Unfit { path: path.clone(), problem };
        let book = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(StoreError::io("read", &path)(error).into()),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                unfit(format!("is not what Skillweld wrote ({error}); remove it to merge every stage again"))
            })?,
        };
        if !book.stages.is_empty() && book.format_version != FORMAT_VERSION {
            let version = book.format_version;
            return Err(unfit(format!(
                "has format version {version}, this program writes {FORMAT_VERSION}; remove it to merge every stage again"
            )));
        }
        let book = Book { format_version: FORMAT_VERSION, ..book };
        Ok(Self { folder: folder.to_owned(), threads, book })
    }

    /// Where the result of a stage lies.
    pub fn place(&self, stage: &str) -> PathBuf {
        self.folder.join(stage)
    }

    /// Compares a stage, whose result lies or will lie in `out`, with what was recorded of it. All the models of `recipe`
    /// must be there; `name` is the stage's, `None` for the result of the file.
    ///
    /// # Errors
    /// A model, method or file that cannot be read.
    pub fn state(
        &mut self,
        name: Option<&str>,
        recipe: &Recipe,
        registry: &Registry,
        base: BaseMode,
        out: &Path,
    ) -> Result<Check, MergeError> {
        let depends = self.dependencies(recipe, registry, base)?;
        let state = self.compare(&entry_name(name, out), &depends, out)?;
        Ok(Check { state, depends })
    }

    fn compare(&mut self, name: &str, now: &Dependencies, out: &Path) -> Result<StageState, MergeError> {
        let due = |why: &str| Ok(StageState::Due(why.to_owned()));
        let Some(Entry { depends: then, wrote }) = self.book.stages.get(name) else {
            return due(if out.exists() { "it is not known how it was made" } else { "it is not there yet" });
        };
        if let Some(why) = then.difference(now) {
            return Ok(StageState::Due(why));
        }
        if !out.is_dir() {
            return due("it is not there any more");
        }
        let wrote = wrote.clone();
        if self.hash_all(&files_of(out)?)? != wrote {
            return due("its files are not those that were written");
        }
        Ok(StageState::Done)
    }

    /// Keeps in mind that a stage has been merged into `out`.
    ///
    /// # Errors
    /// Files of the result that cannot be read, a book that cannot be written.
    pub fn record(&mut self, name: Option<&str>, check: Check, out: &Path) -> Result<(), MergeError> {
        let wrote = self.hash_all(&files_of(out)?)?;
        let entry = Entry { depends: check.depends, wrote };
        self.book.stages.insert(entry_name(name, out), entry);
        self.book.files.retain(|path, _| Path::new(path).exists());
        let path = self.folder.join(BOOK);
        fs::create_dir_all(&self.folder).map_err(StoreError::io("create", &self.folder))?;
        let text = serde_json::to_vec_pretty(&self.book).map_err(|error| MergeError::Unfit {
            path: path.clone(),
            problem: format!("cannot be written: {error}"),
        })?;
        Ok(replace_file(&path, &text)?)
    }

    fn dependencies(
        &mut self,
        recipe: &Recipe,
        registry: &Registry,
        base: BaseMode,
    ) -> Result<Dependencies, MergeError> {
        let merge = registry.merge(&recipe.method)?;
        let mask = match &recipe.mask {
            MaskChoice::Method(mask) => Some(mask.method.as_str()),
            MaskChoice::MethodsOwn => merge.mask(),
            MaskChoice::None => None,
        };
        let mask = mask.map(|mask| registry.mask(mask)).transpose()?;
        let library =
            |method: &&Method| (format!("{} {}", method.kind(), method.id()), method.path().to_owned());
        let libraries: Vec<(String, PathBuf)> = [Some(merge), mask].iter().flatten().map(library).collect();
        Ok(Dependencies {
            skillweld: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: recipe.to_value(),
            base: base.to_string(),
            methods: self.hash_all(&libraries)?,
            files: self.hash_all(&model_files(recipe)?)?,
        })
    }

    /// Hashes of named files; those that look untouched are not read again.
    fn hash_all(&mut self, files: &[(String, PathBuf)]) -> Result<BTreeMap<String, String>, MergeError> {
        let paths: BTreeSet<&Path> = files.iter().map(|(_, path)| &**path).collect();
        let paths: Vec<&Path> = paths.into_iter().collect();
        let hashes: Vec<Mutex<Option<Hashed>>> = paths.iter().map(|_| Mutex::default()).collect();
        let known = &self.book.files;
        self.threads.for_each(
            paths.len(),
            || (),
            |(), index| {
                let now = Hashed::untold(paths[index])?;
                let same = known.get(&*paths[index].to_string_lossy()).filter(|then| then.looks_like(&now));
                let hashed = match same {
                    Some(then) => then.clone(),
                    None => Hashed { blake3: hash_file(paths[index])?, ..now },
                };
                *hashes[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(hashed);
                Ok::<_, MergeError>(())
            },
        )?;
        for (path, hashed) in paths.iter().zip(hashes) {
            let hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.book.files.extend(hashed.map(|hashed| (path.to_string_lossy().into_owned(), hashed)));
        }
        let hash =
            |path: &Path| self.book.files.get(&*path.to_string_lossy()).map(|file| file.blake3.clone());
        Ok(files.iter().filter_map(|(name, path)| Some((name.clone(), hash(path)?))).collect())
    }
}

impl Dependencies {
    /// What is no longer as it was, in words.
    fn difference(&self, now: &Self) -> Option<String> {
        if self.recipe != now.recipe {
            return Some("its recipe has changed".to_owned());
        }
        if self.base != now.base {
            return Some(format!("it was written with `--base {}`", self.base));
        }
        if self.skillweld != now.skillweld {
            return Some(format!("Skillweld {} made it", self.skillweld));
        }
        let changed = |then: &BTreeMap<String, String>, now: &BTreeMap<String, String>| {
            let name = then.keys().chain(now.keys()).find(|name| then.get(*name) != now.get(*name))?;
            let how = match (then.contains_key(name), now.contains_key(name)) {
                (true, false) => "is gone",
                (false, true) => "is new",
                _ => "has changed",
            };
            Some(format!("{name} {how}"))
        };
        changed(&self.methods, &now.methods).or_else(|| changed(&self.files, &now.files))
    }
}

impl Hashed {
    /// What the file system says of a file, without its hash.
    fn untold(path: &Path) -> Result<Self, StoreError> {
        let metadata: Metadata = fs::metadata(path).map_err(StoreError::io("open", path))?;
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Self {
            len_bytes: metadata.len(),
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            blake3: String::new(),
        })
    }

    fn looks_like(&self, other: &Self) -> bool {
        let without_hash = |hashed: &Self| Self { blake3: String::new(), ..hashed.clone() };
        without_hash(self) == without_hash(other)
    }
}

fn entry_name(name: Option<&str>, out: &Path) -> String {
    match name {
        Some(name) => name.to_owned(),
        None => std::path::absolute(out).unwrap_or_else(|_| out.to_owned()).display().to_string(),
    }
}

fn hash_file(path: &Path) -> Result<String, StoreError> {
    let file = fs::File::open(path).map_err(StoreError::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(StoreError::io("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Files that may have a part in what a recipe gives, by model as written: all but hidden ones, provenance and READMEs.
///
/// # Errors
/// A model that is not there.
pub fn model_files(recipe: &Recipe) -> Result<Vec<(String, PathBuf)>, MergeError> {
    const ADAPTER: &str = "lora_adapter";
    let mut files = Vec::new();
    for (index, model) in recipe.models.iter().enumerate() {
        let (path, adapter) = recipe.locate(index)?;
        let written = model.path.display().to_string();
        add_files(&written, &path, &mut files)?;
        let nested = path.join(ADAPTER);
        if nested.is_dir() {
            add_files(&format!("{written}/{ADAPTER}"), &nested, &mut files)?;
        }
        if let (Some(path), Some((written, _))) = (recipe.locate_statistics(index)?, &model.statistics) {
            add_files(&written.display().to_string(), &path, &mut files)?;
        }
        if let (Some(path), Some(written)) = (adapter, &model.adapter) {
            add_files(&written.display().to_string(), &path, &mut files)?;
            if path.file_name().is_some_and(|name| name == ADAPTER)
                && let Some(above) = path.parent()
            {
                add_files(&format!("{}/..", written.display()), above, &mut files)?;
            }
        }
    }
    if let Some(Tokenizer::Model { path, .. }) = &recipe.tokenizer {
        add_files(&path.display().to_string(), &recipe.locate_tokenizer()?, &mut files)?;
    }
    Ok(files)
}

/// The files of a folder, or those beside a file: an index names its shards.
fn add_files(written: &str, path: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<(), StoreError> {
    if path.is_file() && path.extension().is_none_or(|ending| ending != "json") {
        files.push((written.to_owned(), path.to_owned()));
        return Ok(());
    }
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let counts = |name: &str| !is_provenance(name) && !name.starts_with('.') && !name.starts_with("README");
    let named = files_of(folder)?.into_iter().filter(|(name, _)| counts(name));
    files.extend(named.map(|(name, path)| (format!("{written}/{name}"), path)));
    Ok(())
}

/// Names and paths of the files in a folder.
fn files_of(folder: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        if entry.path().is_file() {
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}
