//! `skillweld extract-lora`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde_json::json;
use skillweld_interchange::{ExtractOptions, ExtractReport, Others, extract_lora, extract_work};
use skillweld_merge::Control;
use skillweld_plugin_host::HostHooks;
use skillweld_store::Checkpoint;
use skillweld_tensor::Dtype;

use crate::arguments::ThreadCount;
use crate::console::{Console, Page, Tone, cell, count, note_new_folder, number, print_json, table};
use crate::progress::Progress;
use crate::{Outcome, figures, interrupt, keys};

const EXAMPLES: &str = "\
Examples:
  skillweld extract-lora base finetuned adapter --rank 64
  # only what LoRA itself can hold: the report says how much is left out
  skillweld extract-lora base finetuned adapter --rank 16 --others leave-out
  # as small as it gets
  skillweld extract-lora base finetuned adapter --rank 32 --dtype bf16
  # the weights that lose most
  skillweld extract-lora base finetuned adapter --rank 8 --json | jq '.report.adapted | sort_by(-.residual)[:5]'

In Python:
  peft.PeftModel.from_pretrained(AutoModel.from_pretrained(\"base\"), \"adapter\")";

/// Write the difference of a fine-tune and its base as a LoRA adapter in PEFT's format.
///
/// Each linear weight's τ = Θ_ft − Θ₀ becomes B·A, its best approximation of the rank asked for; the report says how good that
/// is. Other changed tensors are saved whole, where peft can hold them.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model that was fine-tuned.
    base: PathBuf,
    /// What came of it: the whole model.
    finetuned: PathBuf,
    /// The directory to write. Folders above it that are missing are made.
    out: PathBuf,
    /// Rank of each weight's update; smaller weights get as much as they have.
    #[arg(long, value_name = "R")]
    rank: usize,
    /// What the factors are stored in.
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t)]
    dtype: Stored,
    /// What becomes of changed tensors that are no linear weights.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    others: OtherTensors,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadCount,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

/// `--dtype`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Stored {
    /// What peft itself trains and saves
    #[default]
    F32,
    /// Half of that, with 8 bits of mantissa
    Bf16,
    /// Half of that, with 11 bits of mantissa and a narrow range
    F16,
}

/// `--others`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum OtherTensors {
    /// Save them whole (`modules_to_save`, trained biases)
    #[default]
    Save,
    /// Leave them out
    LeaveOut,
    /// Stop at the first
    Refuse,
}

impl Args {
    fn options(&self) -> ExtractOptions {
        let dtype = match self.dtype {
            Stored::F32 => Dtype::F32,
            Stored::Bf16 => Dtype::BF16,
            Stored::F16 => Dtype::F16,
        };
        let others = match self.others {
            OtherTensors::Save => Others::Save,
            OtherTensors::LeaveOut => Others::LeaveOut,
            OtherTensors::Refuse => Others::Refuse,
        };
        ExtractOptions { rank: self.rank, dtype, others, force: self.force }
    }
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let started = Instant::now();
    interrupt::install()?;
    let (base, finetuned) = (Checkpoint::open(&args.base)?, Checkpoint::open(&args.finetuned)?);
    note_new_folder(&args.out, console);
    let progress = Progress::new(false);
    let work = extract_work(&base, &finetuned);
    progress.start(work, base.total_bytes() as f64 / work.max(1) as f64);
    let hooks = HostHooks { cancelled: &interrupt::requested, ..HostHooks::SILENT };
    let control =
        Control { threads: args.threads.get(), hooks, advance: &|elements| progress.advance(elements) };
    ensure!(!interrupt::requested(), "stopped");
    let result = extract_lora(&base, &finetuned, &args.out, &args.options(), &control);
    progress.finish();
    let report = result?;
    let elapsed = started.elapsed();
    if args.json {
        print_json(&json!({"output": report.path, "elapsed_s": elapsed.as_secs_f64(), "report": report}))?;
    } else {
        page(&report, elapsed, console).print()?;
    }
    Ok(Outcome::Done)
}

/// Weights shown with their residuals.
const WORST: usize = 5;

fn page(report: &ExtractReport, elapsed: Duration, console: Console) -> Page {
    let mut page = Page::new(console);
    page.heading("LoRA adapter", report.path.display());
    page.facts([
        ("rank", report.rank.to_string()),
        ("factors", figures::counted(report.adapted.len() as u64, "weight")),
        ("saved whole", counted_or_none(report.saved.len())),
        ("unchanged", counted_or_none(report.unchanged)),
        ("size", figures::bytes(report.tensor_bytes as f64)),
        ("lost of τ", format!("{} of its norm", figures::percent(report.residual))),
        ("time", figures::duration(elapsed)),
    ]);
    let mut worst: Vec<_> = report.adapted.iter().collect();
    worst.sort_by(|a, b| b.residual.total_cmp(&a.residual));
    page.heading("Largest residuals", "");
    let rows = worst.iter().take(WORST).map(|tensor| {
        let cells = vec![
            cell(Tone::Plain, figures::shape(&tensor.shape)),
            number(tensor.rank),
            number(figures::percent(tensor.residual)),
        ];
        (tensor.key.clone(), cells)
    });
    page.table_of_names(&["key", "shape", "rank", "lost"], rows.collect());
    if !report.left_out.is_empty() {
        page.heading("Changed, and not in the adapter", "");
        let groups =
            keys::group(report.left_out.iter().map(|tensor| (tensor.key.as_str(), tensor.reason.as_str())));
        let mut rows = table(["key", "tensors", "why"]);
        for group in &groups {
            rows.add_row([
                cell(Tone::Name, group.to_string()),
                count(group.members),
                cell(Tone::Plain, group.common),
            ]);
        }
        page.table(rows);
    }
    page
}

fn counted_or_none(tensors: usize) -> String {
    if tensors == 0 { String::new() } else { figures::counted(tensors as u64, "tensor") }
}
