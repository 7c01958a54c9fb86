//! Many keys on few lines: `model.layers.{0..23}.mlp.up_proj.weight`.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// Keys that differ only in numbers and have everything else in common. It stands for exactly its members: every
/// combination of the numbers shown is one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group<T> {
    parts: Vec<Part>,
    /// What the members have in common.
    pub(crate) common: T,
    /// How many they are.
    pub(crate) members: u64,
}

/// What stands between two dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Word(String),
    /// Ascending.
    Numbers(Vec<u64>),
}

impl Part {
    fn parse(text: &str) -> Self {
        match text.parse::<u64>() {
            // `007` and `+7` are words: they would not come back as they were.
            Ok(number) if number.to_string() == text => Self::Numbers(vec![number]),
            _ => Self::Word(text.to_owned()),
        }
    }
}

/// Groups keys with equal `common`, in the order of their first members.
pub(crate) fn group<'k, T: Clone + Eq + Hash>(keys: impl IntoIterator<Item = (&'k str, T)>) -> Vec<Group<T>> {
    let single = |(key, common): (&str, T)| {
        let parts = key.split('.').map(Part::parse).collect();
        Group { parts, common, members: 1 }
    };
    let mut groups: Vec<Group<T>> = keys.into_iter().map(single).collect();
    let depth = groups.iter().map(|group| group.parts.len()).max().unwrap_or(0);
    for position in 0..depth {
        groups = join_at(position, groups);
    }
    groups
}

/// Joins groups that differ in nothing but the numbers at `position`.
fn join_at<T: Clone + Eq + Hash>(position: usize, groups: Vec<Group<T>>) -> Vec<Group<T>> {
    let mut joined: Vec<Group<T>> = Vec::with_capacity(groups.len());
    let mut places: HashMap<(Vec<Part>, T), usize> = HashMap::new();
    for mut group in groups {
        let Some(Part::Numbers(numbers)) = group.parts.get_mut(position) else {
            joined.push(group);
            continue;
        };
        let numbers = std::mem::take(numbers);
        let place = *places.entry((group.parts.clone(), group.common.clone())).or_insert(joined.len());
        match joined.get_mut(place) {
            Some(first) => first.members += group.members,
            None => joined.push(group),
        }
        if let Some(Part::Numbers(all)) = joined[place].parts.get_mut(position) {
            all.extend(numbers);
        }
    }
    for group in &mut joined {
        if let Some(Part::Numbers(all)) = group.parts.get_mut(position) {
            all.sort_unstable();
        }
    }
    joined
}

impl<T> fmt::Display for Group<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts.iter().enumerate() {
            if position > 0 {
                f.write_str(".")?;
            }
            match part {
                Part::Word(word) => f.write_str(word)?,
                Part::Numbers(numbers) if numbers.len() == 1 => write!(f, "{}", numbers[0])?,
                Part::Numbers(numbers) => write!(f, "{{{}}}", ranges(numbers))?,
            }
        }
        Ok(())
    }
}

/// `0..3, 5` for 0, 1, 2, 3, 5.
fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let shown = runs.map(|run| match *run {
        [first, .., last] => format!("{first}..{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: Clone + Eq + Hash>(keys: &[(&str, T)]) -> Vec<(String, u64)> {
        let groups = group(keys.iter().map(|(key, common)| (*key, common.clone())));
        groups.iter().map(|group| (group.to_string(), group.members)).collect()
    }

    #[test]
    fn layers_become_one_line() {
        let keys = [("a.0.w", 1), ("a.1.w", 1), ("a.10.w", 1), ("a.2.w", 1), ("norm", 1), ("a.3.w", 2)];
        let expected = [("a.{0..2,10}.w".to_owned(), 4), ("norm".to_owned(), 1), ("a.3.w".to_owned(), 1)];
        assert_eq!(shown(&keys), expected);
    }

    #[test]
    fn a_group_holds_every_combination_it_shows() {
        // Blocks 0 and 1 have both experts, block 2 has one: it cannot join.
        let keys = ["b.0.e.0.w", "b.0.e.1.w", "b.1.e.0.w", "b.1.e.1.w", "b.2.e.0.w"].map(|key| (key, ()));
        assert_eq!(shown(&keys), [("b.{0..2}.e.0.w".to_owned(), 3), ("b.{0..1}.e.1.w".to_owned(), 2)]);
        assert_eq!(shown(&keys[..4]), [("b.{0..1}.e.{0..1}.w".to_owned(), 4)]);
    }

    #[test]
    fn odd_numbers_are_words() {
        assert_eq!(shown(&[("a.007", ()), ("a.7", ())]), [("a.007".to_owned(), 1), ("a.7".to_owned(), 1)]);
        assert_eq!(shown::<()>(&[]), []);
    }
}
