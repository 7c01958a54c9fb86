//! The known word that a misspelt one was probably meant to be: one measure for fields, methods, tasks and tensors.

/// Names longer than this, in bytes, are answered with nothing: the work for them must stay small.
const MAX_BYTES: usize = 256;

/// The word of `known` nearest to `name`, if it is near enough to be what was meant: at most one letter in five typed
/// wrong, left out, added or swapped with its neighbour, and one more. Capitals count for nothing, nor do `-` for `_`.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > MAX_BYTES {
        return None;
    }
    let name = folded(name);
    let distance = |word: &'k str| {
        let other = folded(word);
        let allowed = 1 + other.chars().count().min(name.chars().count()) / 5;
        // A word of which no letter is right is another word, however short.
        let shares = other.chars().any(|letter| name.contains(letter));
        let distance = strsim::damerau_levenshtein(&name, &other);
        (distance <= allowed && shares).then_some((distance, word))
    };
    known.into_iter().filter(|word| word.len() <= MAX_BYTES).filter_map(distance).min().map(|(_, word)| word)
}

fn folded(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        let known = ["density", "weight", "task_arithmetic", "ties", "place", "t2"];
        for (typed, meant) in [
            ("densty", "density"),
            ("Weihgt", "weight"),
            ("task-arithmetc", "task_arithmetic"),
            ("plaec", "place"),
            ("t3", "t2"),
        ] {
            assert_eq!(nearest(typed, known), Some(meant), "{typed}");
        }
    }

    #[test]
    fn what_is_like_nothing_gets_no_suggestion() {
        for typed in ["zzzzzz", "zz", "", "temperature", &"density".repeat(1000)] {
            assert_eq!(nearest(typed, ["t2", "density", "weight"]), None, "{typed}");
        }
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn the_nearest_of_several_counts() {
        assert_eq!(nearest("model.q.weight", ["model.k.bias", "model.k.weight"]), Some("model.k.weight"));
    }
}
