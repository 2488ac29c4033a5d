//! What each frequent exit costs on hardware beside its instructions: counted from the instructions that QEMU executed.

use crate::SuiteError;
use crate::profile::{PathKind, ways_of_boot};
use crate::suite::Images;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use partita_host::emulator::MachineKind;
use partita_host::itrace::{Cost, Program, cost, listing};
use partita_host::run_dir::RunDir;
use partita_rows::Group;
use std::path::Path;

/// The boots, which have all frequent kinds of exits between them.
const GROUPS: [Group; 3] = [Group::Exit, Group::Ipi, Group::Kick];

/// What the names of paths that are exits begin with.
const EXIT: &str = "exit.";

/// An exit, as it is most often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCost {
    /// Its kind.
    pub kind: PathKind,
    /// What it costs.
    pub cost: Cost,
    /// Its instructions.
    pub instructions: Vec<Listed>,
}

/// An instruction of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In words.
    pub text: String,
    /// The function that it is of.
    pub function: String,
}

/// Boots, and counts. Logs and traces go to `out_dir`; the logs of instructions do not stay.
///
/// # Errors
/// A boot could not take place, or failed.
pub fn run(out_dir: &Path) -> Result<Vec<ExitCost>, SuiteError> {
    MachineKind::Qemu.emulator().probe().map_err(anyhow::Error::from)?;
    let dir = RunDir::prepare(out_dir).map_err(anyhow::Error::from)?;
    let images = Images::build(dir.path())?;
    let mut program = Program::load(&images.hypervisor).map_err(anyhow::Error::from)?;
    let mut costs = Vec::new();
    for group in GROUPS {
        for (kind, addresses) in ways_of_boot(group, &images, &program, out_dir)? {
            if kind.group() == group && kind.name().starts_with(EXIT) {
                let texts = listing(|address, len| program.bytes(address, len), &addresses);
                let cost = cost(|address, len| program.bytes(address, len), &addresses);
                let functions = addresses.iter().map(|&address| program.function(address).to_string());
                let instructions = texts.into_iter().zip(functions).map(|(text, function)| Listed { text, function });
                costs.push(ExitCost { kind, cost, instructions: instructions.collect() });
            }
        }
    }
    Ok(costs)
}

/// One line for each kind.
pub fn table(costs: &[ExitCost]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.set_header([
        "exit", "instr.", "loads", "stores", "lines", "branches", "indirect", "calls", "returns", "locked", "slow",
    ]);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (1..=9).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for ExitCost { kind, cost, .. } in costs {
        let slow: Vec<String> = cost
            .slow
            .iter()
            .map(|(name, count)| if *count == 1 { name.clone() } else { format!("{count} {name}") })
            .collect();
        table.add_row([
            kind.name().to_owned(),
            cost.instructions.to_string(),
            cost.loads.to_string(),
            cost.stores.to_string(),
            cost.lines.to_string(),
            cost.branches.to_string(),
            cost.indirect.to_string(),
            cost.calls.to_string(),
            cost.returns.to_string(),
            cost.locked.to_string(),
            slow.join(", "),
        ]);
    }
    table
}

/// The instructions of one kind, with each function named where it begins; `None` if there is no such kind.
pub fn listing_of(costs: &[ExitCost], name: &str) -> Option<String> {
    let found = costs.iter().find(|cost| cost.kind.name() == name)?;
    let mut text = String::new();
    let mut function = "";
    for (index, listed) in found.instructions.iter().enumerate() {
        if listed.function != function {
            function = &listed.function;
            text += &format!("     {function}\n");
        }
        text += &format!("{:4}   {}\n", index + 1, listed.text);
    }
    Some(text)
}

/// The kinds that have a listing.
pub fn listed_kinds() -> Vec<&'static str> {
    let kinds = PathKind::ALL.iter().map(|kind| kind.name());
    kinds.filter(|name| name.starts_with(EXIT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_names_what_is_slow() {
        let slow = BTreeMap::from([("RDTSC".to_owned(), 2), ("VMRUN".to_owned(), 1)]);
        let cost = Cost { instructions: 90, loads: 31, calls: 1, returns: 1, slow, ..Cost::default() };
        let text = table(&[ExitCost { kind: PathKind::Cpuid, cost, instructions: Vec::new() }]).to_string();
        let words: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words[..4], ["exit.cpuid", "90", "31", "0"]);
        assert_eq!(words[words.len() - 3..], ["2", "RDTSC,", "VMRUN"]);
    }

    #[test]
    fn a_listing_names_functions_where_they_begin() {
        let listed = |text: &str, function: &str| Listed { text: text.into(), function: function.into() };
        let instructions = vec![listed("push rdx", "a"), listed("rdtsc", "a"), listed("ret", "b")];
        let costs = [ExitCost { kind: PathKind::Kick, cost: Cost::default(), instructions }];
        let expected = "     a\n   1   push rdx\n   2   rdtsc\n     b\n   3   ret\n";
        assert_eq!(listing_of(&costs, "exit.kick").as_deref(), Some(expected));
        assert_eq!(listing_of(&costs, "exit.icr"), None);
        assert!(listed_kinds().contains(&"exit.kick") && !listed_kinds().contains(&"round.call"));
    }
}
