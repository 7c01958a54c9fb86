//! Patterns over keys.

/// True when `pattern` is the whole of `text`: `*` stands for anything, dots included, `?` for one character.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The last star, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition.
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), None) => reference(rest, text),
            (Some((b'*', rest)), Some((_, shorter))) => reference(rest, text) || reference(pattern, shorter),
            (Some((p, rest)), Some((t, shorter))) => (*p == b'?' || p == t) && reference(rest, shorter),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_mean_what_their_definition_says(pattern in "[ab?*]{0,7}", text in "[ab.]{0,8}") {
            prop_assert_eq!(matches(&pattern, &text), reference(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_pattern_is_the_whole_key() {
        assert!(matches("*.mlp.*", "model.layers.3.mlp.up_proj.weight"));
        assert!(!matches("mlp", "model.layers.3.mlp.up_proj.weight"));
    }
}
