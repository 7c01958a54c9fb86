//! Trains small experts: data by `skillweld sim`, policies by `examples/train`. A stage that has ended leaves a receipt of its command
//! and of what it was given; one that was stopped goes on. That the programs are others by now neither knows.

mod schedule;
mod stages;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Stdio;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::process::{announce, command, line, target_dir};
use crate::python::Environment;
pub(crate) use stages::{CHAIN_ALPHA, GENERALIST, SKILLS, Stage};
use stages::{STAGES, Tool};

const TRAIN: Environment = Environment {
    name: "train-venv",
    what: "PyTorch, peft and the training example, through pip",
    described_by: &["examples/train/pyproject.toml"],
    of_the_system: false,
    installs: &[&["--editable", "examples/train"]],
};

/// Below `target/train`: a file a stage that has ended, and one a stage that has begun.
const RECEIPTS: &str = "done";
const BEGUN: &str = "begun";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stages to reach; those that they need come first [default: all].
    stages: Vec<String>,
    /// Stages side by side, which share the cores. One takes up to 13 GB of memory.
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZeroUsize,
    /// Only say which stages there are and what has been done.
    #[arg(long)]
    list: bool,
}

/// Stages that make a policy to be shipped.
pub(crate) fn policies() -> impl Iterator<Item = &'static Stage> {
    STAGES.iter().filter(|stage| stage.what.is_some())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = target_dir().join("train");
    if args.list {
        for stage in STAGES.iter() {
            let state = if stage.is_done(&dir) { "done" } else { "" };
            println!("{:22} {state:5} {}", stage.name, stage.words);
        }
        return Ok(());
    }
    let asked: Vec<&Stage> = match args.stages.is_empty() {
        true => STAGES.iter().collect(),
        false => args.stages.iter().map(|name| named(name)).collect::<Result<_>>()?,
    };
    let skillweld = build::release()?;
    TRAIN.install()?;
    let mut stages = Vec::new();
    asked.into_iter().try_for_each(|stage| add(stage, &|stage| stage.is_done(&dir), &mut stages))?;
    for receipts in [RECEIPTS, BEGUN].map(|name| dir.join(name)) {
        fs::create_dir_all(&receipts).with_context(|| format!("cannot make {}", receipts.display()))?;
    }
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = args.jobs.get().min(cores);
    schedule::run(stages, jobs, |stage| work(stage, &dir, &skillweld, cores / jobs))?;
    announce("done");
    println!("everything asked for is in {}", dir.display());
    Ok(())
}

pub(crate) fn named(name: &str) -> Result<&'static Stage> {
    let known = || STAGES.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ");
    STAGES
        .iter()
        .find(|stage| stage.name == name)
        .with_context(|| format!("there is no stage {name}; there are {}", known()))
}

/// A stage after all that it needs, each once.
pub(crate) fn before(stage: &'static Stage) -> Result<Vec<&'static Stage>> {
    let mut all = Vec::new();
    add(stage, &|_| false, &mut all)?;
    Ok(all)
}

/// Adds a stage after those that it needs, each once, but for what may be left out and what only that needs.
fn add(
    stage: &'static Stage,
    leave_out: &dyn Fn(&Stage) -> bool,
    stages: &mut Vec<&'static Stage>,
) -> Result<()> {
    if leave_out(stage) || stages.iter().any(|known| known.name == stage.name) {
        return Ok(());
    }
    stage.needs().try_for_each(|need| add(named(need)?, leave_out, stages))?;
    stages.push(stage);
    Ok(())
}

/// Does a stage. What it says is shown with its name before it, and kept in a file beside its folder.
fn work(stage: &Stage, dir: &Path, skillweld: &Path, threads: usize) -> Result<()> {
    stage.begin(dir)?;
    let threads = threads.to_string();
    let mut program = match stage.tool {
        Tool::Skillweld => command(skillweld),
        Tool::Train => {
            let mut python = command(TRAIN.python());
            python.env("OMP_NUM_THREADS", &threads).args(["-m", "skillweld_train", "--threads", &threads]);
            python
        }
    };
    for word in stage.words.split(' ') {
        match word.strip_prefix('@') {
            Some(folder) => program.arg(dir.join(folder)),
            None => program.arg(word),
        };
    }
    let path = dir.join(format!("{}.log", stage.name));
    let at = || format!("cannot write {}", path.display());
    let mut log = File::create(&path).with_context(at)?;
    let (name, line) = (&stage.name, line(&program));
    println!("{name:18} $ {line}");
    program.stdout(Stdio::piped()).stderr(log.try_clone().with_context(at)?);
    let mut child = program.spawn().with_context(|| format!("cannot start `{line}`"))?;
    for said in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let said = said.with_context(|| format!("`{line}` says something that is no text"))?;
        println!("{name:18} {said}");
        writeln!(log, "{said}").with_context(at)?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status}); {} says why", path.display());
    let receipt = dir.join(RECEIPTS).join(name);
    fs::write(&receipt, stage.receipt(dir)).with_context(|| format!("cannot write {}", receipt.display()))
}

impl Stage {
    /// What it does, and what was done before it: the command's words, and hashes of the receipts of the stages that it needs.
    fn receipt(&self, dir: &Path) -> String {
        let given = self.needs().map(|need| {
            let receipt = fs::read(dir.join(RECEIPTS).join(need)).unwrap_or_default();
            format!("\n{need} {}", &blake3::hash(&receipt).to_hex()[..16])
        });
        std::iter::once(self.words.clone()).chain(given).collect()
    }

    /// Clears its folder of what was begun with another command, or from something else.
    fn begin(&self, dir: &Path) -> Result<()> {
        let (folder, begun, receipt) =
            (dir.join(&self.name), dir.join(BEGUN).join(&self.name), self.receipt(dir));
        if folder.exists() && fs::read_to_string(&begun).map_or(true, |there| there != receipt) {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
        fs::write(&begun, receipt).with_context(|| format!("cannot write {}", begun.display()))
    }

    pub(crate) fn is_done(&self, dir: &Path) -> bool {
        let receipt = fs::read_to_string(dir.join(RECEIPTS).join(&self.name));
        receipt.is_ok_and(|receipt| receipt == self.receipt(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_done_until_it_or_what_it_needs_is_another() {
        let dir = std::env::temp_dir().join(format!("stages-{}", std::process::id()));
        [RECEIPTS, BEGUN].iter().for_each(|name| fs::create_dir_all(dir.join(name)).unwrap());
        let stage = |name: &str, words: &str| Stage {
            name: name.into(),
            what: None,
            trials: String::new(),
            tool: Tool::Skillweld,
            words: words.into(),
        };
        let (first, second) = (stage("data", "make @data"), stage("policy", "learn @policy --from @data"));
        let done = |stage: &Stage| {
            stage.begin(&dir).unwrap();
            fs::create_dir_all(dir.join(&stage.name)).unwrap();
            fs::write(dir.join(RECEIPTS).join(&stage.name), stage.receipt(&dir)).unwrap();
        };
        done(&first);
        assert!(first.is_done(&dir) && !second.is_done(&dir));
        done(&second);
        assert!(second.is_done(&dir));
        assert!(!stage("policy", "learn @policy --from @data --more").is_done(&dir));
        // What was begun is gone on with; what was begun otherwise is not.
        fs::write(dir.join("policy/half"), "").unwrap();
        second.begin(&dir).unwrap();
        assert!(dir.join("policy/half").exists());
        done(&stage("data", "make @data --more"));
        assert!(!second.is_done(&dir));
        second.begin(&dir).unwrap();
        assert!(!dir.join("policy").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
