//! Which policy it was: what is in a checkpoint's files, wherever it lies.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Endings of files that decide on actions: weights, what says how they are used, the tokenizer.
const DECIDE: [&str; 6] = ["safetensors", "bin", "pt", "pth", "json", "txt"];

/// A hash of a checkpoint's names and contents, 16 hexadecimal digits. `path`: its folder, or one file.
///
/// # Errors
/// What the disk says, naming the file.
pub(super) fn identity(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    add(path, &mut hasher)?;
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

fn add(path: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
    let at = || format!("cannot read {}", path.display());
    if !path.is_dir() {
        let mut contents = blake3::Hasher::new();
        contents.update_reader(fs::File::open(path).with_context(at)?).with_context(at)?;
        hasher.update(contents.finalize().as_bytes());
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(at)?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>().with_context(at)?;
    entries.sort();
    for entry in entries {
        let decides = |ending: &std::ffi::OsStr| DECIDE.iter().any(|known| ending == *known);
        if entry.is_dir() || entry.extension().is_some_and(decides) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            add(&entry, hasher)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_what_decides_wherever_that_lies() {
        let folder = tempfile::tempdir().unwrap();
        let write = |policy: &str, name: &str, text: &str| {
            let path = folder.path().join(policy).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let of = |policy: &str| identity(&folder.path().join(policy)).unwrap();
        for policy in ["a", "b"] {
            write(policy, "model.safetensors", "weights");
            write(policy, "lora_adapter/adapter_model.safetensors", "more");
        }
        assert_eq!(of("a"), of("b"));
        write("b", "README.md", "words");
        assert_eq!(of("a"), of("b"));
        for (name, text) in
            [("lora_adapter/adapter_model.safetensors", "others"), ("router_calibration.json", "{}")]
        {
            let before = of("b");
            write("b", name, text);
            assert_ne!(of("b"), before, "{name}");
        }
        assert!(identity(&folder.path().join("c")).unwrap_err().to_string().contains("cannot read"));
    }
}
