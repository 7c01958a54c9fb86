//! A folder in which a policy learns one skill after the other.
//!
//! ```text
//! STATE/retain.json   the ledger
//! STATE/checkpoint/   Θ̃_n, a plain checkpoint; before the first skill a link to the pretrained policy
//! STATE/previous/     Θ̃_{n−1}, if it is kept
//! ```
//!
//! The whole folder changes in one step: what comes next is written beside it and changes places with it when it is
//! complete. Killed at any instant, a chain is before the step or after it.

mod addition;
mod chain;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use skillweld_merge::Control;
use skillweld_plugin_host::Registry;
use skillweld_store::{OutputDir, StoreError};

use crate::contents::{first_difference, of_policy};
use crate::folder::{keep_apart, link_tree, lock};
use crate::pair::real;
use crate::started_from::Known;
use crate::step::check_cancelled;
use crate::{Contents, Interpolation, Ledger, Pair, Policy, RetainError, Skill, StartedFrom};
pub use addition::Addition;
use chain::replay;

const CHECKPOINT: &str = "checkpoint";
const PREVIOUS: &str = "previous";
/// Where the steps of a replay lie until the next one is made.
const CHAIN: &str = ".chain";
/// The longest name of a skill, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// Told before each step of a chain: the skill, its number from 1, how many there are, and its [`Step::work`](crate::Step::work).
pub type Watch<'w> = &'w dyn Fn(&str, usize, usize, u64);

/// A state, ready to be changed: nobody else can change it meanwhile.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    ledger: Ledger,
    /// `None` for one that is not on the disk yet.
    lock: Option<File>,
}

/// A skill to be added.
#[derive(Debug, Clone)]
pub struct NewSkill {
    /// Its name; `None`: that of its folder.
    pub name: Option<String>,
    /// The finetuned policy.
    pub finetuned: PathBuf,
    /// How it is joined.
    pub interpolation: Interpolation,
    /// Keep the checkpoint before it (hard links, no copies): it can then be undone without the finetuned policies.
    pub keep_previous: bool,
}

/// What [`State::undo`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Undo {
    /// The skill that is no longer there.
    pub skill: Skill,
    /// The checkpoint before it was kept, and did not have to be made again.
    pub from_previous: bool,
}

impl State {
    /// A new state over the pretrained policy in `base`, which appears on the disk with its first skill, or by
    /// [`save`](Self::save).
    ///
    /// # Errors
    /// [`RetainError::Unfit`] for a `dir` that holds something, or lies within `base`, and for a `base` that is no folder.
    pub fn begin(dir: &Path, base: &Path) -> Result<Self, RetainError> {
        let base = real(base)?;
        let unfit = |path: &Path, problem: &str| {
            Err(RetainError::Unfit { path: path.to_owned(), problem: problem.to_owned() })
        };
        if !base.is_dir() {
            return unfit(&base, "is no folder; the base of a state is a policy with all its files");
        }
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return match Ledger::read(dir) {
                Ok(_) => unfit(dir, "is a state already; add to it without `--base`, or name another folder"),
                Err(_) => unfit(dir, "holds something already; a state needs a folder of its own"),
            };
        }
        let state = Self {
            dir: dir.to_owned(),
            ledger: Ledger::new(Policy { path: base, blake3: Contents::new() }),
            lock: None,
        };
        state.keep_apart(&state.ledger.base.path)?;
        Ok(state)
    }

    /// Opens a state in order to change it.
    ///
    /// # Errors
    /// [`RetainError::NotAState`], [`RetainError::Version`], [`RetainError::Busy`], [`RetainError::Unfit`] where foreign
    /// files lie in it, which would be lost.
    pub fn open(dir: &Path) -> Result<Self, RetainError> {
        Ledger::read(dir)?;
        let lock = lock(dir)?;
        // Nobody changes it from here on.
        let ledger = Ledger::read(dir)?;
        for entry in fs::read_dir(dir).map_err(StoreError::io("read", dir))? {
            let name = entry.map_err(StoreError::io("read", dir))?.file_name();
            if ![Ledger::FILE, CHECKPOINT, PREVIOUS].iter().any(|own| name == *own) {
                let problem =
                    "is no file of a state, and would be lost when the state changes; move it elsewhere"
                        .to_owned();
                return Err(RetainError::Unfit { path: dir.join(name), problem });
            }
        }
        Ok(Self { dir: dir.to_owned(), ledger, lock: Some(lock) })
    }

    /// The chain so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Hashes the pretrained policy and writes the state, without a skill yet.
    ///
    /// # Errors
    /// Whatever cannot be read or written; a base that is an adapter without weights.
    pub fn save(mut self) -> Result<Ledger, RetainError> {
        let base = &mut self.ledger.base;
        base.blake3 = of_policy(&base.path)?;
        if !base.blake3.contains_key("weights") {
            let problem = "holds an adapter and no weights; the base of a state is a whole policy".to_owned();
            return Err(RetainError::Unfit { path: base.path.clone(), problem });
        }
        let out = self.stage()?;
        self.link_base(out.path())?;
        self.ledger.write(out.path())?;
        out.commit()?;
        Ok(self.ledger)
    }

    /// Prepares to add a skill.
    ///
    /// # Errors
    /// As [`Pair::open`]; a name that is taken or no name; a finetuned policy inside the state.
    pub fn prepare(self, skill: NewSkill) -> Result<Addition, RetainError> {
        let finetuned = real(&skill.finetuned)?;
        self.keep_apart(&finetuned)?;
        let name = self.name_of(skill.name, &finetuned)?;
        let start = self.current();
        let pair = Pair::open(&start, &finetuned, &skill.interpolation)?;
        let count = self.ledger.skills.len();
        let expected = self.ledger.contents_after(count);
        let started_from = StartedFrom::find(&finetuned, (&start, expected), &self.known())?;
        Ok(Addition { state: self, name, keep_previous: skill.keep_previous, started_from, pair })
    }

    /// Makes the whole chain again, from the pretrained and the finetuned policies, into the new checkpoint `out`, and holds
    /// every input and every result against the ledger.
    ///
    /// # Errors
    /// [`RetainError::InputChanged`] and [`RetainError::ResultChanged`] with the first that is not what it was;
    /// [`RetainError::Step`].
    pub fn replay(
        ledger: &Ledger,
        out: &Path,
        force: bool,
        registry: &Registry,
        (control, watch): (&Control<'_>, Watch<'_>),
    ) -> Result<(), RetainError> {
        if ledger.skills.is_empty() {
            let problem = "is the policy of a state without skills: there is nothing to replay".to_owned();
            return Err(RetainError::Unfit { path: ledger.base.path.clone(), problem });
        }
        let inputs = ledger.skills.iter().map(|skill| &skill.finetuned).chain([&ledger.base]);
        inputs.into_iter().try_for_each(|policy| keep_apart(out, &policy.path))?;
        if force && fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
            let ours = skillweld_merged::layout::PROVENANCE_FILES.iter().any(|name| out.join(name).is_file());
            if !ours {
                let problem =
                    "is no output of Skillweld, so --force does not replace it; name another output"
                        .to_owned();
                return Err(RetainError::Unfit { path: out.to_owned(), problem });
            }
        }
        let dir = OutputDir::create(out, force)?;
        replay(ledger, ledger.skills.len(), dir.path(), &dir.path().join(CHAIN), registry, (control, watch))?;
        check_cancelled(control)?;
        dir.commit()?;
        Ok(())
    }

    /// Takes the last skill back: from the kept checkpoint before it, or by a replay of those before it.
    ///
    /// # Errors
    /// A state without skills; as [`State::replay`].
    pub fn undo(
        mut self,
        registry: &Registry,
        (control, watch): (&Control<'_>, Watch<'_>),
    ) -> Result<Undo, RetainError> {
        let Some(skill) = self.ledger.skills.pop() else {
            let problem = "has no skill that could be undone".to_owned();
            return Err(RetainError::Unfit { path: self.dir, problem });
        };
        let count = self.ledger.skills.len();
        let out = self.stage()?;
        let checkpoint = out.path().join(CHECKPOINT);
        let previous = self.dir.join(PREVIOUS);
        // Damaged, it is of no use: the chain is then replayed.
        let is_whole = || of_policy(&previous).is_ok_and(|kept| kept == *self.ledger.contents_after(count));
        let from_previous = count > 0 && previous.is_dir() && is_whole();
        if count == 0 {
            self.link_base(out.path())?;
        } else if from_previous {
            link_tree(&previous, &checkpoint)?;
        } else {
            let chain = out.path().join(CHAIN);
            replay(&self.ledger, count, &checkpoint, &chain, registry, (control, watch))?;
        }
        self.ledger.write(out.path())?;
        check_cancelled(control)?;
        out.commit()?;
        Ok(Undo { skill, from_previous })
    }

    /// Compares the pretrained policy, every finetuned one and the current checkpoint with the ledger; gives what is not
    /// as it was, a sentence each.
    pub fn verify(dir: &Path, ledger: &Ledger) -> Vec<String> {
        let base = ("the base".to_owned(), &ledger.base.path, &ledger.base.blake3);
        let skills = ledger
            .skills
            .iter()
            .map(|skill| (format!("skill {}", skill.name), &skill.finetuned.path, &skill.finetuned.blake3));
        let checkpoint = dir.join(CHECKPOINT);
        let current =
            ("the current checkpoint".to_owned(), &checkpoint, ledger.contents_after(ledger.skills.len()));
        let problem = |(whose, path, expected): (String, &PathBuf, &Contents)| {
            let problem = match of_policy(path) {
                Ok(found) => first_difference(expected, &found)
                    .map(|change| format!("{} of {whose} has changed", change.part)),
                Err(error) => Some(format!("{whose}: {error}")),
            };
            problem.map(|problem| format!("{problem} ({})", path.display()))
        };
        std::iter::once(base).chain(skills).chain([current]).filter_map(problem).collect()
    }

    /// Θ̃_n.
    fn current(&self) -> PathBuf {
        match self.ledger.skills.is_empty() {
            true => self.ledger.base.path.clone(),
            false => self.dir.join(CHECKPOINT),
        }
    }

    /// Every policy of the chain but the current one.
    fn known(&self) -> Vec<Known> {
        let known = |what: String, policy: &Policy| Known { what, path: policy.path.clone() };
        let skills = &self.ledger.skills;
        // Before the first skill it is the current one.
        let base = (!skills.is_empty()).then(|| known("the pretrained policy".to_owned(), &self.ledger.base));
        let skills =
            skills.iter().map(|skill| known(format!("the policy of skill {}", skill.name), &skill.finetuned));
        base.into_iter().chain(skills).collect()
    }

    /// Where the state after the next step is written.
    fn stage(&self) -> Result<OutputDir, RetainError> {
        Ok(OutputDir::create(&self.dir, self.lock.is_some())?)
    }

    fn link_base(&self, out: &Path) -> Result<(), RetainError> {
        let link = out.join(CHECKPOINT);
        std::os::unix::fs::symlink(&self.ledger.base.path, &link).map_err(StoreError::io("link", &link))?;
        Ok(())
    }

    fn keep_apart(&self, policy: &Path) -> Result<(), RetainError> {
        keep_apart(&self.dir, policy)
    }

    fn name_of(&self, given: Option<String>, finetuned: &Path) -> Result<String, RetainError> {
        let taken = |name: &str| self.ledger.skills.iter().any(|skill| skill.name == name);
        let unfit = |name: &str, problem: &str| RetainError::Unfit {
            path: PathBuf::from(name),
            problem: format!("{problem}; choose another `--name`"),
        };
        if let Some(name) = given {
            let is_plain =
                !name.trim().is_empty() && name.trim() == name && !name.chars().any(char::is_control);
            if !is_plain || name.len() > MAX_NAME_BYTES {
                return Err(unfit(&name, "is no name for a skill"));
            }
            return if taken(&name) {
                Err(unfit(&name, "is a skill of this chain already"))
            } else {
                Ok(name)
            };
        }
        let folder = finetuned.file_name().map_or_else(|| "skill".into(), |name| name.to_string_lossy());
        let more = (2..).map(|n| format!("{folder}-{n}"));
        let free = std::iter::once(folder.to_string()).chain(more).find(|name| !taken(name));
        Ok(free.unwrap_or_default())
    }
}
