use core::fmt;

use skillweld_plugin_host::Kind;

/// What [`check`](crate::check) found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Merge or mask.
    pub kind: Kind,
    /// The method's id.
    pub method: String,
    /// One result a law, in a fixed order.
    pub laws: Vec<LawResult>,
}

/// What came of one law.
#[derive(Debug, Clone)]
pub struct LawResult {
    /// Short name, such as `block_splitting`.
    pub name: &'static str,
    /// The law in one sentence.
    pub statement: &'static str,
    /// Kept, not applicable or broken.
    pub outcome: Outcome,
}

/// Whether a law holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It held in so many random cases.
    Passed {
        /// Cases that the method did not decline.
        cases: u32,
    },
    /// It does not apply to this method.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It is broken.
    Failed {
        /// What happened and the smallest case found in which it does: shape, parameters, values.
        message: String,
    },
}

impl Report {
    /// True when no law is broken.
    pub fn passed(&self) -> bool {
        self.broken().next().is_none()
    }

    /// The laws that are broken.
    pub fn broken(&self) -> impl Iterator<Item = &LawResult> {
        self.laws.iter().filter(|law| matches!(law.outcome, Outcome::Failed { .. }))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} method {}", self.kind, self.method)?;
        self.laws.iter().try_for_each(|law| writeln!(f, "  {law}"))
    }
}

impl fmt::Display for LawResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed { cases } => write!(f, "kept    {} ({cases} cases)", self.name),
            Outcome::Skipped { reason } => write!(f, "skipped {}: {reason}", self.name),
            Outcome::Failed { message } => {
                write!(f, "BROKEN  {}: {}\n{}", self.name, self.statement, indent(message))
            }
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("            {line}")).collect::<Vec<_>>().join("\n")
}
