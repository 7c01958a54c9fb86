//! What a plugin under check prints by itself, folded: a method is called thousands of times, and one that panics says
//! so every time.

use std::collections::HashSet;

use crate::console::Console;

/// Lines of different shapes that are shown; a plugin that has more to say is not listened to any longer.
const MOST_SHAPES: usize = 64;

/// Shows each line once, and counts the others. Lines that differ in numbers only are the same line.
pub(super) struct Chatter {
    shapes: HashSet<String>,
    left_out: u64,
    panics: u64,
    /// The panic reported last was shown before, and so were its message and backtrace.
    repeats: bool,
}

impl Chatter {
    pub(super) fn new() -> Self {
        Self { shapes: HashSet::new(), left_out: 0, panics: 0, repeats: false }
    }

    /// Prints the line to standard error, if there was none like it.
    pub(super) fn line(&mut self, line: &str) {
        if self.is_new(line) {
            eprintln!("{line}");
        }
    }

    /// Says how much was not shown.
    pub(super) fn finish(self, console: Console) {
        let times = |count| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        if self.panics > 0 {
            console.note(&format!("the plugin panicked {}; the first is shown above", times(self.panics)));
        }
        if self.left_out > 0 {
            console.note(&format!("{} more lines that it printed are left out", self.left_out));
        }
    }

    fn is_new(&mut self, line: &str) -> bool {
        if line.trim().is_empty() {
            return false;
        }
        // As Rust's default hook words it: `thread '…' panicked at src/lib.rs:1:2:`.
        let panics = line.starts_with("thread '") && line.contains("panicked at ");
        let shape: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let new = (panics || !self.repeats) && self.shapes.len() < MOST_SHAPES && self.shapes.insert(shape);
        if panics {
            self.panics += 1;
            self.repeats = !new;
        }
        self.left_out += u64::from(!new);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_numbers_are_shown_once() {
        let mut chatter = Chatter::new();
        let lines = [
            "",
            "thread '<unnamed>' (7) panicked at src/lib.rs:20:9:",
            "the len is 2 but the index is 3",
            "thread '<unnamed>' (8) panicked at src/lib.rs:20:9:",
            "   7: another way to the same place",
            "thread '<unnamed>' (9) panicked at src/other.rs:20:9:",
            "something else",
        ];
        assert_eq!(lines.map(|line| chatter.is_new(line)), [false, true, true, false, false, true, true]);
        assert_eq!((chatter.panics, chatter.left_out), (3, 2));
        // However many different things it says.
        let shown = (0..1000).filter(|i| chatter.is_new(&"x".repeat(*i))).count();
        assert_eq!(shown, MOST_SHAPES - 4);
    }
}
