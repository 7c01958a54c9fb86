//! Runs the program as a user would, on small checkpoints made on the spot.
#![allow(dead_code, clippy::unwrap_used, reason = "included by tests, each of which uses its share")]

pub(crate) mod served;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use skillweld_synth::{Embodiment, ExpertForm, PrismaticSpec, Qwen2Spec};
use tempfile::TempDir;

/// The program, finding the plugins that cargo built beside the tests.
pub(crate) fn skillweld() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skillweld"));
    command.env("SKILLWELD_PLUGINS", plugins()).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// The folder of those plugins.
pub(crate) fn plugins() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// Says something that is seen of a passing test too, whose own output is swallowed.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Ran {
    /// The one JSON document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.error))
    }

    /// Lines on standard error, but for those about other plugins in the folder of the tests.
    pub(crate) fn said(&self) -> Vec<&str> {
        self.error.lines().filter(|line| !line.starts_with("warning: skipped")).collect()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.error);
        self
    }

    /// Failed with exit code 1 and one `error:` line that has these words, and no panic.
    #[track_caller]
    pub(crate) fn failed_with(self, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.error);
        assert_eq!(self.error.matches("error: ").count(), 1, "{}", self.error);
        for words in words {
            assert!(self.error.contains(words), "`{words}` is not in: {}", self.error);
        }
        assert!(!self.error.contains("panicked"), "{}", self.error);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
    }
}

pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    skillweld().args(args).output().unwrap().into()
}

/// A folder of its own with checkpoints and recipes.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// `base` and `expert0`, `expert1`: plain language models.
    pub(crate) fn language_models() -> Self {
        let bench = Self::new();
        Qwen2Spec::tiny().write_all(bench.path(), &[ExpertForm::Full, ExpertForm::Full]).unwrap();
        bench
    }

    /// `base`, `spatial` (adapter) and `object` (whole weights): vision-language-action experts with action heads.
    pub(crate) fn action_models() -> Self {
        let bench = Self::new();
        PrismaticSpec::tiny().write_all(bench.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
        bench
    }

    /// Two experts for a robot, merged, and where that is.
    pub(crate) fn merged(embodiment: Embodiment) -> (Self, PathBuf) {
        let bench = Self::new();
        let spec = PrismaticSpec { dtype: skillweld_tensor::Dtype::F32, embodiment, ..PrismaticSpec::tiny() };
        spec.write_all(bench.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
        let (recipe, policy) = (bench.action_recipe(), bench.join("merged"));
        run([Path::new("merge"), &recipe, &policy]).succeeded();
        (bench, policy)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a recipe and gives its path.
    pub(crate) fn recipe(&self, text: &str) -> PathBuf {
        let path = self.join("recipe.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    /// A recipe over the language models.
    pub(crate) fn language_recipe(&self, method: &str, more: &str) -> PathBuf {
        self.recipe(&format!(
            "merge_method: {method}\nbase_model: base\nmodels:\n  - model: expert0\n  - model: expert1\n{more}"
        ))
    }

    /// The MergeVLA way over the action models.
    pub(crate) fn action_recipe(&self) -> PathBuf {
        self.recipe(
            "merge_method: ties\nbase_model: base\nmodels:\n  - {name: spatial, model: spatial}\n  - {name: object, \
             model: object}\nparameters: {density: 1.0, normalize: false, scope: global}\nmask: {method: tall, lambda: \
             0.6}\naction_expert: {head_blocks: 1}\nrouter: {rank: 4}\n",
        )
    }

    /// Names in the folder, sorted, hidden ones included.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.path())
    }

    /// Compiles `data/odd.c` with these macros.
    pub(crate) fn odd_plugin(&self, macros: &[&str]) -> PathBuf {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = self.join("odd.so");
        // Rust links through the C compiler, so one is there wherever these tests build.
        let output = Command::new("cc")
            .args(["-std=c99", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .args(macros.iter().map(|name| format!("-D{name}")))
            .arg("-I")
            .arg(package.join("../plugin-abi/include"))
            .arg(package.join("tests/data/odd.c"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file below `dir` with its bytes.
pub(crate) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for name in names(dir) {
        let path = dir.join(name);
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files
}
