use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};

use skillweld_spelling::nearest;

use crate::{Kind, Method, Plugin, PluginError};

/// All methods that were found, by kind and id.
#[derive(Debug, Default)]
pub struct Registry {
    methods: Vec<Method>,
    skipped: Vec<Skipped>,
}

/// A plugin, one method of it, or a folder, that was found but is of no use.
#[derive(Debug)]
pub struct Skipped {
    /// The plugin's file, or the folder.
    pub path: PathBuf,
    /// Why it is not used.
    pub reason: String,
}

/// Environment variable with further folders or files, separated as in `PATH`.
const SEARCH_VARIABLE: &str = "SKILLWELD_PLUGINS";

impl Registry {
    /// Loads every plugin on the search path: `extra` (files or folders, `--plugin`), the folder of the running
    /// binary, then each folder or file in `$SKILLWELD_PLUGINS`.
    ///
    /// Of two methods with the same kind and id the one found first in that order counts and the other is listed in
    /// [`skipped`](Self::skipped), so `extra` overrides what is installed. In folders only files named
    /// `libskillweld_plugin_*.so` (or what this system calls a library) are looked at. A bad one is skipped and listed,
    /// and so is a folder that holds none, but for the binary's own.
    ///
    /// # Errors
    /// A file or folder in `extra` that cannot be used: the user asked for it by name.
    pub fn discover(extra: &[PathBuf]) -> Result<Self, PluginError> {
        let binary = env::current_exe().ok().and_then(|binary| binary.parent().map(Path::to_owned));
        let variable = env::var_os(SEARCH_VARIABLE).unwrap_or_default();
        let named: Vec<PathBuf> =
            env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty()).collect();
        Self::search(extra, binary.as_deref(), &named)
    }

    /// [`discover`](Self::discover) with a search path of one's own.
    ///
    /// # Errors
    /// As [`discover`](Self::discover).
    pub fn discover_in(extra: &[PathBuf], search_path: &[PathBuf]) -> Result<Self, PluginError> {
        Self::search(extra, None, search_path)
    }

    /// `own` is a folder that need not hold plugins: nobody named it.
    fn search(extra: &[PathBuf], own: Option<&Path>, named: &[PathBuf]) -> Result<Self, PluginError> {
        let mut registry = Self::default();
        // The same file is often reachable twice; loading it again would only shadow itself.
        let mut seen = HashSet::new();
        let mut is_new = |file: &PathBuf| seen.insert(identity(file));
        for path in extra {
            let files = plugin_files(path)
                .map_err(|source| PluginError::Unreadable { path: path.clone(), source })?;
            registry.note_empty(path, &files);
            for file in files.into_iter().filter(&mut is_new) {
                registry.add(&Plugin::load(file)?);
            }
        }
        for path in own.into_iter().chain(named.iter().map(PathBuf::as_path)) {
            match plugin_files(path) {
                Err(e) => registry.skip(path, format!("cannot be read: {e}")),
                Ok(files) => {
                    if Some(path) != own {
                        registry.note_empty(path, &files);
                    }
                    for file in files.into_iter().filter(&mut is_new) {
                        match Plugin::load(&file) {
                            Ok(plugin) => registry.add(&plugin),
                            Err(e) => registry.skip(&file, e.to_string()),
                        }
                    }
                }
            }
        }
        Ok(registry)
    }

    /// A folder that someone named and that holds no plugin is most likely the wrong one.
    fn note_empty(&mut self, folder: &Path, files: &[PathBuf]) {
        if files.is_empty() {
            let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
            let reason =
                format!("this folder holds no plugin: no file in it is called {prefix}{NAME_START}*{suffix}");
            self.skip(folder, reason);
        }
    }

    /// Adds the methods of a plugin; one whose kind and id are taken is listed in [`skipped`](Self::skipped) instead.
    pub fn add(&mut self, plugin: &Plugin) {
        for method in plugin.methods() {
            match self.find(method.kind(), method.id()) {
                None => self.methods.push(method.clone()),
                Some(first) => {
                    let reason = format!(
                        "its {} method `{}` is already there from {}",
                        method.kind(),
                        method.id(),
                        first.path().display()
                    );
                    self.skip(plugin.path(), reason);
                }
            }
        }
    }

    /// The merge method called `id`.
    ///
    /// # Errors
    /// [`PluginError::UnknownMethod`] with the nearest known id.
    pub fn merge(&self, id: &str) -> Result<&Method, PluginError> {
        self.get(Kind::Merge, id)
    }

    /// The mask method called `id`.
    ///
    /// # Errors
    /// [`PluginError::UnknownMethod`] with the nearest known id.
    pub fn mask(&self, id: &str) -> Result<&Method, PluginError> {
        self.get(Kind::Mask, id)
    }

    /// All methods, in the order in which they were found.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Method> {
        self.methods.iter()
    }

    /// What was found but is not used, and why.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn skip(&mut self, path: &Path, reason: String) {
        self.skipped.push(Skipped { path: path.to_owned(), reason });
    }

    fn find(&self, kind: Kind, id: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.kind() == kind && method.id() == id)
    }

    fn get(&self, kind: Kind, id: &str) -> Result<&Method, PluginError> {
        self.find(kind, id).ok_or_else(|| {
            let of_kind = self.methods.iter().filter(|method| method.kind() == kind);
            let known: Vec<String> = of_kind.map(|method| method.id().to_owned()).collect();
            let nearest = nearest(id, known.iter().map(String::as_str)).map(str::to_owned);
            PluginError::UnknownMethod { kind, id: id.into(), nearest, known }
        })
    }
}

/// What makes a file the same under several names: build folders hold libraries as hard links.
#[cfg(unix)]
fn identity(file: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(file).map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// `path` itself when it is a file, else the plugins in that folder, in the order of their names.
fn plugin_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_plugin_name) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// What a plugin's name starts with, after what the system puts before every library's.
const NAME_START: &str = "skillweld_plugin_";

/// Build folders also hold libraries that are no plugins, procedural macros for one; only this name is trusted.
fn is_plugin_name(name: &str) -> bool {
    name.strip_prefix(env::consts::DLL_PREFIX)
        .and_then(|name| name.strip_suffix(env::consts::DLL_SUFFIX))
        .is_some_and(|name| name.starts_with(NAME_START))
}
