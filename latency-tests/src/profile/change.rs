//! What grew between two profiles.

use super::{Functions, Profile, total};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

/// Columns of a function's name.
const NAME: usize = 66;

/// A path whose instructions are others than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// All instructions before and after.
    pub total: (u64, u64),
    /// The functions that differ, those that grew most first: name, instructions before and after.
    pub functions: Vec<(String, u64, u64)>,
}

/// The paths of `after` that differ from those of `before`, those that grew most first.
pub fn changes(before: &Profile, after: &Profile) -> Vec<Change> {
    let none = Functions::new();
    let of_path = |(path, after): (&String, &Functions)| {
        let before = before.paths.get(path).unwrap_or(&none);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let count = |functions: &Functions, name| functions.get(name).copied().unwrap_or(0);
        let mut functions: Vec<(String, u64, u64)> = names
            .into_iter()
            .map(|name| (name.clone(), count(before, name), count(after, name)))
            .filter(|(_, before, after)| before != after)
            .collect();
        functions.sort_by_key(|(_, before, after)| Reverse(growth(*before, *after)));
        (!functions.is_empty()).then(|| Change { path: path.clone(), total: (total(before), total(after)), functions })
    };
    let mut changes: Vec<Change> = after.paths.iter().filter_map(of_path).collect();
    changes.sort_by_key(|change| Reverse(growth(change.total.0, change.total.1)));
    changes
}

fn growth(before: u64, after: u64) -> i128 {
    i128::from(after) - i128::from(before)
}

impl fmt::Display for Change {
    /// Lines of at most 100 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, total: (before, after), functions } = self;
        writeln!(f, "{path}: {before} -> {after} instructions ({:+})", growth(*before, *after))?;
        write!(f, "  {:<NAME$} {:>8} {:>8} {:>8}", "function", "before", "after", "diff")?;
        for (name, before, after) in functions {
            let diff = growth(*before, *after);
            write!(f, "\n  {:<NAME$} {before:>8} {after:>8} {diff:>+8}", short(name))?;
        }
        Ok(())
    }
}

/// The end of a name that is too long: what it is called says more than where it is.
fn short(name: &str) -> String {
    let cut = name.chars().count().saturating_sub(NAME);
    if cut == 0 { name.to_owned() } else { format!("..{}", name.chars().skip(cut + 2).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn profile(paths: &[(&str, &[(&str, u64)])]) -> Profile {
        let functions = |functions: &[(&str, u64)]| functions.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
        let paths: BTreeMap<String, Functions> =
            paths.iter().map(|&(name, f)| (name.to_owned(), functions(f))).collect();
        Profile { paths }
    }

    #[test]
    fn what_grew_is_named_with_before_and_after() {
        let before =
            profile(&[("exit.cpuid", &[("a::slow", 5), ("a::same", 9), ("a::gone", 2)]), ("exit.io", &[("b", 1)])]);
        let after = profile(&[
            ("exit.cpuid", &[("a::slow", 8), ("a::same", 9), ("a::new", 4)]),
            ("exit.io", &[("b", 1)]),
            ("exit.kick", &[("c", 50)]),
        ]);
        let changes = changes(&before, &after);
        assert_eq!(
            changes.iter().map(|change| (change.path.as_str(), change.total)).collect::<Vec<_>>(),
            [("exit.kick", (0, 50)), ("exit.cpuid", (16, 21)),]
        );
        let text = changes[1].to_string();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0].join(" "), "exit.cpuid: 16 -> 21 instructions (+5)");
        assert_eq!(words[1], ["function", "before", "after", "diff"]);
        assert_eq!(words[2..], [["a::new", "0", "4", "+4"], ["a::slow", "5", "8", "+3"], ["a::gone", "2", "0", "-2"]]);
    }

    #[test]
    fn long_names_keep_their_ends() {
        let name = format!("{}::enter", "very_long::".repeat(20));
        let change = Change { path: "exit.io".into(), total: (1, 2), functions: vec![(name, 1, u64::from(u32::MAX))] };
        let text = change.to_string();
        assert!(text.contains("..") && text.contains("::enter "), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
