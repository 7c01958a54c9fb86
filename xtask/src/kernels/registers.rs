//! What the assembler reports of every kernel: registers, spills, shared memory.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::manifest::Manifest;
use super::{ARCHITECTURES, prebuilt};

/// A kernel on one architecture.
#[derive(Clone)]
pub(super) struct Kernel {
    name: String,
    /// Such as `sm_90`.
    architecture: String,
    registers: u64,
    spilled_bytes: u64,
}

impl Kernel {
    pub(super) fn to_json(&self) -> Value {
        json!([self.name, self.architecture, self.registers, self.spilled_bytes])
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            name: value[0].as_str()?.to_owned(),
            architecture: value[1].as_str()?.to_owned(),
            registers: value[2].as_u64()?,
            spilled_bytes: value[3].as_u64()?,
        })
    }
}

/// Reads what `ptxas -v` wrote.
pub(super) fn parse(report: &str) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    let (mut name, mut architecture, mut spilled_bytes) = (String::new(), String::new(), 0);
    for line in report.lines() {
        let number_before =
            |word: &str| -> Option<u64> { line.split(word).next()?.split_whitespace().last()?.parse().ok() };
        if line.contains("Compiling entry function") {
            let mut quoted = line.split('\'');
            name = quoted.nth(1).unwrap_or_default().to_owned();
            architecture = quoted.nth(1).unwrap_or_default().to_owned();
            spilled_bytes = 0;
        } else if line.contains("bytes spill stores") {
            spilled_bytes = number_before(" bytes spill stores").unwrap_or(0);
        } else if line.contains(" registers") {
            let registers = number_before(" registers").unwrap_or(0);
            kernels.push(Kernel {
                name: name.clone(),
                architecture: architecture.clone(),
                registers,
                spilled_bytes,
            });
        }
    }
    kernels.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    kernels
}

/// Writes `kernels/prebuilt/registers.md`.
pub(super) fn write(manifest: &Manifest) -> Result<()> {
    let mut table = String::from(
        "# Registers of every kernel\n\nWritten by `cargo xtask kernels`: registers a thread and, after a plus, bytes spilled.\n",
    );
    for (name, image) in &manifest.images {
        table += &format!(
            "\n## {name}\n\n| kernel | {} |\n|---|{}\n",
            ARCHITECTURES.map(|a| format!("sm_{a}")).join(" | "),
            "---|".repeat(6)
        );
        let mut names: Vec<&str> = image.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        names.dedup();
        for name in names {
            let cell = |architecture: &str| {
                let on = |kernel: &&Kernel| {
                    kernel.name == name
                        && kernel.architecture.trim_start_matches("sm_").trim_end_matches('a') == architecture
                };
                image.kernels.iter().find(on).map_or_else(String::new, |kernel| match kernel.spilled_bytes {
                    0 => kernel.registers.to_string(),
                    spilled => format!("{} + {spilled}", kernel.registers),
                })
            };
            table += &format!("| `{name}` | {} |\n", ARCHITECTURES.map(cell).join(" | "));
        }
    }
    fs::write(prebuilt().join("registers.md"), table).context("cannot write kernels/prebuilt/registers.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_assemblers_report() {
        let report = "ptxas info    : Compiling entry function 'apply_bf16' for 'sm_90'\n\
                      ptxas info    : Function properties for apply_bf16\n    \
                      0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
                      ptxas info    : Used 60 registers, used 0 barriers\n";
        let kernels = parse(report);
        assert_eq!(kernels.len(), 1);
        assert_eq!((kernels[0].name.as_str(), kernels[0].architecture.as_str()), ("apply_bf16", "sm_90"));
        assert_eq!((kernels[0].registers, kernels[0].spilled_bytes), (60, 8));
    }
}
