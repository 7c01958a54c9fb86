//! Compiles the CUDA kernels into the images that the binary carries, with nvcc from pip: no GPU and no CUDA needed.

mod manifest;
mod registers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::{announce, command, line, root, run as run_command, target_dir};
pub(crate) use manifest::stale_images;
use manifest::{Image, Manifest};

/// The compiler. Newer ones write PTX that a driver of CUDA 13.0 refuses.
const NVCC: &str = "cuda-toolkit[nvcc,nvvm,crt,cudart,cccl]==13.0.2";

/// Headers for plugins' kernels.
const HEADERS: &str = "crates/plugin-abi/include";

/// Machine code is made for these.
const ARCHITECTURES: [&str; 6] = ["80", "86", "89", "90", "100", "120"];
/// And PTX of this, which a driver compiles for any newer GPU.
const PTX: &str = "80";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these images, such as `masked_apply` (kernels/src) or `tall/tall` (plugins/tall/device); without any, those whose
    /// sources have changed.
    images: Vec<String>,
    /// Every image, changed or not.
    #[arg(long)]
    all: bool,
    /// For who tunes: machine code for this architecture alone, such as 90, into `--output`. `SKILLWELD_KERNELS=DIR` makes
    /// a binary use it.
    #[arg(long, requires = "output")]
    only: Option<String>,
    /// One folder for all, instead of kernels/prebuilt and those of the plugins; no manifest is written there.
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let nvcc = install_nvcc()?;
    let sources = sources()?;
    let mut manifest = Manifest::read()?;
    let wanted: Vec<&Source> = sources
        .iter()
        .filter(|source| {
            if args.images.is_empty() {
                args.all || args.output.is_some() || !manifest.is_fresh(source)
            } else {
                args.images.contains(&source.name)
            }
        })
        .collect();
    for name in &args.images {
        ensure!(wanted.iter().any(|source| source.name == *name), "no kernels' source is called {name}");
    }
    for folder in args.output.iter().cloned().chain([prebuilt()]) {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    announce(&format!("{} of {} images", wanted.len(), sources.len()));
    for source in wanted {
        let image = match &args.output {
            Some(folder) => folder.join(source.image.file_name().unwrap_or_default()),
            None => source.image.clone(),
        };
        let report = compile(&nvcc, source, &image, args.only.as_deref())?;
        if args.output.is_none() {
            manifest.images.insert(source.name.clone(), Image::of(source, &registers::parse(&report))?);
            manifest.write(NVCC, &sources)?;
        }
    }
    if args.output.is_none() {
        registers::write(&manifest)?;
    }
    Ok(())
}

/// Makes sure that the compiler is there and returns its path.
fn install_nvcc() -> Result<PathBuf> {
    let venv = target_dir().join("nvcc-venv");
    let receipt = venv.join("installed");
    if fs::read_to_string(&receipt).is_ok_and(|had| had == NVCC) {
        return find_nvcc(&venv);
    }
    announce("nvcc, through pip (some 100 MB)");
    run_command(command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run_command(command(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        NVCC,
    ]))?;
    fs::write(&receipt, NVCC).with_context(|| format!("cannot write {}", receipt.display()))?;
    find_nvcc(&venv)
}

fn find_nvcc(venv: &Path) -> Result<PathBuf> {
    let lib = venv.join("lib");
    let pythons = fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let mut paths =
        pythons.filter_map(|entry| Some(entry.ok()?.path().join("site-packages/nvidia/cu13/bin/nvcc")));
    paths.find(|path| path.exists()).with_context(|| format!("{NVCC} left no nvcc in {}", venv.display()))
}

/// Compiles one source file and returns what the assembler reports of registers.
fn compile(nvcc: &Path, source: &Source, image: &Path, only: Option<&str>) -> Result<String> {
    let mut compiler = command(nvcc);
    compiler.arg("-fatbin").args(flags(&source.path)?).arg("-I").arg(root().join(HEADERS));
    match only {
        Some(architecture) => drop(compiler.args(targets(&[architecture], None))),
        None if is_hopper_only(&source.path)? => drop(compiler.args(targets(&["90a"], None))),
        None => drop(compiler.args(targets(&ARCHITECTURES, Some(PTX)))),
    }
    compiler.args(["-Xptxas", "-v", "-t", "0"]).arg(&source.path).arg("-o").arg(image);
    println!("$ {}", line(&compiler));
    let run: &mut Command = compiler.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = run.output().context("cannot start nvcc")?;
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{} does not compile:\n{said}", source.path.display());
    Ok(said)
}

/// `-gencode` for machine code of each architecture, and for PTX.
fn targets(architectures: &[&str], ptx: Option<&str>) -> Vec<String> {
    let code = architectures.iter().map(|a| format!("-gencode=arch=compute_{a},code=sm_{a}"));
    code.chain(ptx.map(|a| format!("-gencode=arch=compute_{a},code=compute_{a}"))).collect()
}

/// Flags of one file: what all get, and what its comment `// compile with: …` adds.
fn flags(source: &Path) -> Result<Vec<String>> {
    let text = read(source)?;
    let own = text.lines().filter_map(|line| line.strip_prefix("// compile with: "));
    let own = own
        .flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')).map(str::to_owned));
    Ok(["-O3", "-std=c++17", "-Xfatbin", "-compress-all"].map(str::to_owned).into_iter().chain(own).collect())
}

/// Whether a file uses what only sm_90a has: it says so in the comment `// compile for: sm_90a`.
fn is_hopper_only(source: &Path) -> Result<bool> {
    Ok(read(source)?.lines().any(|line| line == "// compile for: sm_90a"))
}

/// A file of kernels, and where its image belongs.
struct Source {
    /// What the manifest calls it: the file's name, behind the plugin's for those of a plugin.
    name: String,
    path: PathBuf,
    image: PathBuf,
}

/// Every file of kernels, by name: ours, whose images the binary carries, and those of plugins, who carry their own.
fn sources() -> Result<Vec<Source>> {
    let ours = cuda_files(&root().join("kernels/src"))?.into_iter().map(|path| {
        let name = stem(&path);
        Source { image: prebuilt().join(&name).with_extension("fatbin"), name, path }
    });
    let mut sources: Vec<Source> = ours.collect();
    let plugins = root().join("plugins");
    for plugin in entries(&plugins)? {
        let device = plugin.join("device");
        if device.is_dir() {
            let folder = plugin.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sources.extend(cuda_files(&device)?.into_iter().map(|path| Source {
                name: format!("{folder}/{}", stem(&path)),
                image: path.with_extension("fatbin"),
                path,
            }));
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sources)
}

fn cuda_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(list.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?)
}

fn prebuilt() -> PathBuf {
    root().join("kernels/prebuilt")
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_from_the_sources_comment() {
        let source = root().join("kernels/src/masked_apply.cu");
        assert!(flags(&source).expect("readable").contains(&"-fmad=false".to_owned()));
    }

    #[test]
    fn plugins_kernels_are_among_the_sources() {
        let sources = sources().expect("readable");
        let tall = sources.iter().find(|source| source.name == "tall/tall").expect("one of them");
        assert!(tall.image.ends_with("plugins/tall/device/tall.fatbin"));
        assert!(sources.iter().any(|source| source.name == "masked_apply"));
    }
}
