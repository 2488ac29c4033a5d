//! What the hypervisor executes on the paths behind the rows.

use partita_host::emulator::MachineKind;
use partita_latency_tests::Images;
use partita_latency_tests::budgets::Budgets;
use partita_latency_tests::profile::{PathKind, Profile, changes, measure};
use partita_latency_tests::{BenchFile, Figures};
use partita_rows::{Group, Row};

#[test]
#[ignore = "boots an emulator"]
fn no_path_is_longer_than_in_the_profile() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::build(dir.path()).unwrap();
    let kinds: Vec<PathKind> = PathKind::ALL.into_iter().filter(|kind| kind.group() != Group::Broadcast).collect();
    let now = measure(&kinds, &images, dir.path()).unwrap();
    let known = Profile::of_repository().unwrap();
    let words: Vec<String> = changes(&known, &now).iter().map(ToString::to_string).collect();
    for kind in kinds {
        let (before, after) = (known.total(kind.name()).unwrap(), now.total(kind.name()).unwrap());
        assert!(after <= before, "{} takes {after} instructions, not {before}:\n{}", kind.name(), words.join("\n"));
    }
    assert_what_grew_is_named(&now);
}

/// A row that is above its budget leads to its path, and that to the function that executes more than it did.
fn assert_what_grew_is_named(now: &Profile) {
    let figures = |row| if row == Row::ExitCpuid { Figures::of(&mut [99]) } else { None };
    let file = BenchFile::of_some(MachineKind::Qemu, figures, figures);
    let excesses = Budgets::parse("[max]\n\"exit.cpuid\" = 98").unwrap().check(&file);
    let [excess] = excesses.as_slice() else { panic!("{excesses:?}") };
    let [kind] = PathKind::of_row_named(excess.row()) else { panic!("{excess}") };
    let mut before = now.clone();
    let (function, count) =
        before.paths.get_mut(kind.name()).unwrap().iter_mut().max_by_key(|(_, count)| **count).unwrap();
    *count -= 3;
    let (function, count) = (function.clone(), *count);
    let text = changes(&before, now).iter().map(ToString::to_string).collect::<String>();
    let line = text.lines().find(|line| line.contains(&function)).unwrap_or_else(|| panic!("{function}: {text}"));
    let numbers: Vec<String> = line.split_whitespace().rev().take(3).map(str::to_owned).collect();
    assert_eq!(numbers, ["+3".to_owned(), (count + 3).to_string(), count.to_string()], "{text}");
    assert!(function.contains("entry"), "the registers are most of an exit: {function}");
}
