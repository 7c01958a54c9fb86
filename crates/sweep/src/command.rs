//! The user's evaluation, a shell command with placeholders.

use skillweld_spelling::nearest;

use crate::SweepError;

/// What stands for the checkpoint's folder.
const CHECKPOINT: &str = "checkpoint";
/// What stands for the number of the repeat.
const SEED: &str = "seed";
/// What stands for the point's values.
const POINT: &str = "point";
const PLACEHOLDERS: [&str; 3] = [CHECKPOINT, SEED, POINT];

/// A shell command in which `{checkpoint}`, `{seed}` and `{point}` are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalCommand(String);

impl EvalCommand {
    /// Takes a command; other braces in it are the shell's.
    ///
    /// # Errors
    /// [`SweepError::Command`] for nothing at all, and for a placeholder that is misspelt.
    pub fn parse(text: &str) -> Result<Self, SweepError> {
        let fail = |problem: String| Err(SweepError::Command { problem });
        if text.trim().is_empty() {
            return fail("is empty; write a command such as 'python evaluate.py {checkpoint}'".to_owned());
        }
        for (at, _) in text.match_indices('{') {
            let Some((word, _)) = text[at + 1..].split_once('}') else { continue };
            let is_word =
                !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            if !is_word || text[..at].ends_with('$') || PLACEHOLDERS.contains(&word) {
                continue;
            }
            if let Some(right) = nearest(word, PLACEHOLDERS) {
                return fail(format!("has no `{{{word}}}`; did you mean `{{{right}}}`?"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The command for one evaluation; `checkpoint` stands there as it is, and has to be one word of the shell.
    pub(crate) fn filled(&self, checkpoint: &str, seed: u64, point: &str) -> String {
        let values = [(CHECKPOINT, checkpoint.to_owned()), (SEED, seed.to_string()), (POINT, quoted(point))];
        // In one pass: a value that looks like a placeholder is none.
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let found = values
                .iter()
                .find_map(|(name, value)| Some((value, from[1..].strip_prefix(name)?.strip_prefix('}')?)));
            match found.filter(|_| !before.ends_with('$')) {
                Some((value, after)) => {
                    filled.push_str(value);
                    rest = after;
                }
                None => {
                    filled.push('{');
                    rest = &from[1..];
                }
            }
        }
        filled + rest
    }
}

/// `text` as one word of a shell: in quotes only where it needs them.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./=,:@%+".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn filled(text: &str) -> String {
        EvalCommand::parse(text).unwrap().filled("out/c", 7, "a=1")
    }

    #[test]
    fn placeholders_are_filled_and_the_shells_braces_left() {
        assert_eq!(filled("eval {checkpoint} --seed {seed} > {point}.log"), "eval out/c --seed 7 > a=1.log");
        assert_eq!(
            filled("echo ${seed} {a,b} {} '{\"x\": 1}' {1..3}"),
            "echo ${seed} {a,b} {} '{\"x\": 1}' {1..3}"
        );
        assert_eq!(filled("echo {{seed}}"), "echo {7}");
        let inner = EvalCommand::parse("echo {point}").unwrap().filled("c", 0, "{seed}");
        assert_eq!(inner, "echo '{seed}'");
    }

    #[test]
    fn a_misspelt_placeholder_is_refused() {
        let error = EvalCommand::parse("eval {chekpoint}").unwrap_err().to_string();
        assert_eq!(error, "--eval: has no `{chekpoint}`; did you mean `{checkpoint}`?");
        assert!(EvalCommand::parse("  ").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_shell_reads_quoted_words_as_they_were(text in "[ -~äß\n]{0,20}") {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(&text))).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
