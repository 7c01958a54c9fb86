//! What an evaluation says on its standard output.

use std::collections::VecDeque;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longer lines are no scores.
const MAX_LINE_BYTES: usize = 1 << 16;
/// What is kept of an output for a message.
const TAIL_BYTES: usize = 2000;

/// How well a checkpoint did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The number that decides.
    pub score: f64,
    /// Whatever else was measured.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub metrics: IndexMap<String, f64>,
}

impl Score {
    /// Reads a JSON number, or an object with a number `score`, whose other numbers are metrics.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let Value::Object(map) = &value else {
            return Some(Self { score: value.as_f64()?, metrics: IndexMap::new() });
        };
        let score = map.get("score")?.as_f64()?;
        let others = map.iter().filter(|(name, _)| *name != "score");
        let metrics = others.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
        Some(Self { score, metrics })
    }
}

/// Standard output as it comes: the last line that is a score.
#[derive(Debug, Default)]
pub(crate) struct LastScore {
    line: Vec<u8>,
    found: Option<Score>,
}

impl LastScore {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() <= MAX_LINE_BYTES {
                self.line.extend_from_slice(&piece[..piece.len().min(MAX_LINE_BYTES + 1)]);
            }
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if self.line.len() <= MAX_LINE_BYTES
            && let Some(score) = Score::of_line(&self.line)
        {
            self.found = Some(score);
        }
        self.line.clear();
    }

    /// The score, once the output has ended.
    pub(crate) fn finish(&mut self) -> Option<Score> {
        self.end_line();
        self.found.take()
    }

    /// The score in a whole text.
    pub(crate) fn of_text(text: &str) -> Option<Score> {
        let mut last = Self::default();
        last.push(text.as_bytes());
        last.finish()
    }
}

/// The end of an output.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let surplus = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
    }

    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// The end of a whole text.
    pub(crate) fn of_text(text: &str) -> String {
        let mut tail = Self::default();
        tail.push(text.as_bytes());
        tail.text()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn score(text: &str) -> Option<(f64, Vec<(String, f64)>)> {
        LastScore::of_text(text).map(|found| (found.score, found.metrics.into_iter().collect()))
    }

    #[test]
    fn the_last_line_that_is_a_score_counts() {
        assert_eq!(score("loading\n0.5\n0.75\ndone\n"), Some((0.75, vec![])));
        assert_eq!(score("1"), Some((1.0, vec![])));
        let metrics = vec![("steps".to_owned(), 12.0), ("time_s".to_owned(), 0.5)];
        let line = r#"{"steps": 12, "score": -1e-3, "task": "pick", "time_s": 0.5}"#;
        assert_eq!(score(line), Some((-0.001, metrics)));
    }

    #[test]
    fn what_is_no_score_is_none() {
        for text in
            ["", "\n\n", "0.5 %", "nan", "\"0.5\"", "[1]", "{\"score\": null}", "{\"accuracy\": 1}", "true"]
        {
            assert_eq!(score(text), None, "{text}");
        }
        assert_eq!(score(&format!("{}1\n", " ".repeat(MAX_LINE_BYTES))), None);
    }

    #[test]
    fn tails_are_ends() {
        assert_eq!(Tail::of_text("a\n"), "a");
        assert!(Tail::of_text(&format!("{}end", "x".repeat(9000))).len() <= TAIL_BYTES);
        assert!(Tail::of_text(&format!("{}end", "x".repeat(9000))).ends_with("xend"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_output_is_cut(text in "([0-9.]{0,4}|\\{\"score\": 3\\}|\n){0,12}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let mut pieces = LastScore::default();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let expected = text.lines().filter_map(|line| Score::of_line(line.as_bytes())).next_back();
            prop_assert_eq!(pieces.finish(), expected);
        }
    }
}
