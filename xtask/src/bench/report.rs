//! What is kept of a run: `benches/runs/DATE-MACHINE/mergekit.{json,md}`.

use std::fmt;
use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::measure::Cost;
use crate::doctor;
use crate::process::{announce, command, output, root};

/// All runs of one contestant on one recipe.
pub(crate) struct Row {
    recipe: String,
    contestant: String,
    costs: Vec<Cost>,
}

impl Row {
    pub(crate) fn new(recipe: &str, contestant: &str) -> Self {
        Self { recipe: recipe.into(), contestant: contestant.into(), costs: Vec::new() }
    }

    pub(crate) fn push(&mut self, cost: Cost) {
        self.costs.push(cost);
    }

    /// The median of one quantity.
    fn median(&self, quantity: impl Fn(&Cost) -> f64) -> f64 {
        let mut values: Vec<f64> = self.costs.iter().map(quantity).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => f64::NAN,
            count if count % 2 == 0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        }
    }

    pub(crate) fn wall_s(&self) -> f64 {
        self.median(|cost| cost.wall_s)
    }

    fn cpu_s(&self) -> f64 {
        self.median(|cost| cost.cpu_s)
    }

    fn anonymous_mb(&self) -> f64 {
        self.costs.iter().map(|cost| cost.anonymous_mb).fold(0.0, f64::max)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall, cpu, memory) = (self.wall_s(), self.cpu_s(), self.anonymous_mb());
        write!(f, "{:44} {wall:8.3} s wall {cpu:8.2} s cpu {memory:7.0} MB anonymous", self.contestant)
    }
}

/// Where and when something was measured, and of which state of the code.
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let line = |program: &str, args: &[&str]| -> Result<String> {
            Ok(output(command(program).args(args))?.trim().to_owned())
        };
        Ok(Self {
            date: line("date", &["-u", "+%Y-%m-%d"])?,
            processor: doctor::processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            commit: line("git", &["describe", "--always", "--dirty"])?,
        })
    }

    /// Keeps `<stem>.md` and `<stem>.json` in `benches/runs`.
    pub(crate) fn keep(&self, stem: &str, markdown: &str, json: &Value) -> Result<()> {
        let processor = self.processor.to_lowercase();
        let words: Vec<_> =
            processor.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let machine = format!("{}-{}-cores", words.join("-"), self.cores);
        let dir = root().join("benches/runs").join(format!("{}-{machine}", self.date));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("{stem}.md")), markdown)?;
        fs::write(dir.join(format!("{stem}.json")), serde_json::to_string_pretty(json)? + "\n")?;
        println!("kept in {}", dir.display());
        Ok(())
    }
}

pub(crate) struct Report {
    /// What was run.
    command: String,
    machine: Machine,
    pub(crate) rows: Vec<Row>,
    /// Recipe and how outputs compare.
    pub(crate) agreements: Vec<(&'static str, String)>,
}

impl Report {
    pub(crate) fn new(rounds: usize, only: &[String]) -> Result<Self> {
        let mut command = format!("cargo xtask bench --peer mergekit --rounds {rounds}");
        if !only.is_empty() {
            command += &format!(" --only {}", only.join(","));
        }
        Ok(Self { command, machine: Machine::look()?, rows: Vec::new(), agreements: Vec::new() })
    }

    /// Prints the tables and keeps them under the name.
    pub(crate) fn publish(&self, keep_as: Option<&str>) -> Result<()> {
        let markdown = self.markdown();
        announce("results");
        println!("{markdown}");
        if let Some(name) = keep_as {
            self.machine.keep(name, &markdown, &self.json())?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Skillweld against mergekit 0.1.5\n\n\
             `{}` at {}, {}, {} on {} cores.\n\n\
             Inputs: base and four dense fine-tunes of Qwen2.5-0.5B's shape, bf16, warm page cache. Every program runs the \
             same recipe, in turns, floor and Skillweld before each of the peer's three; medians, the highest memory seen. `f32` and `bf16` name the dtype that \
             mergekit computes in (bf16 is what its users get from `dtype: bfloat16`); Skillweld always computes in f32. \
             mergekit runs on the CPU, with its defaults and with `--lazy-unpickle --async-write --write-threads 2 \
             --num-threads 2`, always with `--quiet --no-write-model-card`. Skillweld's times include hashing every input and output and fsync. Floor: `cat INPUTS \
             >/dev/null; cp OUTPUT COPY; sync COPY`. **Ratios may be compared between machines, seconds may not.**\n",
            self.command, self.machine.commit, self.machine.date, self.machine.processor, self.machine.cores
        );
        let mut recipe = "";
        for row in &self.rows {
            if row.recipe != recipe {
                recipe = &row.recipe;
                let _ = write!(text, "\n## {recipe}\n\n");
                if let Some((_, agreement)) = self.agreements.iter().find(|(name, _)| *name == recipe) {
                    let _ = write!(text, "{}{}.\n\n", agreement[..1].to_uppercase(), &agreement[1..]);
                }
                let _ = writeln!(text, "| | wall time | CPU time | memory | wall | CPU | anonymous |");
                text += "|---|--:|--:|--:|--:|--:|--:|\n";
            }
            let reference = self.reference(recipe);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.3} s | {:.2} s | {:.0} MB |",
                row.contestant,
                ratio(row.wall_s(), reference.wall_s()),
                ratio(row.cpu_s(), reference.cpu_s()),
                ratio(row.anonymous_mb(), reference.anonymous_mb()),
                row.wall_s(),
                row.cpu_s(),
                row.anonymous_mb(),
            );
        }
        text
    }

    /// What a recipe's ratios are against: Skillweld's row, or the first.
    fn reference(&self, recipe: &str) -> &Row {
        let mut rows = self.rows.iter().filter(|row| row.recipe == recipe);
        let ours = rows.clone().find(|row| row.contestant == "skillweld");
        ours.or_else(|| rows.next()).unwrap_or(&self.rows[0])
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "recipe": row.recipe,
                "contestant": row.contestant,
                "wall_ratio": row.wall_s() / self.reference(&row.recipe).wall_s(),
                "wall_s": row.costs.iter().map(|cost| cost.wall_s).collect::<Vec<_>>(),
                "cpu_s": row.costs.iter().map(|cost| cost.cpu_s).collect::<Vec<_>>(),
                "anonymous_mb": row.costs.iter().map(|cost| cost.anonymous_mb).collect::<Vec<_>>(),
            })
        });
        json!({
            "command": self.command,
            "date": self.machine.date,
            "commit": self.machine.commit,
            "processor": self.machine.processor,
            "cores": self.machine.cores,
            "note": "ratios may be compared between machines, seconds may not",
            "agreement": self.agreements.iter().map(|(name, text)| (name.to_string(), json!(text))).collect::<serde_json::Map<_, _>>(),
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

/// `a` over `b`, where `b` is more than the clock's resolution.
fn ratio(a: f64, b: f64) -> String {
    if b > 0.0 { format!("{:.2}×", a / b) } else { "–".into() }
}
