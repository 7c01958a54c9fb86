//! Which task runs, why, and what is told of it.

use std::fmt;

use crate::options::Client;

/// Which task ran, and why. A part of every reply of a policy that has tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The task whose actions these are.
    pub task: String,
    /// Why this one.
    pub reason: Reason,
    /// What the router compared when it was last asked in this episode; none if it was not.
    pub scores: Option<Scores>,
    /// Whether the router was asked on this very observation.
    pub asked: bool,
}

/// Why a task ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The server runs this task, or there is no other.
    Fixed,
    /// The request named it.
    Requested,
    /// The router chose it, on this observation or on an earlier one of the episode.
    Routed,
    /// The router was not sure enough, and this is the task for that case.
    Fallback,
    /// Asked again, the router was not sure enough: the task that ran before goes on.
    Kept,
}

impl Reason {
    /// The word for it in replies, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Requested => "requested",
            Self::Routed => "routed",
            Self::Fallback => "fallback",
            Self::Kept => "kept",
        }
    }
}

/// What a router compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Every candidate's score.
    pub candidates: Vec<(String, f64)>,
    /// The softmax probability of the best candidate less that of the second best, 0 … 1; 1 if there is only one.
    pub margin: f64,
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "margin {:.3};", self.margin)?;
        self.candidates.iter().try_for_each(|(task, score)| write!(f, " {task} {score:.3}"))
    }
}

/// A line of a decision log: the router was asked, or a chunk of actions has another task, or another reason for it, than
/// the chunk before it in the episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Who asked.
    pub client: Client,
    /// Number of this client's episode, from 1. A reset begins the next one, unless nothing was asked for in this one.
    pub episode: u64,
    /// Number of the chunk in its episode, from 1. Where the router abstained, the next request is for the same chunk.
    pub chunk: u64,
    /// The instruction.
    pub prompt: String,
    /// What came out.
    pub outcome: Outcome,
    /// Whether it is other than what came out last in this episode.
    pub changed: bool,
}

/// A task, or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A task ran.
    Ran(Routing),
    /// The router was not sure enough of any, and none is there for that case: the client got an error.
    Abstained(Scores),
}

impl Outcome {
    /// The task that ran.
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::Ran(routing) => Some(&routing.task),
            Self::Abstained(_) => None,
        }
    }

    /// What the router compared, if it ever did in this episode.
    pub fn scores(&self) -> Option<&Scores> {
        match self {
            Self::Ran(routing) => routing.scores.as_ref(),
            Self::Abstained(scores) => Some(scores),
        }
    }

    /// [`Reason::as_str`], or `abstained`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ran(routing) => routing.reason.as_str(),
            Self::Abstained(_) => "abstained",
        }
    }

    /// Whether the router was asked on this observation.
    pub(crate) fn asked(&self) -> bool {
        match self {
            Self::Ran(routing) => routing.asked,
            Self::Abstained(_) => true,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, episode, chunk, outcome, .. } = self;
        write!(f, "client {client}: episode {episode}, chunk {chunk}: ")?;
        match outcome.task() {
            Some(task) => write!(f, "task {task} ({}", outcome.as_str())?,
            None => write!(f, "no task ({}", outcome.as_str())?,
        }
        outcome.scores().map_or(Ok(()), |scores| write!(f, "; {scores}"))?;
        write!(f, ")")
    }
}
