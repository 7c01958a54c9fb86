//! What this machine offers.

use std::path::Path;

use anyhow::Result;

use crate::process::{announce, command, output, root, target_dir};
use crate::{plugins, setup};

pub(crate) fn run() -> Result<()> {
    announce("toolchain");
    for (program, argument) in
        [("rustc", "--version"), ("cargo", "--version"), ("cc", "--version"), ("python3", "--version")]
    {
        let version = output(command(program).arg(argument));
        let first = version.as_deref().ok().and_then(|text| text.lines().next());
        println!("{program:8} {}", first.unwrap_or("not found"));
    }

    announce("processor");
    println!("model    {}", processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()));
    println!("cores    {}", std::thread::available_parallelism().map_or(1, usize::from));
    for (name, there) in instruction_sets() {
        println!("{name:8} {}", if there { "yes" } else { "no" });
    }

    announce("optional parts");
    let openblas = if setup::has_openblas() { "there" } else { "missing: `cargo xtask setup lapack`" };
    println!("openblas {openblas}");

    announce("disk");
    let place = [target_dir(), root().to_owned()].into_iter().find(|path| path.exists());
    if let Ok(table) = output(command("df").arg("-h").args(place)) {
        print!("{table}");
    }

    announce("plugins");
    for release in [true, false] {
        let folder = plugins::profile_dir(release);
        let binary = folder.join("skillweld");
        if binary.exists() {
            println!("of {}:", folder.display());
            print!("{}", output(command(&binary).args(["plugins", "list"]))?);
            return Ok(());
        }
    }
    println!("no binary yet: `cargo xtask build`");
    Ok(())
}

/// The processor's model as the kernel names it.
pub(crate) fn processor() -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/cpuinfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    Vec::new()
}
